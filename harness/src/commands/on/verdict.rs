//! What `lowmem on` says at the end. What the program needed is counted elsewhere.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use engine_protocol::{GpuProfile, Secs, gib};

use super::cards::{Course, Judge, Sorted, Word, is_killed};
use super::find::Found;
use super::need::{DeviceUse, Need};
use crate::cli::OnArguments;
use crate::commands::table;
use crate::gpu_name::a_few;
use crate::gpu_profile::GpuProfiles;
use crate::worker::EventOrder;

/// Says what the program needed, on standard error: standard output is the program's.
pub(super) fn tell(judge: &Judge<'_>, profiles: &GpuProfiles, arguments: &OnArguments, status: ExitStatus) {
    let need = judge.need;
    let is_killed = is_killed(status);
    if is_killed || need.lacked_host_memory(status) {
        let what = if is_killed {
            "signal 9 ended the program: mostly the kernel sends it, when the machine's own memory (RAM) runs out"
        } else {
            "the machine's own memory (RAM) ran out, which ended the program"
        };
        let pinned = if need.pinned_peak_bytes > 0 {
            format!(" Of that memory it held {} page-locked.", size(need.pinned_peak_bytes))
        } else {
            String::new()
        };
        tell!("lowmem: {what}.{pinned} This is what it needed of the GPU until then.");
    } else if let Some(signal) = status.signal() {
        tell!("lowmem: signal {signal} ended the program. This is what it needed until then.");
    } else if let Some(code @ 1..) = status.code().filter(|_| need.failed().is_none()) {
        tell!("lowmem: the program ended with exit code {code}. This is what it needed until then.");
    }
    if need.kernel_killed && !is_killed {
        tell!(
            "lowmem: while it ran the kernel ended a process, since the machine's own memory (RAM) ran out: if it was one of the program's, it may need more than is said here."
        );
    }
    if !need.unreadable.is_empty() {
        tell!(
            "lowmem: reports of the program's processes cannot be read, so what follows is less than it needed: {}.",
            need.unreadable.join("; ")
        );
    }
    if need.uses.is_empty() && need.unreadable.is_empty() {
        tell!("lowmem: no process of the program used the GPU{}.", why_unused(need, arguments.gpus));
    } else if !need.uses.is_empty() {
        tell_uses(need);
        tell_peak(need);
        match need.failed() {
            Some(used) => tell_failure(judge, used, profiles, arguments),
            None if judge.course == Course::Cut && need.unreadable.is_empty() => tell!(
                "Whether it fits is not known, since {}: it needs at least {:.2} of {:.2} GiB.",
                why_cut(status),
                gib(judge.at_least_on(judge.here)),
                gib(judge.here.memory_bytes.value)
            ),
            None => tell_fit(judge, profiles, arguments),
        }
        if judge.falls_back() {
            tell!(
                "Attention held its whole score matrix. On compute capability {} ({}) PyTorch has no other attention for bf16: in fp16 (torch.float16) the program \
                 needs far less. GPUs of compute capability 8.0 and later have one: what it needs there is not known.",
                judge.here.compute_capability.value,
                judge.here.name
            );
        }
        if let Some((torch, cuda)) = need.torch.as_ref().and_then(|torch| Some((torch, torch.foreign_cuda()?))) {
            tell!(
                "Do not rely on these figures: PyTorch {} is built for CUDA {cuda}, and the virtual GPU stands in for CUDA 12 and 13. `pip install torch` gets one for CUDA 13.",
                torch.torch
            );
        }
    }
    tell_host(need);
    tell_time(need);
    if need.values_read() > 0 {
        let by: Vec<_> = need.values_read_by().into_iter().map(|(name, count)| format!("{name} ({count})")).collect();
        tell!(
            "The program read {} value{} back from the GPU{}. Nothing is computed there, so most are zero. Where the program decides by them (a mask, an early \
             stop), it may do something else on a real GPU.",
            need.values_read(),
            if need.values_read() == 1 { "" } else { "s" },
            if by.is_empty() { String::new() } else { format!(", with {}", by.join(", ")) },
        );
    }
    if !need.decided.is_empty() {
        let decided: Vec<_> = need.decided.iter().map(|(what, count)| format!("{what} ({count})")).collect();
        tell!("lowmem decided where the program asks for a value that nobody computed, and how often: {}.", decided.join("; "));
    }
    if !need.unsupported.is_empty() {
        let calls: Vec<_> = need.unsupported.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        tell!("Calls that the virtual GPU does not support, and how often they came: {}.", calls.join(", "));
    }
}

