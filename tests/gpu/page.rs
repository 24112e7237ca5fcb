//! `docs/measured.md`, made from the folders of `reports/measured`: what was measured where, beside what the virtual GPU says, and what never ran on a GPU.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use engine_protocol::{Config, Device, FLAGS, Flag, Group, Kind, Results, RunRecord, Settings, gib, parse_setting, told as told_value};
use lowmem_tests::measured::{Folder, MEASURED, Peaks, Said, Timed, compare, folders, rows, said};
use lowmem_tests::{generated, model, root};
use serde::Deserialize;

use crate::agreement::{SettingsRow, parity_rows, settings_rows};
use crate::folder::{MACHINE, Machine};
use crate::{agreement, caps, page_locked};

/// A row of `checks.csv` that is read again.
#[derive(Deserialize)]
struct CheckRow {
    check: String,
    verdict: String,
    what: String,
}

const INTRODUCTION: &str = "# Measured on real GPUs

What real GPUs did, beside what the virtual GPU says of the same configurations. This page is made from the folders of `reports/measured/`, one for each card and day, which hold the raw records: `make generated` writes it
anew. On a machine with an NVIDIA GPU of 8 GB or more `make test-gpu` measures what fits there, in a quarter of an hour at most, and leaves such a folder.

\"Says\" is what the virtual GPU says now; a test runs each configuration again and holds it against what was measured. Peaks of allocated and reserved memory are compared byte for byte, in each stage. A time's interval is in
brackets; where the measured time lies outside it, that is said.
";

/// What no list of ours knows of.
const BEYOND: &str = "- Weights of a published model: they came from a seed, so that no video was looked at. Values change no peak; whether they change a time was not tried.
- All steps of a video in one go: cases ran two steps, and times count for all.
- A card with a display or another program on it, Windows or WSL.
- More than one GPU, caches of sampler steps, attention in 8 bits, products of linear layers in 8 bits and `fused=true`: they are newer than the last measurement.
";

/// All of the page.
fn page(folders: &[Folder]) -> String {
    let mut text = INTRODUCTION.to_owned();
    for folder in folders {
        text += &section(folder);
    }
    text + &never(folders)
}

/// One card and day.
pub(crate) fn section(folder: &Folder) -> String {
    let machine = machine(folder);
    let mut text = format!("\n## {}, {}\n\n| | |\n|---|---|\n", machine.card, machine.date);
    let driver = machine.driver.unwrap_or_default();
    let about = [
        ("driver", driver),
        ("libraries", machine.libraries),
        ("host", machine.host),
        ("lowmem", machine.lowmem),
        ("made by", machine.made_by),
    ];
    for (what, value) in about.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(text, "| {what} | {value} |").expect("a string");
    }
    writeln!(text, "| raw data | `{MEASURED}/{}` |", folder.name).expect("a string");
    text + &checks(&folder.path) + &cases(folder) + &settings(&folder.path) + &parity(&folder.path) + &notes(&folder.path)
}

fn machine(folder: &Folder) -> Machine {
    let text = std::fs::read_to_string(folder.path.join(MACHINE)).unwrap_or_default();
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {MACHINE}: {error}", folder.name))
}

fn checks(folder: &Path) -> String {
    let rows: Vec<CheckRow> = rows(&folder.join("checks.csv"));
    if rows.is_empty() {
        return String::new();
    }
    let mut text = "\n### Checks\n\n| check | verdict | what |\n|---|---|---|\n".to_owned();
    for CheckRow { check, verdict, what } in rows {
        writeln!(text, "| {check} | {verdict} | {} |", what.replace('|', "/").replace('\n', " ")).expect("a string");
    }
    text
}

/// Memory and times of the cases.
fn cases(folder: &Folder) -> String {
    let all = said(&folder.path);
    let cases: Vec<(&RunRecord, Option<&Said>)> = folder
        .sweeps
        .iter()
        .flat_map(|(sweep, records)| records.iter().map(move |record| (sweep, record)))
        .map(|(sweep, record)| (record, all.iter().find(|said| said.sweep == *sweep && said.case == record.case)))
        .collect();
    if cases.is_empty() {
        return String::new();
    }
    let mut text = "\n### Memory\n\n| model, video and flags | allocated GiB | reserved GiB | against the virtual GPU | device GiB | says |\n|---|--:|--:|---|--:|--:|\n".to_owned();
    for (record, said) in &cases {
        let [allocated, reserved, device] = [record.peak_allocated_bytes(), record.peak_reserved_bytes(), record.peak_device_bytes()]
            .map(|bytes| bytes.map(in_gib).unwrap_or_default());
        let peaks = said.map_or("", |said| match compare(record, said).0 {
            Peaks::Same => "the same bytes",
            Peaks::SegmentLess => "the same bytes; decode reserved 2 MiB less",
            Peaks::Different => "different",
        });
        let says = said.map(|said| in_gib(said.peak_device_bytes)).unwrap_or_default();
        writeln!(text, "| {} | {allocated} | {reserved} | {peaks} | {device} | {says} |", title(record)).expect("a string");
    }
    text += "\nDevice: reserved, and what the driver and the libraries hold beside it.\n\n### Times\n\nSeconds.\n\n";
    text +=
        "| model, video and flags | step | says | total | says | decode | says | encode | says |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for (record, said) in &cases {
        let cells = [Timed::Step, Timed::Total, Timed::Decode, Timed::Encode].map(|timed| time(record, *said, timed));
        writeln!(text, "| {} | {} |", title(record), cells.join(" | ")).expect("a string");
    }
    text + "\nOf a text encoder on the CPU nothing is said here: its time hangs on the machine. A step is the mean of those after the first, and counts for all that did not run.\n"
}

