//! What is computed on the GPU: the same at every level and with every flag that says so, and what diffusers computes.
//!
//! Each video comes from `lowmem generate`, a process each. Without a GPU the CPU computes them, in fp32.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::process::Command;

use lowmem_tests::agreement::{AGREEING, Agreeing, Agreement};
use lowmem_tests::root;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::check::{Checks, Verdict};
use crate::folder::Found;
use crate::hand::Hand;

/// The check of the parity tests, but for those of products in FP8, which have one of their own: older cards have no such products.
pub(crate) const FIXTURES: &str = "parity fixtures";
/// The check of those.
pub(crate) const FIXTURES_IN_FP8: &str = "parity fixtures in FP8";
/// What they have in their names.
const IN_FP8: &str = "fp8";

/// The model that has weights without a checkpoint.
const SEEDED: &[&str] = &["--model", "wan-tiny"];
/// Small, so that a setting takes seconds on a CPU too.
const SIZE: &[&str] = &["seed=7", "negative_prompt=rain", "resolution=48x32", "frames=9", "steps=2"];

/// Ways to split a video over two GPUs.
const SPLITS: [&[&str]; 3] = [&["cp_size=2"], &["cp_size=2", "cp_ring=2"], &["cfg_size=2"]];

/// How far latents may be off where arithmetic goes in another order: the norm of the difference over the norm of the values.
fn latents_tolerance(dtype: &str) -> f64 {
    if dtype == "fp32" { 1e-5 } else { 5e-2 }
}

/// The same of the video. In fp32 convolutions of a GPU multiply in TF32, which keeps 10 bits.
fn video_tolerance(dtype: &str, is_real: bool) -> f64 {
    match (dtype, is_real) {
        ("fp32", true) => 2e-3,
        ("fp32", false) => 1e-4,
        _ => 5e-2,
    }
}

/// A row of `settings.csv`: how far what these settings compute is off level 0 on the same device, the norm of the difference over the norm of the values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SettingsRow {
    pub(crate) dtype: String,
    pub(crate) settings: String,
    pub(crate) latents: f64,
    pub(crate) video: f64,
}

/// A row of `parity.csv`: how far a video from a checkpoint is off diffusers' on the CPU in fp32, the largest difference over the largest value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ParityRow {
    pub(crate) checkpoint: String,
    pub(crate) settings: String,
    pub(crate) latents: f64,
    pub(crate) video: f64,
}

/// Latents and video of a run.
struct Made {
    latents: Vec<f32>,
    video: Vec<f32>,
}

/// Runs `lowmem generate` where things are computed.
fn generate(hand: &Hand, what: &[&str], settings: &[&str]) -> Result<Made, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("video.safetensors");
    let place = hand.computing();
    let arguments = [&["generate", "--output"], &[output.to_str().expect("a path in UTF-8")] as &[_], &place, what, settings].concat();
    if let Some(fault) = hand.lowmem(&arguments).fault() {
        return Err(format!("{}: {fault}", settings.join(" ")));
    }
    let file = std::fs::read(&output).map_err(|error| error.to_string())?;
    Ok(Made { latents: tensor(&file, "latents")?, video: tensor(&file, "video")? })
}

/// The numbers of an fp32 tensor.
fn tensor(file: &[u8], name: &str) -> Result<Vec<f32>, String> {
    let file = SafeTensors::deserialize(file).map_err(|error| error.to_string())?;
    let view = file.tensor(name).map_err(|error| error.to_string())?;
    Ok(view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
}

/// The norm of the difference over the norm of the values. Infinite where they cannot be compared, so that no tolerance takes it.
fn off(ours: &[f32], reference: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let pairs = ours.iter().zip(reference);
    let error = norm(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b))) / norm(&mut reference.iter().map(|value| f64::from(*value)));
    if ours.len() == reference.len() && error.is_finite() { error } else { f64::INFINITY }
}

/// The largest difference over the largest value.
fn worst(ours: &[f32], reference: &[f32]) -> f64 {
    let largest = reference.iter().fold(0.0, |largest: f64, value| largest.max(f64::from(*value).abs()));
    let difference = ours.iter().zip(reference).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    let error = difference.fold(0.0, |worst: f64, next| if next.is_nan() { f64::INFINITY } else { worst.max(next) }) / largest;
    if ours.len() == reference.len() && error.is_finite() { error } else { f64::INFINITY }
}