/// Why it is not known what the program would still have needed.
fn why_cut(status: ExitStatus) -> &'static str {
    match status.code() {
        Some(1..) => "a program that failed may not have come to its end",
        _ => "it did not come to its end",
    }
}

/// Says that what was counted depends on how far the program is ahead of the GPU, which is about to be bounded.
pub(super) fn tell_dependence(waiting_bytes: u64) {
    tell!(
        "How much is reserved depends on how far the program is ahead of the GPU: memory that it has let go of, up to {} here, stays taken until the GPU is done with \
         it. Where there is less memory PyTorch waits for the GPU instead, which takes time. The program is run twice more for both ends (with --events clock it is not):",
        size(waiting_bytes)
    );
}

/// Says on which GPUs it ran.
pub(super) fn tell_found(found: &Found<'_>) {
    let named =
        |does: bool| found.ran.iter().filter(|(_, did)| *did == does).map(|(card, _)| card.name.as_str()).collect::<Vec<_>>().join(", ");
    let [ran, failed] = [named(true), named(false)].map(|names| if names.is_empty() { "none".to_owned() } else { names });
    match found.smallest {
        Some(card) => {
            tell!(
                "The smallest GPU that it runs on: {} ({:.2} GiB). Run to its end on: {ran}. Not on: {failed}.",
                card.name,
                gib(card.memory_bytes.value)
            );
        }
        None if found.ran.is_empty() => tell!("No GPU was tried: all are too small."),
        None => tell!("It ran to its end on none of those that were tried: {failed}."),
    }
}

/// Says what was counted at one of the ends.
pub(super) fn tell_end(events: EventOrder, need: &Need, profile: &GpuProfile, status: ExitStatus) {
    let which = match events {
        EventOrder::Clock => "by the clock",
        EventOrder::Eager => "never ahead of the GPU",
        EventOrder::Lazy => "as far ahead as CUDA lets it be",
    };
    match need.peak_reserved_bytes().filter(|_| status.success()) {
        Some(reserved) => tell!("  {which}: {} reserved, {} device", size(reserved), size(need.bytes_on(profile))),
        None => tell!("  {which}: not known, since the program did not end well when it was run again ({status})"),
    }
}

/// The time of the process that took longest.
fn tell_time(need: &Need) {
    let longest = need.uses.iter().max_by(|a, b| a.report.end_secs[1].total_cmp(&b.report.end_secs[1]));
    let Some(used) = longest.filter(|used| used.report.end_secs[1] > 0.0) else { return };
    let [low, expected, high] = used.report.end_secs;
    let time = reports::time_with_range(Secs { low, expected, high });
    if used.tells_work {
        tell!("Estimated time on the GPU: {time}. It leaves out the program's own work on the CPU, and kernels that are not PyTorch's.");
    } else {
        tell!(
            "Estimated time on the GPU: at least {time}. It counts matrix products, convolutions and copies. It leaves out attention, norms and other kernels, \
             and the program's own work on the CPU."
        );
    }
}

fn why_unused(need: &Need, devices: u16) -> String {
    let Some(torch) = &need.torch else { return String::new() };
    match (&torch.cuda, torch.foreign_cuda()) {
        (None, _) => format!(": its PyTorch {} is built without CUDA", torch.torch),
        (_, Some(cuda)) => format!(
            ": its PyTorch {} is built for CUDA {cuda}, and the virtual GPU stands in for CUDA 12 and 13: `pip install torch` gets one for CUDA 13",
            torch.torch
        ),
        (Some(_), None) => match torch.visible.as_deref().filter(|list| !list.is_empty() && *list != "0") {
            Some(list) => format!(": CUDA_VISIBLE_DEVICES was {list}, and the virtual GPUs are 0 to {}", devices - 1),
            None => String::new(),
        },
    }
}

