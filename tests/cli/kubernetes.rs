//! docs/kubernetes-job.yaml: the manifest by schema, and its command, run as each of its pods runs it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use lowmem_tests::root;
use serde_json::Value;

use crate::command::{Place, executable};

/// Every case is answered at once.
const QUICK: &str = "begun load\nended load 1\nfinished\n";

fn manifest() -> Value {
    let text = fs::read_to_string(root().join("docs/kubernetes-job.yaml")).expect("the manifest");
    serde_yaml::from_str(&text).expect("YAML")
}

#[test]
fn the_manifest_is_a_job() {
    let schema = fs::read_to_string(root().join("tests/cli/kubernetes/job.schema.json")).expect("the schema");
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).expect("JSON")).expect("a schema");
    let manifest = manifest();
    let mistakes: Vec<_> = schema.iter_errors(&manifest).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(mistakes, [""; 0]);
    let spec = &manifest["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], spec["volumes"][0]["name"], "what is mounted is there");
    for (at, wrong) in
        [("/spec/completionMode", "NonIndexed"), ("/spec/template/spec/restartPolicy", "Always"), ("/metadata/name", "A sweep")]
    {
        let mut other = manifest.clone();
        *other.pointer_mut(at).expect("it is there") = wrong.into();
        assert!(!schema.is_valid(&other), "{at}: {wrong}");
    }
    let mut other = manifest.clone();
    other["spec"]["completion"] = 8.into();
    assert!(!schema.is_valid(&other), "a field that no Job has");
}

#[test]
fn its_pods_run_all_parts_of_the_sweep() {
    let place = Place::new();
    let manifest = manifest();
    let container = &manifest["spec"]["template"]["spec"]["containers"][0];
    let words = [&container["command"], &container["args"]].map(|words| words.as_array().expect("words"));
    let words: Vec<&str> = words.into_iter().flatten().map(|word| word.as_str().expect("a word")).collect();
    let [shell, option, script] = words.as_slice() else { panic!("{words:?}") };
    let mount = container["volumeMounts"][0]["mountPath"].as_str().expect("a path");
    let script = script.replace(mount, &place.path("runs").display().to_string());
    let worker = place.worker(QUICK);
    fs::create_dir(place.path("bin")).expect("a folder");
    symlink(executable("lowmem"), place.path("bin/lowmem")).expect("a link");
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").expect("a path"));
    let parts = manifest["spec"]["completions"].as_u64().expect("a number");
    for index in 0..parts {
        let mut pod = Command::new(shell);
        pod.args([option, script.as_str()]).env("JOB_COMPLETION_INDEX", index.to_string()).env("PATH", &path);
        let output = pod.env("LOWMEM_WORKER", &worker).current_dir(place.path("")).output().expect("a shell");
        assert!(output.status.success(), "{index}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let folders = (1..=parts).map(|part| format!("runs/hardware/parts/{part}"));
    place.lowmem_with(QUICK).args(["merge", "--out", "runs/hardware"]).args(folders).assert().success();
    assert_eq!(place.rows("runs/hardware").len(), 128);
}
