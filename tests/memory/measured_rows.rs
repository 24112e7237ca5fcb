//! What real GPUs measured (`reports/measured/CARD-DATE/SWEEP/records.jsonl`) beside what a virtual one of the same kind says now: the same configurations, run again.
//!
//! Allocated and reserved peaks are the same, byte for byte. Device memory and times are printed side by side.

use std::path::PathBuf;

use engine_protocol::{Config, RunRecord, Secs, Stage, StageMemory};
use lowmem_tests::root;
use serde_json::{Value, json};

use super::sweep::Swept;

/// libtorch's segment of small tensors: a real decoder of tiles may need one less, since its convolutions ask for other workspaces.
const SEGMENT: u64 = 2 << 20;
const GIB: f64 = (1u64 << 30) as f64;

/// A case as a real GPU measured it, and as the virtual one says it now.
struct Pair {
    sweep: String,
    measured: RunRecord,
    says: RunRecord,
}

impl Pair {
    fn name(&self) -> String {
        format!("{} {}", self.sweep, self.measured.case)
    }
}

/// Each sweep that was measured: its name, and its records.
fn measured() -> Vec<(String, Vec<RunRecord>)> {
    let folders = |path: PathBuf| {
        let entries = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
        paths.sort();
        paths
    };
    let cards = folders(root().join("reports/measured"));
    let sweeps = cards.into_iter().flat_map(folders).filter(|path| path.join(reports::RECORDS).exists());
    let name = |path: &PathBuf| path.strip_prefix(root().join("reports/measured")).expect("under it").display().to_string();
    sweeps.map(|path| (name(&path), reports::load_records(&path).expect("records").0)).collect()
}

/// A configuration as it ran, as a case of a sweep: every flag is said, so that nothing is left to this machine.
fn case(config: &Config) -> Value {
    config.settings().into_iter().map(|(flag, value)| (flag.key.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
}

/// All that was measured, run again on virtual GPUs of the same kinds, without what a user has measured of this machine.
fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (sweep, measured) in measured() {
        let gpu = measured[0].gpu.clone().expect("a GPU with a profile");
        assert!(measured.iter().all(|record| record.gpu.as_ref() == Some(&gpu)), "{sweep}: one GPU");
        let cases: Vec<_> = measured.iter().map(|record| case(record.config_run())).collect();
        let settings = tempfile::tempdir().expect("a folder");
        let swept = Swept::new(&json!({ "cases": cases }).to_string(), &gpu, "virtual", &[("XDG_CONFIG_HOME", settings.path().to_owned())]);
        let run = reports::load(swept.path("records.jsonl").parent().expect("a folder")).expect("a run");
        assert_eq!(run.records.len(), measured.len(), "{sweep}: a case for each");
        for (measured, says) in measured.into_iter().zip(run.records) {
            assert_eq!(measured.config_run(), &says.config, "{sweep} {}: another configuration", measured.case);
            pairs.push(Pair { sweep: sweep.clone(), measured, says });
        }
    }
    pairs
}

#[test]
fn peaks_are_those_that_were_measured() {
    let pairs = pairs();
    assert!(pairs.len() >= 11, "{} measured cases", pairs.len());
    for pair in &pairs {
        device(pair);
    }
    for pair in &pairs {
        times(pair);
    }
    let faults: String = pairs.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "the virtual GPU counts otherwise than the real one:\n{faults}");
}

/// One line for each stage whose peaks of allocated or reserved memory are not those that were measured. Loading is left out: only a real GPU's weights are
/// filled, by way of a buffer.
fn faults(pair: &Pair) -> Vec<String> {
    let is_tiled = pair.measured.config.vae_tile_size.is_some();
    let fault = |stage: Stage| {
        let [measured, says] = [&pair.measured, &pair.says].map(|record| record.stage_memory(stage).expect("counted"));
        let less = says.peak_reserved_bytes.checked_sub(measured.peak_reserved_bytes);
        let may_be_less = is_tiled && stage == Stage::Decode;
        let is_same =
            measured.peak_allocated_bytes == says.peak_allocated_bytes && (less == Some(0) || may_be_less && less == Some(SEGMENT));
        let peaks = |memory: StageMemory| format!("{} allocated, {} reserved", memory.peak_allocated_bytes, memory.peak_reserved_bytes);
        (!is_same).then(|| format!("{}, {}: {} measured, {} virtual\n", pair.name(), stage.name(), peaks(measured), peaks(says)))
    };
    [Stage::Encode, Stage::Denoise, Stage::Decode].into_iter().filter_map(fault).collect()
}

/// Prints the peak of device memory, measured and virtual, and how much the virtual one has more.
fn device(pair: &Pair) {
    let [measured, says] =
        [&pair.measured, &pair.says].map(|record| record.peak_device_bytes().expect("a case that came to its end") as f64 / GIB);
    println!("device {measured:6.3} GiB measured, {says:6.3} said, {:+.3}  {}", says - measured, pair.name());
}

/// Prints times, measured and modelled, and how much longer the modelled ones are; `!` where the measured one is outside the interval.
fn times(pair: &Pair) {
    type Time = fn(&RunRecord) -> Option<Secs>;
    let times: [(&str, Time); 4] = [
        ("step", RunRecord::step_secs),
        ("total", RunRecord::total_secs),
        ("decode", |record| record.stage_secs(Stage::Decode)),
        ("encode", |record| record.stage_secs(Stage::Encode)),
    ];
    let told = times.map(|(what, of)| {
        let (measured, says) = (of(&pair.measured).expect("measured").expected, of(&pair.says).expect("modelled"));
        let is_inside = (says.low..=says.high).contains(&measured);
        let off = (says.expected / measured - 1.0) * 100.0;
        format!(
            "{what} {measured:.2} s, {:.2} ({:.2} to {:.2}) {off:+.1}%{}",
            says.expected,
            says.low,
            says.high,
            if is_inside { "" } else { " !" }
        )
    });
    println!("times  {}  {}", pair.name(), told.join("; "));
}
