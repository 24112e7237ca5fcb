//! Weights from a seed that the workers of a run share: made once, the same bits, and gone when the run is over, however it ends.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use engine_protocol::{Config, Device, Request, Settings};
use lowmem_tests::{built, model};

use crate::command::{Place, executable, lowmem};
use crate::processes::{MARK, left};

/// Files of weights at and below `folder`, each with its inode and when it was written.
const LIST: &str = r#"find "$LOWMEM_WEIGHTS" -name '*.safetensors' -printf '%f %i %T@\n' | sort"#;

/// A worker that says its process's id into the pipe `begun`, and hangs.
const HANGS: &str = "echo $$ > begun\nexec sleep 600\n";

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("readable").count()
}

#[test]
fn the_second_case_draws_nothing() {
    let place = Place::new();
    let weights = place.path("weights");
    fs::create_dir(&weights).expect("a folder");
    let worker = built("lowmem-worker");
    let script =
        format!("{LIST} >> seen\necho >> seen\nprintf '%s' \"$request\" | {} \nended=$?\n{LIST} > after\nexit $ended\n", worker.display());
    let sweep = ["sweep", "smoke", "--device", "cpu", "attn_type=sdpa", "--out", "run"];
    place.lowmem_with(&script).env("LOWMEM_WEIGHTS", &weights).args(sweep).assert().success();
    let seen = fs::read_to_string(place.path("seen")).expect("what cases found");
    let after = fs::read_to_string(place.path("after")).expect("what the last one left");
    let found: Vec<&str> = seen.split_terminator('\n').collect();
    // The first of four cases found none; the others the same three files, which nobody wrote again.
    assert_eq!(after.lines().count(), 3, "{after}");
    let wanted =
        [vec![""], after.lines().chain([""]).collect(), after.lines().chain([""]).collect(), after.lines().chain([""]).collect()].concat();
    assert_eq!(found, wanted);
    assert_eq!(entries(&weights), 0, "it is gone with the run");
}

#[test]
fn a_video_from_shared_weights_is_the_same() {
    let place = Place::new();
    let model = model("wan-tiny");
    let shared = place.path("shared");
    fs::create_dir(&shared).expect("a folder");
    let video = |name: &str, dtype: &str, weight_dtype: &str, shared_weights: Option<&Path>| {
        let settings = [
            ("dtype", dtype.into()),
            ("weight_dtype", weight_dtype.into()),
            ("low_mem_level", 3.into()),
            ("frames", 1.into()),
            ("steps", 1.into()),
        ];
        let settings = Settings::from_pairs(settings.map(|(key, value)| (key.to_owned(), value))).expect("settings");
        let output = place.path(&format!("{name}.safetensors"));
        let request = Request {
            case: name.into(),
            device: Device::Cpu,
            memory_limit_bytes: None,
            host_limit_bytes: None,
            gpu: None,
            host_rates: None,
            disk: None,
            config: Config::resolve_on(Device::Cpu, &settings, &model).expect("legal"),
            model: model.clone(),
            checkpoint: None,
            shared_weights: shared_weights.map(Path::to_owned),
            output: Some(output.clone()),
            snapshot: None,
            operation_times: None,
            ranks: None,
        };
        let mut worker = assert_cmd::Command::new(built("lowmem-worker"));
        worker.env("LD_LIBRARY_PATH", built("virtual-gpu")).env_remove("LOWMEM_VIRTUAL_GPU");
        worker.write_stdin(serde_json::to_string(&request).expect("JSON")).assert().success();
        fs::read(output).expect("a video")
    };
    for (dtype, weight_dtype) in [("fp32", "as_stored"), ("bf16", "as_stored"), ("bf16", "fp8_e4m3")] {
        let own = video("own", dtype, weight_dtype, None);
        for name in ["first", "second"] {
            assert!(own == video(name, dtype, weight_dtype, Some(&shared)), "{name}, {dtype}, {weight_dtype}");
        }
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_behind_and_a_killed_one_nothing_for_long() {
    let place = Place::new();
    let worker = place.worker(HANGS);
    let weights = place.path("weights");
    fs::create_dir(&weights).expect("a folder");
    assert!(Command::new("mkfifo").arg(place.path("begun")).status().expect("mkfifo").success());
    for signal in ["-INT", "-KILL"] {
        let run = format!("run{signal}");
        let mut lowmem = Command::new(executable("lowmem"));
        lowmem.args(["sweep", "smoke", "--device", "cpu", "attn_type=sdpa", "--out", &run]).current_dir(place.path(""));
        let lowmem = lowmem
            .env("LOWMEM_WORKER", &worker)
            .env("LOWMEM_WEIGHTS", &weights)
            .env(MARK, &run)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut lowmem = lowmem.expect("lowmem");
        let mut id = String::new();
        // Opening waits for the worker, reading for its word.
        File::open(place.path("begun")).expect("the pipe").read_to_string(&mut id).expect("the worker's id");
        assert_eq!(entries(&weights), 1, "the run has a folder");
        assert!(Command::new("kill").args([signal, &lowmem.id().to_string()]).status().expect("kill").success());
        lowmem.wait().expect("lowmem ends");
        assert_eq!(entries(&weights), usize::from(signal == "-KILL"), "{signal}");
        assert_eq!(left(&run), [""; 0], "the worker runs on");
    }
    // A sweep of one case shares nothing, and clears up all the same.
    let one = ["sweep", "smoke", "--device", "cpu", "attn_type=sdpa", "low_mem_level=0", "--out", "one"];
    lowmem()
        .args(one)
        .env("LOWMEM_WORKER", place.worker("finished\n"))
        .env("LOWMEM_WEIGHTS", &weights)
        .current_dir(place.path(""))
        .assert()
        .success();
    assert_eq!(entries(&weights), 0);
}
