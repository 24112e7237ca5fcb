//! Groups that are read from their files each time: they are the resident ones whatever the file's types, the host's buffers are not written to while they are copied
//! from, what is page-locked is what was predicted, and a slower disk takes longer.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use engine::Result;
use engine::components;
use engine::memory::{PageLocking, Place, Residency, Waits, predict};
use engine::weights::{Group, GroupName, Groups, Source, WeightTypes, Weights};
use engine_protocol::{Home, Outcome, ResidentBlocks, RunRecord, Stage};
use rstest::rstest;
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use super::sweep::{Swept, sweep_on};

fn name(index: usize) -> GroupName {
    GroupName::numbered("blocks", index as u32, "")
}

/// Groups of some kilobytes, and of some megabytes, which are read in several parts. A convolution lies otherwise in its slab than in the file.
fn groups(count: usize) -> Vec<Group> {
    let group = |index: usize| {
        let group = Group::new(name(index), format!("blocks.{index}."));
        let outputs = if index.is_multiple_of(2) { 1500 } else { 3 };
        group.linear("proj", 1000, outputs).fp32("scale", &[7]).conv("conv", 3, 5, &[1, 2, 2])
    };
    (0..count).map(group).collect()
}

/// A file with the values of the seed in `kind`, its tensors at odd places.
fn file(groups: &[Group], kind: Kind) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let mut drawn = resident(groups, Kind::Float, &Source::Seeded(5));
    let mut tensors = Vec::new();
    for group in groups {
        let of_group = |weights: &Weights| {
            let value = |name: &str| weights.get(name).to_kind(kind).contiguous();
            Ok(group.params.iter().map(|param| (format!("{}{}", group.prefix, param.name), value(&param.name))).collect::<Vec<_>>())
        };
        tensors.extend(drawn.with(group.name, of_group).expect("resident"));
    }
    Tensor::write_safetensors(&tensors, &path).expect("written");
    (folder, path)
}

fn resident(groups: &[Group], compute: Kind, source: &Source) -> Residency {
    let places = vec![Place::Resident; groups.len()];
    Residency::new(groups.to_vec(), &places, WeightTypes::plain(compute), Device::Cpu, source).expect("fits on the CPU")
}

fn from_file(groups: &[Group], prefetch: u32, compute: Kind, source: &Source) -> Residency {
    let places = vec![Place::Streamed { prefetch, waits: Waits::InFile { ring: PageLocking::Never } }; groups.len()];
    Residency::new(groups.to_vec(), &places, WeightTypes::plain(compute), Device::Cpu, source).expect("nothing is read yet")
}

fn values(weights: &Weights) -> Result<[Tensor; 4]> {
    Ok(["proj.weight", "proj.bias", "scale", "conv.weight"].map(|name| weights.get(name).copy()))
}

#[rstest]
fn each_pass_sees_each_group_as_if_it_were_resident(
    #[values(1, 2, 5, 7)] count: usize,
    #[values(0, 1, 2, 9)] prefetch: u32,
    #[values((Kind::Float, Kind::Float), (Kind::Float, Kind::BFloat16), (Kind::BFloat16, Kind::BFloat16), (Kind::Half, Kind::Float))]
    (stored, compute): (Kind, Kind),
) {
    let groups = groups(count);
    let (_folder, path) = file(&groups, stored);
    let source = Source::open(&path).expect("the file");
    let mut all_resident = resident(&groups, compute, &source);
    let mut streamed = from_file(&groups, prefetch, compute, &source);
    if prefetch == 1 {
        streamed.poison_buffers();
    }
    for _pass in 0..3 {
        for index in 0..count {
            let expected = all_resident.with(name(index), values).expect("resident");
            assert_eq!(streamed.with(name(index), values).expect("streamed"), expected, "group {index}");
        }
    }
    // And in another order than that of a pass.
    for index in [count - 1, 0, count / 2, count / 2] {
        let expected = all_resident.with(name(index), values).expect("resident");
        assert_eq!(streamed.with(name(index), values).expect("streamed"), expected, "group {index}");
    }
}

