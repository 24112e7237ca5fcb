//! The tables of docs/memory-levels.md, from the sweep `sweeps/flags.yaml`: each flag by itself, on the virtual GPU.
//!
//! As with `peaks.csv`, a change that moves a figure is seen by whoever makes it, and `make peaks` writes the tables anew.

use std::fmt::Write;

use engine_protocol::{Outcome, RunRecord, Stage, gib};
use lowmem_tests::{replaced_between, root};

use super::peak_table::is_renewing;
use super::sweep::sweep;

const TITLES: &str = "| flags | peak allocated GiB | peak reserved GiB | against the first row | set by | page-locked on the host GiB |\n\
                      |---|--:|--:|--:|---|--:|\n";

#[test]
fn each_flags_effect_is_that_of_the_documentation() {
    let path = root().join("docs/memory-levels.md");
    let known = std::fs::read_to_string(&path).expect("the page");
    let definition = std::fs::read_to_string(root().join("sweeps/flags.yaml")).expect("the sweep");
    let (cases, records) = (cases(&definition), sweep(&definition));
    assert_eq!(cases.len(), records.len(), "each case is a configuration of its own");
    let mut found = known.clone();
    for level in [0, 3] {
        // Levels in between are told of with the first.
        let belongs = |(_, record): &(&String, &RunRecord)| (record.config.low_mem_level == 3) == (level == 3);
        let of_level: Vec<_> = cases.iter().zip(&records).filter(belongs).collect();
        let rows: String = of_level.iter().map(|(flags, record)| row(flags, record, of_level[0].1)).collect();
        found = replaced_between(&found, &format!("against level {level}"), &format!("{TITLES}{rows}"));
    }
    if is_renewing() {
        std::fs::write(&path, found).expect("the page is written");
        return;
    }
    assert_eq!(known, found, "figures of {} are not those of the sweep; if that is meant, `make peaks` writes them anew", path.display());
}

/// The flags of each case, as they are written on the command line.
fn cases(definition: &str) -> Vec<String> {
    let definition: serde_json::Value = serde_yaml::from_str(definition).expect("YAML");
    let flags = |case: &serde_json::Value| {
        let pairs = case.as_object().expect("keys and values").iter();
        pairs.map(|(key, value)| format!("`{key}={}`", value.to_string().trim_matches('"'))).collect::<Vec<_>>().join(" ")
    };
    definition["cases"].as_array().expect("cases").iter().map(flags).collect()
}

fn row(flags: &str, record: &RunRecord, base: &RunRecord) -> String {
    assert_eq!(record.outcome, Outcome::Ok, "{}: {:?}", record.case, record.error);
    let [allocated, reserved] = [record.peak_allocated_bytes(), record.peak_reserved_bytes()].map(|bytes| bytes.expect("it ran"));
    let change = gib(reserved) - gib(base.peak_reserved_bytes().expect("it ran"));
    let change = if record.case == base.case { String::new() } else { format!("{change:+.2}") };
    let (stage, pinned) = (record.peak_stage().map_or("", Stage::name), record.host_pinned_peak_bytes.unwrap_or(0));
    let mut text = String::new();
    writeln!(text, "| {flags} | {:.2} | {:.2} | {change} | {stage} | {:.1} |", gib(allocated), gib(reserved), gib(pinned))
        .expect("a string");
    text
}
