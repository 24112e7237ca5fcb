//! What is said after a video was made, or was not. How far it is while it is made is said by `Progress`.

use std::path::Path;

use engine_protocol::{FlexcacheOffload, HostMemory, Lowered, Outcome, RunRecord, Secs, Source, Stage, StageMemory, StageRecord, gib};

use super::super::table;
use crate::exit_code::ExitCode;
use crate::ram::wsl_said;
use crate::testbed::Testbed;
use crate::worker;

/// Prints each stage, and what became of it all.
pub(super) fn tell_of(record: &RunRecord, testbed: &Testbed, output: Option<&Path>) -> ExitCode {
    print_stages(record, testbed);
    tell_end(record, testbed, output)
}

/// Says what became of it.
pub(super) fn tell_end(record: &RunRecord, testbed: &Testbed, output: Option<&Path>) -> ExitCode {
    let error = record.error.as_deref().unwrap_or_default();
    match record.outcome {
        Outcome::Ok => {
            if let Some(output) = output {
                say!("Written: {}", output.display());
            }
            ExitCode::Done
        }
        Outcome::Oom => {
            let needed = reports::need(record).map(|need| format!(": it needs {} {:.2}", need.word(), gib(need.bytes)));
            let held =
                record.capacity_bytes.or(testbed.capacity_bytes).filter(|_| needed.is_some()).map(|bytes| format!(" of {:.2}", gib(bytes)));
            let figures = needed.map(|needed| format!("{needed}{} GiB", held.unwrap_or_default())).unwrap_or_default();
            let stage = record.failed_stage.map_or("an unknown stage", |stage| stage.name());
            tell!("lowmem: out of memory in {stage}{figures}. {}.\n{error}", remedies(record));
            ExitCode::NothingFits
        }
        Outcome::OomHost => {
            let stage = record.failed_stage.map(|stage| format!(" in {}", stage.name())).unwrap_or_default();
            tell!("lowmem: out of host memory{stage}: {error}. The GPU is not what lacks. {}.", reports::host_remedies(record));
            ExitCode::NothingFits
        }
        Outcome::Timeout => {
            // A rank that hangs is no matter of time.
            let remedy = if worker::is_hang(record) {
                "See `dmesg` for the GPU and the disk, and run it again"
            } else {
                "Give it a longer --timeout, or fewer --steps or --frames"
            };
            tell!("lowmem: timeout: {error}. {remedy}.");
            ExitCode::Fault
        }
        other => {
            tell!("lowmem: {}: {error}", other.name());
            ExitCode::Fault
        }
    }
}

/// What the machine's memory holds of it, and what may hold page-locking down.
fn ram_said(record: &RunRecord, testbed: &Testbed) -> Vec<String> {
    let Some(said) = reports::ram_in_words(record, testbed.ram.bytes) else { return Vec::new() };
    let fits = match (record.host_needed_bytes(), testbed.ram.bytes) {
        (Some(needed), Some(held)) if needed > held => " That is too little.",
        _ => "",
    };
    let pinned = record.predicted_host().map_or(0, |host| host.pinned_peak_bytes);
    [format!("{said}.{fits} {}", testbed.ram.said)].into_iter().chain(wsl_said(pinned)).collect()
}