fn in_gib(bytes: u64) -> String {
    format!("{:.2}", gib(bytes))
}

/// A measured time, and what is said of it.
fn time(record: &RunRecord, said: Option<&Said>, timed: Timed) -> String {
    let Some(measured) = timed.of(record).map(|secs| secs.expected) else { return " | ".into() };
    let Some(says) = said.and_then(|said| said.secs(timed)) else { return format!("{measured:.2} | ") };
    let (off, out) = ((says.expected / measured - 1.0) * 100.0, if (says.low..=says.high).contains(&measured) { "" } else { ", outside" });
    format!("{measured:.2} | {:.2} ({:.2} to {:.2}), {off:+.0}%{out}", says.expected, says.low, says.high)
}

/// `wan2.1-t2v-14b at 832x480, level 3, resident_blocks=auto`.
fn title(record: &RunRecord) -> String {
    let config = &record.config;
    let flags = config.flags_beside_level(Device::Cuda, &model(&config.model));
    let flags: String = flags.iter().map(|flag| format!(", {flag}")).collect();
    format!("{} at {}, {} frames, level {}{flags}", config.model, config.resolution, config.frames, config.low_mem_level)
}

fn settings(folder: &Path) -> String {
    let rows = settings_rows(folder);
    if rows.is_empty() {
        return String::new();
    }
    let mut text = "\n### The same at every level\n\nEach setting beside level 0 on the same GPU, with a tiny model: the norm of the difference over the norm of the values. 0 is the same bits. In fp32 the VAE's convolutions multiply in TF32 there.\n\n".to_owned();
    text += "| settings | latents, bf16 | video, bf16 | latents, fp32 | video, fp32 |\n|---|--:|--:|--:|--:|\n";
    let mut names: Vec<&str> = Vec::new();
    for row in &rows {
        if !names.contains(&row.settings.as_str()) {
            names.push(&row.settings);
        }
    }
    for name in names {
        let cells = ["bf16", "fp32"].map(|dtype| {
            let row = rows.iter().find(|row| row.settings == name && row.dtype == dtype);
            match row {
                None => " | ".to_owned(),
                Some(_) if is_another_video(name) => "another video | another video".to_owned(),
                Some(row) => format!("{} | {}", error(row.latents), error(row.video)),
            }
        });
        writeln!(text, "| `{name}` | {} |", cells.join(" | ")).expect("a string");
    }
    text
}

/// Whether one of the settings makes another video, so that there is nothing to compare.
fn is_another_video(settings: &str) -> bool {
    let is_other = |word: &str| FLAGS.iter().any(|flag| word.split('=').next() == Some(flag.key) && flag.results == Results::Other);
    settings.split(' ').any(is_other)
}

fn error(error: f64) -> String {
    if error == 0.0 { "0".into() } else { format!("{error:.1e}") }
}

fn parity(folder: &Path) -> String {
    let rows = parity_rows(folder);
    if rows.is_empty() {
        return String::new();
    }
    let mut text = "\n### Parity with diffusers\n\nIn fp32, relative to diffusers on the CPU. At level 3 without `vae_tiling=false` it decodes in tiles, which have seams.\n\n| checkpoint | settings | latents | video |\n|---|---|--:|--:|\n".to_owned();
    for row in rows {
        writeln!(text, "| {} | `{}` | {} | {} |", row.checkpoint, row.settings, error(row.latents), error(row.video)).expect("a string");
    }
    text
}

/// What people wrote down beside it.
fn notes(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("notes.md")).map(|text| format!("\n{text}")).unwrap_or_default()
}