/// Every setting that agrees with level 0, in each type: the same bits where it promises them, else within the tolerance.
pub(crate) fn levels(hand: &Hand, checks: &mut Checks, found: &mut Found) {
    let dtypes: &[&str] = if hand.is_real() { &["bf16", "fp32"] } else { &["fp32"] };
    for dtype in dtypes {
        checks.check(&format!("levels agree in {dtype}"), || {
            let mut faults = Vec::new();
            let before = found.settings.len();
            let mut level_0 = HashMap::new();
            for Agreeing { settings, agreement } in AGREEING {
                let is_same = *agreement == Agreement::Bits || *agreement == Agreement::BitsOnTheCpu && !hand.is_real();
                let most = if is_same { 0.0 } else { latents_tolerance(dtype) };
                faults.extend(kept(compared(hand, dtype, settings, &mut level_0), most, hand, found));
            }
            let rows = &found.settings[before..];
            let same = rows.iter().filter(|row| row.latents == 0.0).count();
            Verdict::of(format!("{} settings against level 0, {same} with the same bits", rows.len()), &faults)
        });
    }
}

/// A video split over two GPUs, beside level 0 on one. On the CPU ranks are threads.
pub(crate) fn two_ranks(hand: &Hand, checks: &mut Checks, found: &mut Found) {
    checks.check("two ranks agree with one in fp32", || {
        if let Some(missing) = hand.is_real().then(|| lacks_two_gpus(hand)).flatten() {
            return Verdict::Skipped(missing);
        }
        let (mut faults, mut level_0) = (Vec::new(), HashMap::new());
        for split in SPLITS {
            for level in ["low_mem_level=0", "low_mem_level=3"] {
                let row = compared(hand, "fp32", &[split, &[level]].concat(), &mut level_0);
                faults.extend(kept(row, latents_tolerance("fp32"), hand, found));
            }
        }
        Verdict::of(format!("{} splits at levels 0 and 3", SPLITS.len()), &faults)
    });
}

/// Keeps what was compared, and gives what is wrong with it: latents that are off by more than `most`, or a video by more than its tolerance.
fn kept(row: Result<SettingsRow, String>, most: f64, hand: &Hand, found: &mut Found) -> Option<String> {
    match row {
        Ok(row) => {
            let is_off = row.latents > most || row.video > video_tolerance(&row.dtype, hand.is_real());
            let fault = is_off.then(|| format!("{}: latents off by {:.1e}, the video by {:.1e}", row.settings, row.latents, row.video));
            found.settings.push(row);
            fault
        }
        Err(fault) => Some(fault),
    }
}

/// What `lowmem` says where there are no two GPUs that it can use.
fn lacks_two_gpus(hand: &Hand) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("video.safetensors");
    let run = ["generate", "--output", output.to_str().expect("a path in UTF-8")];
    let said = hand.lowmem(&[&run, SEEDED, SIZE, &hand.computing(), SPLITS[0]].concat());
    (said.code == Some(2)).then(|| said.stderr.trim().to_owned())
}

/// A setting beside level 0. What is read from files needs some.
fn compared(hand: &Hand, dtype: &str, settings: &[&str], level_0: &mut HashMap<bool, Made>) -> Result<SettingsRow, String> {
    let is_from_files = settings.contains(&"stream_from=file");
    let checkpoint = checkpoint("diffusers");
    let on_files = ["--checkpoint", checkpoint.as_str()];
    let what = if is_from_files { &on_files } else { SEEDED };
    let dtype_setting = format!("dtype={dtype}");
    let common = [SIZE, &[dtype_setting.as_str()]].concat();
    let reference = match level_0.entry(is_from_files) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(generate(hand, what, &[&common[..], &["low_mem_level=0"]].concat())?),
    };
    let ours = generate(hand, what, &[&common[..], settings].concat())?;
    let (latents, video) = (off(&ours.latents, &reference.latents), off(&ours.video, &reference.video));
    Ok(SettingsRow { dtype: dtype.to_owned(), settings: settings.join(" "), latents, video })
}

/// The fixture in one of its layouts.
fn checkpoint(layout: &str) -> String {
    root().join("tests/fixtures/checkpoint").join(layout).to_str().expect("a path in UTF-8").to_owned()
}

/// Videos from the checkpoint fixtures against diffusers' in fp32, in both layouts and at each level.
pub(crate) fn parity(hand: &Hand, checks: &mut Checks, found: &mut Found) {
    checks.check("parity with diffusers", || {
        let mut faults = Vec::new();
        for layout in ["diffusers", "original"] {
            for level in 0..4 {
                match beside_diffusers(hand, layout, level) {
                    Ok(row) => {
                        if row.latents > 1e-4 || row.video > video_tolerance("fp32", hand.is_real()) {
                            faults.push(format!(
                                "{layout}, {}: latents off by {:.1e}, the video by {:.1e}",
                                row.settings, row.latents, row.video
                            ));
                        }
                        found.parity.push(row);
                    }
                    Err(fault) => faults.push(fault),
                }
            }
        }
        Verdict::of(format!("{} videos of the checkpoint fixtures", found.parity.len()), &faults)
    });
}

