//! What `lowmem on` says at the end. What the program needed is counted elsewhere.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use engine_protocol::{AttentionKernel, AttnType, Dtype, GpuProfile, Secs, WAN_HEAD_SIZE, gib};

use super::need::{DeviceUse, Need};
use crate::commands::{shell_line, table};
use crate::gpu_name::a_few;
use crate::gpu_profile::GpuProfiles;
use crate::worker::EventOrder;

/// The signal that no process can do anything about.
const KILL: i32 = 9;

/// Says what the program needed, on standard error: standard output is the program's.
pub(super) fn tell(need: &Need, profile: &GpuProfile, profiles: &GpuProfiles, program: &[OsString], status: ExitStatus) {
    let is_killed = status.signal() == Some(KILL) || status.code() == Some(128 + KILL);
    if is_killed || need.lacked_host_memory {
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
    if !need.unreadable.is_empty() {
        tell!(
            "lowmem: reports of the program's processes cannot be read, so what follows is less than it needed: {}.",
            need.unreadable.join("; ")
        );
    }
    if need.uses.is_empty() && need.unreadable.is_empty() {
        tell!("lowmem: no process of the program used the GPU{}.", why_unused(need));
    } else if !need.uses.is_empty() {
        tell_uses(need);
        match need.failed() {
            Some(used) => tell_failure(need, used, profile, profiles, program, status),
            None if status.signal().is_some() || is_killed || need.lacked_host_memory => tell!(
                "Whether it fits is not known, since it did not come to its end: it needs at least {:.2} of {:.2} GiB.",
                gib(need.bytes_on(profile)),
                gib(profile.memory_bytes.value)
            ),
            None if need.unreadable.is_empty() => tell_fit(need, profile, profiles),
            None => tell!("Whether it fits is not known."),
        }
        if falls_back(need, profile) {
            tell!(
                "Attention held its whole score matrix. On compute capability {} ({}) PyTorch has no other attention for bf16: in fp16 (torch.float16) the program \
                 needs far less. GPUs of compute capability 8.0 and later have one, and are not named above.",
                profile.compute_capability.value,
                profile.name
            );
        }
        if let Some((torch, cuda)) = need.torch.as_ref().and_then(|torch| Some((torch, torch.foreign_cuda()?))) {
            tell!(
                "Do not rely on these figures: PyTorch {} is built for CUDA {cuda}, and the virtual GPU stands in for CUDA 13.",
                torch.torch
            );
        }
    }
    tell_time(need);
    if need.values_read() > 0 {
        let by: Vec<_> = need.values_read_by().into_iter().map(|(name, count)| format!("{name} ({count})")).collect();
        tell!(
            "The program read {} values back from the GPU{}. Nothing is computed there, so most are zero. Where the program decides by them (a mask, an early \
             stop), it may do something else on a real GPU.",
            need.values_read(),
            if by.is_empty() { String::new() } else { format!(", with {}", by.join(", ")) },
        );
    }
    if !need.unsupported.is_empty() {
        let calls: Vec<_> = need.unsupported.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        tell!("Calls that the virtual GPU does not support, and how often they came: {}.", calls.join(", "));
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

fn why_unused(need: &Need) -> String {
    let Some(torch) = &need.torch else { return String::new() };
    match (&torch.cuda, torch.foreign_cuda()) {
        (None, _) => format!(": its PyTorch {} is built without CUDA", torch.torch),
        (_, Some(cuda)) => format!(": its PyTorch {} is built for CUDA {cuda}, and the virtual GPU stands in for CUDA 13", torch.torch),
        (Some(_), None) => String::new(),
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
    if need.uses.iter().any(|used| used.counted.is_none()) {
        tell!("Allocated and reserved are PyTorch's own counters: a process without PyTorch, or one that was killed, does not tell them.");
    }
}

fn tell_fit(need: &Need, profile: &GpuProfile, profiles: &GpuProfiles) {
    let needed = need.bytes_on(profile);
    let capacity = profile.memory_bytes.value;
    let several = |of: fn(&DeviceUse) -> u32| need.uses.iter().any(|used| of(used) != of(&need.uses[0]));
    let fullest = if several(|used| used.device) { " The fullest device counts." } else { "" };
    let together = if several(|used| used.process) { " This is the sum of all processes' peaks, as if they came at once." } else { "" };
    let [needed_gib, capacity_gib] = [needed, capacity].map(gib);
    match needed.checked_sub(capacity) {
        None | Some(0) => tell!("Fits: {needed_gib:.2} of {capacity_gib:.2} GiB.{fullest}{together}"),
        Some(missing) => tell!(
            "May not fit: it needs {needed_gib:.2} of {capacity_gib:.2} GiB, {:.2} GiB are missing.{fullest}{together} Here each process had the GPU to itself.",
            gib(missing)
        ),
    }
    if let Some(operation) = need.peak_operation() {
        tell!("The peak came in PyTorch's {operation}.");
    }
    if need.met_later() > 0 {
        tell!("{} of its allocations fitted only after PyTorch had given back unused memory.", need.met_later());
    }
    let (fits, small) = sorted(need, profile, profiles);
    tell!("Fits on: {}. Too small: {}.", a_few(fits, "larger"), a_few(small, "smaller"));
}

fn tell_failure(need: &Need, used: &DeviceUse, profile: &GpuProfile, profiles: &GpuProfiles, program: &[OsString], status: ExitStatus) {
    let Some((last, missing)) = used.report.refusals.last.zip(used.missing_bytes()) else { return };
    let who = used.place.as_deref().unwrap_or("it");
    let again = match used.report.refusals.refused {
        1 => String::new(),
        count => format!(" {count} requests failed, and this was the last one."),
    };
    let verdict = if status.success() { "Ran out of memory and went on" } else { "Does not fit" };
    let asked = format!("{verdict}: {who} asked for {}, and {} were free", size(last.requested_bytes), size(last.free_bytes));
    if missing == 0 {
        tell!("{asked}: the program limits itself.{again}");
        return;
    }
    tell!("{asked}. {} are missing.{again}", size(missing));
    let (fits, small) = sorted(need, profile, profiles);
    tell!(
        "It needs at least {:.2} GiB. Large enough for that: {}. Too small: {}.",
        gib(need.bytes_on(profile)),
        a_few(fits.iter().copied(), "larger"),
        a_few(small, "smaller")
    );
    if let Some(larger) = fits.first() {
        let words = program.iter().map(|word| word.to_string_lossy().into_owned());
        tell!("To see all that it needs, run: lowmem on {} -- {}", larger.name, shell_line(words));
    }
}

/// Whether the program's attention holds a score matrix that it would not hold on a later GPU.
fn falls_back(need: &Need, profile: &GpuProfile) -> bool {
    lacks_attention(profile) && need.uses.iter().any(|used| used.report.has_score_matrix)
}

fn lacks_attention(profile: &GpuProfile) -> bool {
    AttentionKernel::of(AttnType::Sdpa, Dtype::Bf16, Some(profile), WAN_HEAD_SIZE) == Some(AttentionKernel::Math)
}

/// The profiles that have room for it and those that have not, each from the nearest in memory to the farthest. Where it takes another way on a later GPU, what it
/// needs there is not known.
fn sorted<'a>(need: &Need, profile: &GpuProfile, profiles: &'a GpuProfiles) -> (Vec<&'a GpuProfile>, Vec<&'a GpuProfile>) {
    let falls_back = falls_back(need, profile);
    let mut all: Vec<_> = profiles.iter().filter(|other| !falls_back || lacks_attention(other)).collect();
    all.sort_by_key(|profile| profile.memory_bytes.value);
    let (fits, mut small): (Vec<_>, Vec<_>) = all.into_iter().partition(|profile| need.bytes_on(profile) <= profile.memory_bytes.value);
    small.reverse();
    (fits, small)
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
