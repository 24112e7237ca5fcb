//! Runs of 1,000 and of 100,000 cases: read from their directory, as `--resume` and `lowmem report` do, and their report written, the page in it.
//! `cargo bench --workspace --bench many_cases`

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use engine_protocol::{Device, RunRecord, SCHEMA};
use reports::{Host, Manifest, Summary, load, load_manifest, load_records};

const CASES: [(&str, usize); 2] = [("1,000 cases", 1000), ("100,000 cases", 100_000)];

/// The models of the records: with them a page says which flags a case has.
const MODELS: [&str; 2] =
    [include_str!("../../sweeps/models/wan2.1-t2v-14b.yaml"), include_str!("../../sweeps/models/wan2.1-t2v-1.3b.yaml")];

/// Records as a real run left them, over and over, each with a name of its own.
fn records(cases: usize) -> Vec<RunRecord> {
    let measured = Path::new(env!("CARGO_MANIFEST_DIR")).join("measured/h100-2026-11-27");
    let read = |folder| load_records(&measured.join(folder)).expect("records of a real GPU").records;
    let known: Vec<RunRecord> = ["14b-720p", "14b-480p", "1.3b-480p"].into_iter().flat_map(read).collect();
    known
        .iter()
        .cycle()
        .take(cases)
        .enumerate()
        .map(|(number, record)| RunRecord { schema: SCHEMA, case: format!("case{number}"), ..record.clone() })
        .collect()
}

fn manifest(records: &[RunRecord]) -> Manifest {
    Manifest {
        schema: SCHEMA,
        version: "0".into(),
        begun: "now".into(),
        command_line: Vec::new(),
        sweep: "many".into(),
        definition: String::new(),
        device: Device::Cuda,
        gpu: None,
        choice: "a bench".into(),
        capacity_bytes: Some(80 << 30),
        smaller: Vec::new(),
        memory_limit_bytes: None,
        gpus: Vec::new(),
        ram_bytes: None,
        ram: None,
        disk: None,
        allows_lossy: false,
        models: MODELS.map(|text| serde_yaml::from_str(text).expect("a model")).into(),
        cases: records.iter().map(|record| record.case.clone()).collect(),
        values: Default::default(),
        mixed: Vec::new(),
        left_out: Vec::new(),
        host: Host { system: "Linux".into(), processor: None, cores: 2, memory_bytes: None },
    }
}

fn many_cases(criterion: &mut Criterion) {
    for (name, cases) in CASES {
        let dir = tempfile::tempdir().expect("a folder");
        let records = records(cases);
        let lines: String = records.iter().map(|record| serde_json::to_string(record).expect("JSON") + "\n").collect();
        fs::write(dir.path().join(reports::RECORDS), lines).expect("written");
        fs::write(dir.path().join(reports::MANIFEST), serde_json::to_string(&manifest(&records)).expect("JSON")).expect("written");
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        group.bench_function("read", |bencher| bencher.iter(|| black_box((load_manifest(dir.path()), load_records(dir.path())))));
        let run = load(dir.path()).expect("a run");
        assert_eq!(run.records.len(), cases);
        group.bench_function("report", |bencher| bencher.iter(|| reports::write(&Summary::of(&run), dir.path()).expect("written")));
        group.finish();
    }
}

criterion_group!(benches, many_cases);
criterion_main!(benches);