#[rstest]
fn a_file_that_is_cut_shorter_while_it_is_streamed_is_named(
    #[values(0, 1, 3)] prefetch: u32,
    #[values(Kind::Float, Kind::BFloat16)] compute: Kind,
) {
    let groups = groups(5);
    let (_folder, path) = file(&groups, Kind::Float);
    let mut streamed = from_file(&groups, prefetch, compute, &Source::open(&path).expect("the file"));
    let pass = |streamed: &mut Residency| (0..5).try_for_each(|index| streamed.with(name(index), values).map(drop));
    pass(&mut streamed).expect("the file is whole");
    let whole = std::fs::read(&path).expect("the file");
    File::options().write(true).open(&path).and_then(|file| file.set_len(whole.len() as u64 / 2)).expect("cut");
    // What was on its way then had been read; the pass after it finds out.
    let error = pass(&mut streamed).and_then(|()| pass(&mut streamed)).expect_err("half of it is gone").to_string();
    assert!(error.starts_with(&path.display().to_string()) && error.contains("shorter than when it was opened"), "{error}");
    // Nothing hangs or is left half read: the whole file gives the whole groups again.
    std::fs::write(&path, whole).expect("the file");
    pass(&mut streamed).and_then(|()| pass(&mut streamed)).expect("it is whole again");
}

fn run(gpu: &str, flags: &str) -> RunRecord {
    sweep_on(gpu, &format!("model: wan2.1-t2v-14b\nlow_mem_level: 3\nsteps_measured: 2\nresolution: 480p\n{flags}"))
        .pop()
        .expect("one case")
}

#[rstest]
#[case("")]
#[case("prefetch_blocks: 0\n")]
#[case("prefetch_blocks: 3\nresident_blocks: 10\n")]
#[case("pinned_memory: false\n")]
#[case("offload_text_encoder: stream\n")]
fn what_is_page_locked_for_files_is_what_was_predicted(#[case] flags: &str) {
    let record = run("rtx-4090", &format!("stream_from: file\nframes: 5\n{flags}"));
    assert_eq!(record.outcome, Outcome::Ok, "{:?}", record.error);
    let report = predict(record.config_run(), &components::of(&lowmem_tests::model("wan2.1-t2v-14b")), None);
    let counted = record.host_pinned_peak_bytes.expect("counted");
    // A ring goes with its stage.
    assert_eq!(counted, report.pinned_bytes());
    assert_eq!(counted == 0, flags.contains("false"), "{counted} bytes");
}

/// How long a sampler step takes, most likely.
fn step_secs(record: &RunRecord) -> f64 {
    assert_eq!(record.outcome, Outcome::Ok, "{:?}", record.error);
    record.step_secs().expect("modelled").expected
}

/// In a slot that carries 12.6 GB/s, with so few frames that copies are waited for: the slower of disk and link decides.
#[test]
fn a_step_takes_as_long_as_the_slower_of_disk_and_link_lets_it() {
    let run = |rate: &str, flags: &str| run(&format!("rtx-4090 --pcie 3x16{rate}"), &format!("frames: 5\n{flags}"));
    let from_memory = step_secs(&run("", ""));
    let report = predict(run("", "stream_from: file\n").config_run(), &components::of(&lowmem_tests::model("wan2.1-t2v-14b")), None);
    let bytes = report.bytes_in(Home::File) as f64;
    for (rate, said) in [(1e9, "1GB/s"), (2e9, "2000MB/s"), (4e9, "4")] {
        let (secs, bound) = (step_secs(&run(&format!(" --disk {said}"), "stream_from: file\n")), 2.0 * bytes / rate);
        assert!((0.99..1.05).contains(&(secs / bound)), "{secs} s at {said}: the disk alone takes {bound} s for the two passes of a step");
    }
    let secs = step_secs(&run(" --disk 100GB/s", "stream_from: file\n"));
    assert!((0.99..1.05).contains(&(secs / from_memory)), "{secs} s from a fast disk, {from_memory} s from memory");
}

