//! What `lowmem on` says at the end.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use engine_protocol::{GpuProfile, Secs, gib};

use super::need::{DeviceUse, Need};
use crate::commands::{shell_line, table};
use crate::gpu_profile::GpuProfiles;

/// Says what the program needed, on standard error: standard output is the program's.
pub(super) fn tell(need: &Need, profile: &GpuProfile, profiles: &GpuProfiles, program: &[OsString], status: ExitStatus) {
    if let Some(signal) = status.signal() {
        tell!("lowmem: the program was ended by signal {signal}. What follows is what it needed until then.");
    } else if let Some(code @ 1..) = status.code().filter(|_| need.failed().is_none()) {
        tell!("lowmem: the program ended with exit code {code}. What follows is what it needed until then.");
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
            None if need.unreadable.is_empty() => tell_fit(need, profile, profiles),
            None => tell!("Whether it fits is not known."),
        }
        if let Some((torch, cuda)) = need.torch.as_ref().and_then(|torch| Some((torch, torch.foreign_cuda()?))) {
            tell!(
                "Its PyTorch {} is built for CUDA {cuda}, and the virtual GPU stands in for CUDA 13: these figures are not to be relied upon.",
                torch.torch
            );
        }
    }
    tell_time(need);
    if need.values_read() > 0 {
        let by: Vec<_> = need.values_read_by().into_iter().map(|(name, count)| format!("{name} ({count})")).collect();
        tell!(
            "Values that the program read back from the GPU, where they are mostly zeros: {}{}{}. If it decides by them (a mask, a stop of its own), it may \
             have gone another way than on a real one.",
            need.values_read(),
            if by.is_empty() { "" } else { ", by " },
            by.join(", ")
        );
    }
    if !need.unsupported.is_empty() {
        let calls: Vec<_> = need.unsupported.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        tell!("Not supported by the virtual GPU, and how often it was asked for: {}.", calls.join(", "));
    }
}

/// The time of the process that took longest.
fn tell_time(need: &Need) {
    let longest = need.uses.iter().max_by(|a, b| a.report.end_secs[1].total_cmp(&b.report.end_secs[1]));
    let Some(used) = longest.filter(|used| used.report.end_secs[1] > 0.0) else { return };
    let [low, expected, high] = used.report.end_secs;
    let secs = reports::secs_in_words(Secs { low, expected, high });
    if used.tells_work {
        tell!(
            "Time on the GPU by the virtual clock (modelled): {secs}. What the program does on the host is not in it, nor are kernels that are not PyTorch's own."
        );
    } else {
        tell!(
            "Time by the virtual clock (modelled): at least {secs}. Products of matrices, convolutions and copies are counted; attention, norms and other kernels \
             say nothing of themselves, and nor does what the program does on the host."
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
        tell!(
            "Allocated and reserved are counters of PyTorch's: a process that is no Python with PyTorch, or was killed, does not tell them."
        );
    }
}

fn tell_fit(need: &Need, profile: &GpuProfile, profiles: &GpuProfiles) {
    let needed = need.bytes_on(profile);
    let capacity = profile.memory_bytes.value;
    let several = |of: fn(&DeviceUse) -> u32| need.uses.iter().any(|used| of(used) != of(&need.uses[0]));
    let among = match (several(|used| used.process), several(|used| used.device)) {
        (false, false) => "",
        (true, false) => " (all peaks at the same time)",
        (false, true) => " on the device that is fullest",
        (true, true) => " on the device that is fullest (all peaks at the same time)",
    };
    match capacity.checked_sub(needed) {
        Some(spare) => tell!("It fits: {:.2} of {:.2} GiB are needed{among}, {:.2} are left.", gib(needed), gib(capacity), gib(spare)),
        None => tell!(
            "It may not fit: each process had the GPU to itself here, and {:.2} of {:.2} GiB are needed{among}: {:.2} are missing.",
            gib(needed),
            gib(capacity),
            gib(needed - capacity)
        ),
    }
    if let Some(operation) = need.peak_operation() {
        tell!("Most was held in PyTorch's {operation}.");
    }
    if need.met_later() > 0 {
        tell!("{} of its allocations fitted only after PyTorch had given back memory that it held unused.", need.met_later());
    }
    let (fits, small) = sorted(need, profiles);
    tell!("Fits on: {}. Too small: {}.", listed(&fits), listed(&small));
}

fn tell_failure(need: &Need, used: &DeviceUse, profile: &GpuProfile, profiles: &GpuProfiles, program: &[OsString], status: ExitStatus) {
    let Some((last, missing)) = used.report.refusals.last.zip(used.missing_bytes()) else { return };
    let place = used.place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default();
    let again = match used.report.refusals.refused {
        1 => String::new(),
        count => format!(" It was the last of {count} that failed."),
    };
    let verdict = if status.success() { "It went on without what did not fit" } else { "It does not fit" };
    if missing == 0 {
        tell!(
            "{verdict}: an allocation of {}{place} failed with {} free, so a limit of the program's own was in the way.{again}",
            size(last.requested_bytes),
            size(last.free_bytes)
        );
        return;
    }
    tell!(
        "{verdict}: an allocation of {}{place} found {} free, {} are missing.{again}",
        size(last.requested_bytes),
        size(last.free_bytes),
        size(missing)
    );
    let (fits, small) = sorted(need, profiles);
    tell!(
        "At least {:.2} GiB are needed. Large enough for that: {}. Too small: {}.",
        gib(need.bytes_on(profile)),
        listed(&fits),
        listed(&small)
    );
    if let Some(larger) = fits.first() {
        let words = program.iter().map(|word| word.to_string_lossy().into_owned());
        tell!("To see all that it needs: lowmem on {} -- {}", larger.name, shell_line(words));
    }
}

/// The profiles that have room for it and those that have not, each from the smallest to the largest.
fn sorted<'a>(need: &Need, profiles: &'a GpuProfiles) -> (Vec<&'a GpuProfile>, Vec<&'a GpuProfile>) {
    profiles.iter().partition(|profile| need.bytes_on(profile) <= profile.memory_bytes.value)
}

fn listed(profiles: &[&GpuProfile]) -> String {
    let names: Vec<_> = profiles.iter().map(|profile| profile.name.as_str()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
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