fn print_stages(record: &RunRecord, testbed: &Testbed) {
    let has_memory = record.stages.iter().any(|stage| stage.memory.is_some());
    let of_gpu = ["predicted allocated GiB", "peak allocated GiB", "peak reserved GiB", "peak device GiB"];
    // On the CPU there is no GPU memory to tell of.
    let of_gpu = if has_memory { &of_gpu[..] } else { &[] };
    let ram = format!("RAM GiB, {}", reports::ram_source(record));
    let titles: Vec<&str> = [&["stage", "time"], of_gpu, &[&ram, "page-locked GiB"]].concat();
    let mut table = table(&titles, &(1..titles.len()).collect::<Vec<_>>());
    let mut add = |name: &str, secs: Option<Secs>, memory: [Option<u64>; 4], [host, predicted]: [Option<HostMemory>; 2]| {
        let secs = secs.map(|secs| reports::time(secs.expected)).unwrap_or_default();
        let peak = |host: Option<HostMemory>| host.and_then(|host| host.peak_bytes);
        let of_host = [peak(host).or(peak(predicted)), host.or(predicted).map(|host| host.pinned_peak_bytes)];
        let cells = [name.to_owned(), secs].into_iter().chain(memory.into_iter().take(of_gpu.len()).chain(of_host).map(reports::in_gib));
        table.add_row(cells);
    };
    // Where some of the sampler steps ran, the others count as those did.
    let is_done = record.outcome == Outcome::Ok;
    let secs = |stage: &StageRecord| if is_done && stage.stage == Stage::Denoise { record.denoise_secs() } else { stage.secs() };
    for stage in &record.stages {
        let memory = |counter: fn(&StageMemory) -> u64| stage.memory.as_ref().map(counter);
        let predicted = stage.predicted_peak_allocated_bytes;
        let peaks = [predicted, memory(|m| m.peak_allocated_bytes), memory(|m| m.peak_reserved_bytes), memory(|m| m.peak_device_bytes)];
        add(stage.stage.name(), secs(stage), peaks, [stage.host, stage.predicted_host]);
    }
    if is_done && !record.stages.is_empty() {
        // Of stages of which one has no time there is no sum.
        let secs = record.stages.iter().map(secs).sum::<Option<Secs>>();
        let predicted = record.predicted_peak_allocated_bytes();
        let peaks = [predicted, record.peak_allocated_bytes(), record.peak_reserved_bytes(), record.peak_device_bytes()];
        add("all", secs, peaks, [record.host(), record.predicted_host()]);
    }
    say!("{table}");
    if let Some(parts) = reports::parts_in_words(record) {
        say!("{parts}");
    }
    if has_memory {
        say!("{}", reports::counters());
    }
    for lowered in &record.lowered {
        say!("{}", lowered_in_words(lowered));
    }
    ram_said(record, testbed).iter().for_each(|said| say!("{said}"));
    let device = record.device_name.as_deref().unwrap_or(record.device.name());
    let memory = match record.memory_source {
        Some(Source::Virtual) => "memory is counted by PyTorch's allocator (virtual)",
        Some(_) => "memory is measured",
        None => "no GPU memory is used",
    };
    let times = match record.time_source {
        Some(Source::Measured) => "times are measured",
        Some(_) => "times are estimated",
        None => "times are not known",
    };
    say!("On {device}: {memory}, {times}.");
    if let Some(secs) = record.total_secs().filter(|_| record.outcome == Outcome::Ok) {
        say!("From prompt to video, without loading: {}.", reports::time_with_range(secs));
    }
    record.warnings().iter().for_each(|warning| say!("Warning: {warning}."));
    [reports::steps_that_ran(record), reports::left_out(record)].iter().flatten().for_each(|said| say!("{said}"));
}

/// Where memory ran out, and how the run goes on.
pub(super) fn lowered_in_words(lowered: &Lowered) -> String {
    let Lowered { stage, steps_done, from_level, to_level, .. } = lowered;
    let steps = if *stage == Stage::Denoise { format!(" after {steps_done} steps") } else { String::new() };
    let on = if from_level == to_level { "without resident blocks".into() } else { format!("at level {to_level}") };
    format!("{} ran out of memory at level {from_level}{steps}: it goes on {on}.", stage.name())
}

/// What to try after an out-of-memory, the least loss first.
fn remedies(record: &RunRecord) -> String {
    let config = &record.config;
    let mut remedies = Vec::new();
    let level = record.lowered.last().map_or(config.low_mem_level, |lowered| lowered.to_level);
    if level < 3 {
        remedies.push(format!("low_mem_level={}", level + 1));
    }
    if record.lowered.is_empty() && config.resident_blocks.is_some_and(|blocks| blocks.count() != Some(0)) {
        remedies.push("resident_blocks=0".into());
    }
    // On the host it would take as much RAM, and of a cache of every block's parts that is much.
    if config.flexcache.keeps_hidden_states() && config.flexcache_offload != Some(FlexcacheOffload::Cpu) {
        remedies.push("flexcache=none".into());
    }
    remedies.push("a smaller --size".into());
    if config.frames > 1 {
        remedies.push("fewer --frames".into());
    }
    format!("Try {}, or let `lowmem autotune` find what fits", remedies.join(", "))
}