/// Where arithmetic takes longer than reading, reading is not seen.
#[test]
fn reading_hides_behind_arithmetic() {
    let secs = |flags: &str| step_secs(&run("rtx-4090 --disk 3GB/s", &format!("prefetch_blocks: 3\n{flags}")));
    let (from_memory, from_file) = (secs(""), secs("stream_from: file\n"));
    assert!((0.99..1.03).contains(&(from_file / from_memory)), "{from_file} s from files, {from_memory} s from memory");
}

/// A disk that nobody described is as fast as an interval says.
#[test]
fn an_assumed_rate_is_an_interval() {
    let secs = |rate: &str| run(&format!("rtx-4090{rate}"), "frames: 5\nstream_from: file\n").step_secs().expect("modelled");
    let (assumed, said) = (secs(""), secs(" --disk 3GB/s"));
    assert!((assumed.expected / said.expected - 1.0).abs() < 1e-3, "{assumed:?}, {said:?}");
    assert!(assumed.low < 0.7 * assumed.expected && assumed.high > 1.5 * assumed.expected, "{assumed:?}");
    assert!(said.high < 1.1 * said.expected, "{said:?}");
}

/// `auto` keeps more blocks where the disk is slower than the link, and then no reading is waited for.
#[test]
fn as_many_blocks_stay_as_let_reading_hide() {
    let count = |record: &RunRecord| record.config_run().resident_blocks.and_then(ResidentBlocks::count).expect("settled");
    let auto = |rate: &str| run(&format!("rtx-4090 --disk {rate}"), "stream_from: file\nresident_blocks: auto\n");
    let [fast, slow] = [auto("30GB/s"), auto("2GB/s")];
    assert!(count(&slow) > count(&fast) + 5, "{} and {} blocks", count(&slow), count(&fast));
    let stalled = slow.stages.iter().find(|stage| stage.stage == Stage::Denoise).and_then(|stage| stage.time).expect("modelled");
    let share = stalled.copy_stall.expect("on the GPU").expected / stalled.secs.expected;
    assert!(share < 0.02, "{share} of the time");
    let without = step_secs(&run("rtx-4090 --disk 2GB/s", "stream_from: file\n"));
    assert!(step_secs(&slow) < 0.8 * without, "{} s, {without} s where no block stays", step_secs(&slow));
}

/// Each buffer of the ring is filled anew only after the host has waited for the last copy from it.
#[rstest]
fn no_buffer_on_the_host_is_written_while_it_is_copied_from(#[values(0, 1, 2)] prefetch: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    let definition = format!(
        "model: wan2.1-t2v-1.3b\nresolution: 832x480\nframes: 5\nlow_mem_level: 3\nsteps_measured: 1\nstream_from: file\nprefetch_blocks: {prefetch}\n"
    );
    Swept::new(&definition, "rtx-4090", "virtual", &[("LOWMEM_VIRTUAL_GPU_TRACE", path.clone())]);
    let trace = std::fs::read_to_string(&path).expect("the trace");
    let operations: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (mut waited, mut rerecorded) = (BTreeSet::new(), 0);
    let mut recorded = BTreeSet::new();
    // The event of a buffer of the ring is the one that is recorded right after a copy to the device in the same stream.
    for pair in operations.windows(2) {
        let [operation, next] = pair else { unreachable!() };
        if operation["op"] == "synchronize_event" {
            waited.insert(operation["event"].as_u64());
        }
        let is_of_ring = operation["op"] == "copy_to_device" && next["op"] == "record_event" && operation["stream"] == next["stream"];
        if is_of_ring && operation["stream"] != 0 {
            let event = next["event"].as_u64();
            if !recorded.insert(event) {
                assert!(waited.contains(&event), "event {event:?} is recorded again, and the host has not waited for it");
                rerecorded += 1;
            }
            waited.remove(&event);
        }
    }
    assert_eq!(recorded.len(), 16 + 16, "two rings of 64 MiB in buffers of 4 MiB: the transformer's and the VAE's");
    assert!(rerecorded > 1000, "{rerecorded} copies by way of a buffer that was used before");
}