fn tell_uses(need: &Need) {
    let titles = ["process", "device", "peak allocated GiB", "peak reserved GiB", "peak device GiB"];
    let mut table = table(&titles, &[0, 1, 2, 3, 4]);
    let figure = |bytes: Option<u64>| bytes.map_or_else(String::new, |bytes| format!("{:.2}", gib(bytes)));
    for used in &need.uses {
        table.add_row([
            used.process.to_string(),
            used.device.to_string(),
            figure(used.counted.map(|counted| counted.peak_allocated_bytes)),
            figure(used.counted.map(|counted| counted.peak_reserved_bytes)),
            figure(Some(used.report.peak_device_bytes)),
        ]);
    }
    tell!("{table}");
    let others = need.uses.iter().filter(|used| used.report.number != used.device);
    let others: Vec<_> =
        others.map(|used| format!("process {} knows device {} as cuda:{}", used.process, used.device, used.report.number)).collect();
    if !others.is_empty() {
        tell!("Devices have the machine's numbers, as in CUDA_VISIBLE_DEVICES: {}.", others.join(", "));
    }
    if need.uses.iter().any(|used| used.counted.is_none()) {
        tell!("Allocated and reserved are PyTorch's own counters: a process without PyTorch, or one that was killed, does not tell them.");
    }
}

/// What the largest peak was, and where it came.
fn tell_peak(need: &Need) {
    let Some(peak) = need.largest_peak() else { return };
    for sentence in [Some(peak.made_of()), peak.came(), peak.by_module()].into_iter().flatten() {
        tell!("{sentence}");
    }
}

/// What the machine's own memory had to hold.
fn tell_host(need: &Need) {
    if let Some(held) = need.host_peak_bytes() {
        let processes = match need.host_peaks.len() {
            1 => String::new(),
            count => format!(" in {count} processes, each at its peak, where what they share counts for each"),
        };
        tell!(
            "The machine's own memory (RAM): up to {}{processes}, and {} page-locked for the GPU.",
            size(held),
            size(need.pinned_peak_bytes)
        );
    }
}

fn tell_fit(judge: &Judge<'_>, profiles: &GpuProfiles, arguments: &OnArguments) {
    let Judge { need, here, .. } = *judge;
    let several = |of: fn(&DeviceUse) -> u32| need.uses.iter().any(|used| of(used) != of(&need.uses[0]));
    let fullest = if several(|used| used.device) { " The fullest device counts." } else { "" };
    let together = if several(|used| used.process) { " This is the sum of all processes' peaks, as if they came at once." } else { "" };
    let [needed_gib, held_gib, capacity_gib] = [judge.at_least_on(here), judge.held_on(here), here.memory_bytes.value].map(gib);
    match judge.word(here) {
        Word::Fits => tell!("Fits: {held_gib:.2} of {capacity_gib:.2} GiB.{fullest}{together}"),
        Word::TooSmall => tell!("Does not fit: at least {needed_gib:.2} of {capacity_gib:.2} GiB are needed.{fullest}"),
        Word::NotKnown if judge.course == Course::Cut => {
            tell!("Whether it fits is not known: until then it held {held_gib:.2} of {capacity_gib:.2} GiB.{fullest}{together}");
        }
        Word::NotKnown if judge.went_beyond => {
            tell!(
                "Whether it fits is not known: it needs at least {needed_gib:.2} of {capacity_gib:.2} GiB, and held {held_gib:.2}.{fullest}{together}"
            );
        }
        Word::NotKnown => tell!(
            "Whether it fits is not known: it held {held_gib:.2} of {capacity_gib:.2} GiB, {:.2} GiB are missing.{fullest}{together} Here each process had the GPU to itself.",
            held_gib - capacity_gib
        ),
    }
    if let Some(operation) = need.peak_operation() {
        tell!("The peak came in PyTorch's {operation}.");
    }
    if need.met_later() > 0 {
        tell!("{} of its allocations fitted only after PyTorch had given back unused memory.", need.met_later());
    }
    let sorted = tell_cards(judge, profiles);
    if judge.asked_memory() {
        tell!("The program asked how much memory there is, or is free, by which it may decide: elsewhere it may need more or less.");
    }
    if let Some(card) = sorted.unknown.first() {
        if !judge.adapts() {
            tell!("It needs at least {needed_gib:.2} GiB, and held {held_gib:.2}.");
        }
        tell!("Where it is not known, run it there: {}", again(card, arguments));
    }
}

