//! A sweep of 10,000 cases through the command, with nothing left to run: its definition is expanded and cases that are the same are merged, records are read, and
//! manifest and report are written. `cargo bench --workspace --bench ten_thousand`

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use criterion::{Criterion, criterion_group, criterion_main};
use engine_protocol::{Config, Device, ModelSpec, RunRecord, SCHEMA, Settings};
use reports::{MANIFEST, RECORDS, load_manifest, load_records};
use serde_json::Value;

/// 12,000 combinations, of which 1,500 at level 0 are others again.
const DEFINITION: &str = "model: wan2.1-t2v-14b\nsweep:\n  low_mem_level: [0, 1, 2, 3]\n  vae_tile_size: [4, 8]\n  frames: 5..81 step 4\n  \
                          resolution: [832x480, 960x544, 1088x624, 1280x720, 1920x1088]\n  seed: 0..14\n";
const CASES: usize = 10_500;

fn lowmem(folder: &Path, arguments: &[&str]) -> Output {
    let mut lowmem = Command::new(env!("CARGO_BIN_EXE_lowmem"));
    lowmem.current_dir(folder).env("LOWMEM_WORKER", "/bin/false").args(["sweep", "many.yaml", "--gpu", "24GB", "--device", "virtual"]);
    lowmem.args(arguments).output().expect("lowmem starts")
}

/// The cases' configurations, in order.
fn configs() -> Vec<Config> {
    let sweeps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps");
    let model = fs::read_to_string(sweeps.join("models/wan2.1-t2v-14b.yaml")).expect("the model");
    let model: ModelSpec = serde_yaml::from_str(&model).expect("a model");
    let definition: Value = serde_yaml::from_str(DEFINITION).expect("YAML");
    let list = |key: &str| definition["sweep"][key].as_array().expect("a list").clone();
    let mut configs = Vec::new();
    for level in list("low_mem_level") {
        for tile in list("vae_tile_size").into_iter().filter(|tile| level != 0 || *tile == 4) {
            for frames in (5..=81).step_by(4) {
                for resolution in list("resolution") {
                    for seed in 0..15 {
                        let pairs = [("low_mem_level", level.clone()), ("vae_tile_size", tile.clone()), ("frames", frames.into())];
                        let more = [("resolution", resolution.clone()), ("seed", seed.into()), ("steps_measured", 2.into())];
                        let pairs = pairs.into_iter().chain(more).map(|(key, value)| (key.to_owned(), value));
                        let settings = Settings::from_pairs(pairs).expect("settings");
                        configs.push(Config::resolve_on(Device::Virtual, &settings, &model).expect("legal"));
                    }
                }
            }
        }
    }
    configs
}

/// A run of all cases, each with an answer.
fn finished_run(folder: &Path) {
    fs::write(folder.join("many.yaml"), DEFINITION).expect("written");
    let listed = String::from_utf8(lowmem(folder, &["--dry-run"]).stdout).expect("text");
    let names: Vec<&str> = listed.lines().take_while(|line| !line.is_empty()).collect();
    // One case begins the run: of it comes the manifest.
    lowmem(folder, &["--shard", "1/10500", "--out", "run"]);
    let run = folder.join("run");
    let mut manifest = load_manifest(&run).expect("a manifest");
    manifest.cases = names.iter().map(|&name| name.to_owned()).collect();
    fs::write(run.join(MANIFEST), serde_json::to_string(&manifest).expect("JSON")).expect("written");
    let measured = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/measured/h100-2026-11-27/14b-720p");
    let record = load_records(&measured).expect("records of a real GPU").records.swap_remove(0);
    let configs = configs();
    assert_eq!((names.len(), configs.len()), (CASES, CASES));
    let records = names.into_iter().zip(configs).map(|(name, config)| RunRecord {
        schema: SCHEMA,
        case: name.to_owned(),
        device: Device::Virtual,
        config,
        ..record.clone()
    });
    let lines: String = records.map(|record| serde_json::to_string(&record).expect("JSON") + "\n").collect();
    fs::write(run.join(RECORDS), lines).expect("written");
}

fn ten_thousand(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    finished_run(folder.path());
    let mut group = criterion.benchmark_group("10,500 cases");
    group.sample_size(10);
    group.bench_function("expanded and merged", |bencher| {
        bencher.iter(|| {
            let said = String::from_utf8(lowmem(folder.path(), &["--dry-run"]).stdout).expect("text");
            assert!(said.contains("1500 combinations come out the same as another"), "{said}");
        });
    });
    group.bench_function("expanded, merged and written", |bencher| {
        bencher.iter(|| {
            let output = lowmem(folder.path(), &["--out", "run", "--resume"]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("10500 cases, 0 to run"), "{said}");
        });
    });
    group.finish();
}

criterion_group!(benches, ten_thousand);
criterion_main!(benches);