/// What no folder has: cards, models, values of flags, checks.
fn never(folders: &[Folder]) -> String {
    let records: Vec<&RunRecord> = folders.iter().flat_map(|folder| &folder.sweeps).flat_map(|(_, records)| records).collect();
    let unmeasured = |data: &str, measured: BTreeSet<&str>| {
        let listed: Vec<_> = names(data).into_iter().filter(|name| !measured.contains(name.as_str())).collect();
        format!("{} of {} ({})", listed.len(), names(data).len(), listed.join(", "))
    };
    let cards = unmeasured("gpus", records.iter().filter_map(|record| record.gpu.as_deref()).collect());
    let without_records: Vec<String> = folders.iter().flat_map(|folder| machine(folder).without_records).collect();
    let ran =
        records.iter().map(|record| record.config.model.as_str()).chain(without_records.iter().map(String::as_str)).chain(["wan-tiny"]);
    let models = unmeasured("models", ran.collect());
    let mut text = format!("\n## Never run on a GPU\n\n- Cards that there is a profile of: {cards}.\n- Models: {models}.\n{BEYOND}");
    if !without_records.is_empty() {
        writeln!(text, "- Run, but with no record here: {}.", without_records.join(", ")).expect("a string");
    }
    let made: BTreeSet<String> = folders
        .iter()
        .flat_map(|folder| rows::<CheckRow>(&folder.path.join("checks.csv")))
        .filter(|row| row.verdict != "skipped")
        .map(|row| row.check)
        .collect();
    let left: Vec<_> =
        caps::NAMES.into_iter().chain([page_locked::NAME, agreement::FIXTURES]).filter(|name| !made.contains(*name)).collect();
    if !left.is_empty() {
        writeln!(text, "- Checks of `make test-gpu`: {}.", left.join("; ")).expect("a string");
    }
    text += "\nFlags by their values:\n\n| flag | with whole models | with a tiny model alone | never |\n|---|---|---|---|\n";
    let tiny: Vec<Config> = folders.iter().flat_map(|folder| settings_rows(&folder.path)).map(|row| tiny(&row)).collect();
    // One flag does nothing, and is taken all the same.
    let counts =
        |flag: &&Flag| ![Group::Video, Group::Prompt, Group::Measuring].contains(&flag.group) && flag.key != "gradient_checkpointing";
    for flag in FLAGS.iter().filter(counts) {
        let whole: BTreeSet<String> =
            records.iter().flat_map(|record| [&record.config, record.config_run()]).filter_map(|config| value(flag, config)).collect();
        let small: BTreeSet<String> = tiny.iter().filter_map(|config| value(flag, config)).filter(|value| !whole.contains(value)).collect();
        let known = |value: &String| whole.contains(value) || small.contains(value);
        let mut never: Vec<String> = values(flag).into_iter().filter(|value| !known(value)).collect();
        if values(flag).is_empty() && whole.len() + small.len() < 2 {
            never.push("any other".into());
        }
        let list = |values: &mut dyn Iterator<Item = &String>| values.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        let never = never
            .iter()
            .map(|value| if value == "any other" { value.clone() } else { format!("`{value}`") })
            .collect::<Vec<_>>()
            .join(", ");
        writeln!(text, "| `{}` | {} | {} | {never} |", flag.key, list(&mut whole.iter()), list(&mut small.iter())).expect("a string");
    }
    text
}

/// The names of the files in a folder of `sweeps`.
fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join("sweeps").join(folder)).expect("the folder");
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// The configuration that settings mean for wan-tiny.
fn tiny(row: &SettingsRow) -> Config {
    let dtype = format!("dtype={}", row.dtype);
    let pairs = row.settings.split(' ').chain([dtype.as_str()]).map(|word| parse_setting(word).expect("a setting"));
    Config::resolve_on(Device::Cuda, &Settings::from_pairs(pairs).expect("settings"), &model("wan-tiny")).expect("legal")
}

/// A flag's value in a configuration, as it is written.
fn value(flag: &Flag, config: &Config) -> Option<String> {
    flag.of(config).map(|value| told_value(&value)).filter(|value| !value.is_empty())
}

/// The words that a flag takes; none where it takes numbers.
fn values(flag: &Flag) -> Vec<String> {
    match &flag.kind {
        Kind::Switch => vec!["true".into(), "false".into()],
        Kind::Word(words) | Kind::WordOrSwitch(words) | Kind::IntegerOrWord(words) => {
            words.iter().map(|(word, _)| (*word).to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn what_was_measured_is_on_the_page() {
    generated("docs/measured.md", &page(&folders()));
}

#[test]
fn what_was_never_measured_is_named() {
    let text = never(&[]);
    for part in
        ["h100", "wan2.1-t2v-14b", "on_oom=lower goes on", "| `on_oom` |  |  | `fail`, `lower` |", "| `sequence_chunk` |  |  | any other |"]
    {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}