fn tell_failure(judge: &Judge<'_>, used: &DeviceUse, profiles: &GpuProfiles, arguments: &OnArguments) {
    let Some((last, missing)) = used.report.refusals.last.zip(used.missing_bytes()) else { return };
    let who = used.place().unwrap_or("it");
    let several = match used.report.refusals.refused {
        1 => String::new(),
        count => format!(" {count} requests failed, and this was the last one."),
    };
    let went_on = judge.course == Course::WentOn;
    let verdict = if went_on { "Ran out of memory and went on" } else { "Does not fit" };
    let asked = format!("{verdict}: {who} asked for {}, and {} were free", size(last.requested_bytes), size(last.free_bytes));
    if missing == 0 {
        tell!("{asked}: the program limits itself.{several}");
        return;
    }
    tell!("{asked}. {} are missing.{several}", size(missing));
    if let Some(unused) = used.unused_bytes() {
        let way_out = if unused + last.free_bytes < last.requested_bytes {
            ""
        } else if allocator_setting().contains("expandable_segments:True") {
            " That is more than is missing, and lies in pieces that are too small."
        } else {
            " That is more than is missing, and lies in pieces that are too small: with PYTORCH_ALLOC_CONF=expandable_segments:True it may fit here."
        };
        tell!("Of what PyTorch had reserved, {} were not used.{way_out}", size(unused));
    }
    if went_on {
        tell_cards(judge, profiles);
        tell!("Where there is more memory or less the program does something else: run it there.");
        return;
    }
    tell!("It needs at least {:.2} GiB. What would have come after that is not known.", gib(judge.at_least_on(judge.here)));
    let sorted = tell_cards(judge, profiles);
    // The largest: a nearer one may be too small for what comes next.
    if let Some(card) = sorted.unknown.last().filter(|card| card.memory_bytes.value > judge.here.memory_bytes.value) {
        tell!("To see all that it needs, run: {}", again(card, arguments));
    }
    tell!("Or run it with --beyond: it goes on with memory that no card has.");
}

/// What PyTorch's allocator was told.
fn allocator_setting() -> String {
    ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"].iter().filter_map(|name| std::env::var(name).ok()).collect::<Vec<_>>().join(",")
}

fn tell_cards<'a>(judge: &Judge<'a>, profiles: &'a GpuProfiles) -> Sorted<'a> {
    let sorted = judge.sorted(profiles);
    let [fits, unknown] = [&sorted.fits, &sorted.unknown].map(|cards| a_few(cards.iter().copied(), "larger"));
    tell!("Fits on: {fits}. Not known: {unknown}. Too small: {}.", a_few(sorted.small.iter().copied(), "smaller"));
    if let Some(share) = judge.need.uses.iter().filter_map(|used| used.limit).reduce(f64::min) {
        tell!("The program allows itself {:.0}% of a GPU's memory: no more than that counts as there.", 100.0 * share);
    }
    if let Some(dtype) = judge.lacking(&sorted) {
        let (major, minor) = dtype.first_capability();
        tell!(
            "It multiplies matrices in {}. GPUs below compute capability {major}.{minor} refuse that: what the program does there is not known.",
            dtype.name()
        );
    }
    sorted
}

/// The command that runs it on that GPU.
fn again(card: &GpuProfile, arguments: &OnArguments) -> String {
    let gpus = if arguments.gpus > 1 { format!(" --gpus {}", arguments.gpus) } else { String::new() };
    let words = arguments.program.iter().map(|word| word.to_string_lossy().into_owned());
    format!("lowmem on {}{gpus} -- {}", card.name, reports::shell_line(words))
}

/// GiB, or MiB below one.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.2} GiB", gib(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_a_gib_is_said_in_mib() {
        assert_eq!((size(20 << 20), size(1 << 30)), ("20 MiB".to_owned(), "1.00 GiB".to_owned()));
    }
}