fn beside_diffusers(hand: &Hand, layout: &str, level: u8) -> Result<ParityRow, String> {
    let reference = std::fs::read(root().join("tests/fixtures/checkpoint.safetensors")).expect("the fixture");
    let run = facts(&reference);
    let text = |key: &str| run[key].as_str().map_or_else(|| run[key].to_string(), str::to_owned);
    let setting = |key: &str| format!("{key}={}", text(key));
    let resolution = format!("resolution={}x{}", run["resolution"][0], run["resolution"][1]);
    let settings = format!("low_mem_level={level} vae_tiling=false");
    let folder = checkpoint(layout);
    let mut all = ["prompt", "negative_prompt", "seed", "steps", "guidance_scale", "frames"].map(setting).to_vec();
    all.extend([resolution, "flow_shift=3".into(), "dtype=fp32".into()]);
    let all: Vec<&str> = all.iter().map(String::as_str).chain(settings.split(' ')).collect();
    let made = generate(hand, &["--checkpoint", &folder], &all)?;
    let latents = worst(&made.latents, &tensor(&reference, "output.latents")?);
    let video = worst(&made.video, &tensor(&reference, "output.video")?);
    Ok(ParityRow { checkpoint: format!("the fixture in {layout}'s layout"), settings, latents, video })
}

/// The parity tests of each part of the models, on the GPU: tolerances are those of the CPU twice over, and TF32 is off.
pub(crate) fn fixtures(hand: &Hand, checks: &mut Checks) {
    checks.check(FIXTURES, || {
        // What the CPU computes in any case.
        let elsewhere = ["vae::tiling", "large_chunks", "shapes_of_videos", "scheduler", "tokenizer"];
        parity_tests(hand, &elsewhere.into_iter().chain([IN_FP8]).flat_map(|name| ["--skip", name]).collect::<Vec<_>>())
    });
    checks.check(FIXTURES_IN_FP8, || {
        let settings = ["plan", "--model", "wan2.1-t2v-1.3b", "linear_dtype=fp8"];
        match hand.lowmem(&[&settings[..], &hand.whole()].concat()).fault() {
            Some(fault) => Verdict::Skipped(fault),
            None => parity_tests(hand, &[IN_FP8]),
        }
    });
}

/// Runs the parity tests that `arguments` leave.
fn parity_tests(hand: &Hand, arguments: &[&str]) -> Verdict {
    if !hand.is_real() {
        return Verdict::Skipped("needs a real GPU: `cargo test --test parity` runs them on the CPU".into());
    }
    let Some(tests) = newest("parity-") else {
        return Verdict::Skipped("target/release/deps/parity-* is not built: `setup/test-gpu.sh` builds it where there is cargo".into());
    };
    let mut command = Command::new(tests);
    // They share the GPU, and one of them its first use.
    command.arg("--test-threads=1").args(arguments).env("NVIDIA_TF32_OVERRIDE", "0");
    hand.give_gpu(&mut command);
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed: Vec<_> = said.lines().filter(|line| line.contains(" is over ") || line.ends_with("FAILED")).map(str::to_owned).collect();
    let result = said.lines().find(|line| line.starts_with("test result: ")).unwrap_or("no result").to_owned();
    Verdict::of(result.clone(), &if output.status.success() { Vec::new() } else { [vec![result], failed].concat() })
}

/// The newest program beside this one whose name begins so.
fn newest(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let entries = std::fs::read_dir(own.parent()?).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_it =
        |path: &PathBuf| path.extension().is_none() && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    entries.filter(is_it).max_by_key(|path| path.metadata().and_then(|it| it.modified()).ok())
}

/// What the generator of the fixtures wrote down beside its tensors.
fn facts(file: &[u8]) -> serde_json::Value {
    let (_, header) = SafeTensors::read_metadata(file).expect("a header");
    let facts: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().expect("facts")["fixture"]).expect("JSON");
    facts["run"].clone()
}

/// The rows of a folder's CSV file.
pub(crate) fn settings_rows(folder: &Path) -> Vec<SettingsRow> {
    lowmem_tests::measured::rows(&folder.join("settings.csv"))
}

/// The rows of a folder's CSV file.
pub(crate) fn parity_rows(folder: &Path) -> Vec<ParityRow> {
    lowmem_tests::measured::rows(&folder.join("parity.csv"))
}

#[test]
fn what_cannot_be_compared_is_off_by_more_than_any_tolerance() {
    assert_eq!([off(&[1.0], &[1.0, 2.0]), worst(&[1.0], &[1.0, 2.0])], [f64::INFINITY; 2]);
    assert_eq!([off(&[f32::NAN], &[1.0]), worst(&[f32::NAN], &[1.0])], [f64::INFINITY; 2]);
    assert_eq!([off(&[3.0, 4.0], &[3.0, 4.0]), worst(&[3.0, 3.0], &[3.0, 4.0])], [0.0, 0.25]);
}
