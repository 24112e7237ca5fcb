//! `lowmem calibrate`: what the GPU reaches and holds, measured, and kept for later predictions. On the virtual GPU it must give back the profile that this has.

use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::{Calibration, Device, GpuProfile, Interval, Measured, WorkKind};

use reports::write_whole;
use schemars::JsonSchema;
use serde::Serialize;

use super::table;
use crate::calibration::{KINDS, calibrated, rate, starting_from};
use crate::cli::CalibrateArguments;
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::gpu_profile::GpuProfiles;
use crate::interrupt::Interrupt;
use crate::json;
use crate::testbed::Testbed;
use crate::worker::{self, Launcher};
use crate::{calibration_runs, real_gpu};

/// By how much the virtual GPU may miss its own profile: early steps that are not quite settled, and kernels that take less than they are said to.
const TOLERANCE: f64 = 0.03;

/// Measures, and keeps what a real GPU reaches.
pub(crate) fn run(arguments: &CalibrateArguments) -> Result<ExitCode, Error> {
    let testbed = Testbed::choose(arguments.device.wanted())?;
    if testbed.device == Device::Cpu {
        return Err(Error::input("--device cpu: it is GPUs that are calibrated, real or virtual: name one with --gpu"));
    }
    if testbed.disk.is_some() {
        return Err(Error::input("--disk: nothing is read from files as a GPU is calibrated: leave it out"));
    }
    let Some(profile) = &testbed.profile else {
        return Err(Error::input(format!(
            "{} No profile has that name: write one beside those in sweeps/gpus from its data sheet, with the driver's own name as `title`",
            testbed.choice
        )));
    };
    let start = starting_from(&start(arguments, &testbed, profile)?);
    let interrupt = Interrupt::listen()?;
    tell!("{}", testbed.choice);
    let others_bytes = others_bytes(&testbed);
    let calibration = worker::calibrate(&Launcher::find(testbed.device)?, &testbed)?;
    let Some(twins) = calibration_runs::run(&testbed, &start, &interrupt)? else {
        tell!("interrupted: nothing is kept");
        return Ok(ExitCode::Interrupted);
    };
    let source = format!("measured on this machine by lowmem calibrate, {}", jiff::Zoned::now().strftime("%Y-%m-%d"));
    let new = calibrated(&start, &calibration, &twins, others_bytes.unwrap_or(0), &source);
    // What the virtual GPU gives is known, and kept where that is asked for alone.
    let path = match (&arguments.out, testbed.device) {
        (Some(path), _) => Some(path.clone()),
        (None, Device::Virtual) => None,
        (None, _) => Some(own_path(profile)?),
    };
    path.iter().try_for_each(|path| write(&new, path))?;
    if arguments.json {
        let worst = worst(&new, profile).filter(|_| testbed.device == Device::Virtual);
        let furthest_off = worst.map(|(kind, share)| OffBy { kind, share });
        json::print(&CalibrateJson { profile: new, is_shared: others_bytes.is_some_and(|bytes| bytes > 0), kept_in: path, furthest_off })?;
        return Ok(if worst.is_none_or(|(_, share)| share <= TOLERANCE) { ExitCode::Done } else { ExitCode::Fault });
    }
    print(&calibration, &start, &new);
    if others_bytes.is_some_and(|bytes| bytes > 0) {
        say!("Another process uses this GPU: measure again when it is idle, since times and memory are not this GPU's alone.");
    }
    let Some(path) = path else { return Ok(compare(&new, profile)) };
    say!(
        "Kept in {}: predictions for {} use what stands in ~/.config/lowmem/gpus from now on; delete the file to undo that.",
        path.display(),
        profile.name
    );
    Ok(ExitCode::Done)
}

/// The profile to begin with.
fn start(arguments: &CalibrateArguments, testbed: &Testbed, profile: &GpuProfile) -> Result<GpuProfile, Error> {
    if let Some(name) = &arguments.start_from {
        let start = GpuProfiles::load()?.budget(name)?.profile;
        return Ok(GpuProfile { name: profile.name.clone(), title: profile.title.clone(), ..start });
    }
    let mut start = profile.clone();
    if testbed.device == Device::Virtual {
        // One that is wrong all over, or it would be no test.
        let shares = &mut start.efficiency;
        let all = [&mut shares.gemm, &mut shares.attention, &mut shares.convolution, &mut shares.pointwise, &mut shares.reduction];
        all.into_iter().chain(&mut shares.cudnn_attention).for_each(|share| {
            *share =
                Interval { low: share.low / 2.0, expected: share.expected / 2.0, high: share.high / 2.0, source: share.source.clone() };
        });
    }
    Ok(start)
}

/// What other processes hold on a real GPU; none where that is not known.
fn others_bytes(testbed: &Testbed) -> Option<u64> {
    let uuid = testbed.uuid.as_ref()?;
    let gpu = real_gpu::list().ok()?.into_iter().find(|gpu| gpu.uuid == *uuid)?;
    // NVML counts what the driver keeps for itself as used; CUDA's total is without it.
    let total = testbed.profile.as_ref()?.memory_bytes.value;
    Some(total.saturating_sub(gpu.free_bytes))
}

fn print(calibration: &Calibration, start: &GpuProfile, new: &GpuProfile) {
    let mut table = table(&["what", "before", "measured", "range"], &[1, 2, 3]);
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    for kind in KINDS {
        let [before, after] = [start, new].map(|profile| profile.efficiency.of(kind));
        let (Some(before), Some(after)) = (before, after) else { continue };
        if before == after || (kind == WorkKind::CudnnAttention && new.efficiency.cudnn_attention.is_none()) {
            continue;
        }
        let of = if kind.goes_by_memory() { "of the memory's bandwidth" } else { "of the peak" };
        let name = if kind == WorkKind::CudnnAttention { "attention by cuDNN" } else { kind.name() };
        table.add_row([
            format!("{name}, {of}"),
            percent(before.expected),
            percent(after.expected),
            format!("{} to {}", percent(after.low), percent(after.high)),
        ]);
    }
    let rates = |profile: &GpuProfile| (profile.pcie.pinned_bytes_per_sec.value, profile.pcie.pageable());
    let ((pinned, pageable), (new_pinned, new_pageable)) = (rates(start), rates(new));
    let gb = |rate: f64| format!("{:.1} GB/s", rate / 1e9);
    table.add_row(["copy of weights beside arithmetic".into(), gb(pinned), gb(new_pinned), String::new()]);
    table.add_row(["copy from pageable memory".into(), gb(pageable), gb(new_pageable), String::new()]);
    let to_host = rate(calibration, Measured::ToPinned).map(gb).unwrap_or_default();
    table.add_row(["copy to pinned memory".into(), String::new(), to_host, String::new()]);
    let micros = |secs: f64| format!("{:.1} us", secs * 1e6);
    let (before, after) = (start.small_kernels(), new.small_kernels());
    table.add_row([
        Measured::SmallKernels.name().into(),
        micros(before.kernel_secs.expected),
        micros(after.kernel_secs.expected),
        String::new(),
    ]);
    table.add_row([
        Measured::Launches.name().into(),
        micros(before.launch_secs.expected),
        micros(after.launch_secs.expected),
        String::new(),
    ]);
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    table.add_row(["CUDA context".into(), mib(start.context_bytes.value), mib(new.context_bytes.value), String::new()]);
    table.add_row(["machine code of libraries, bound".into(), mib(start.code_bytes.value), mib(new.code_bytes.value), String::new()]);
    say!("{table}");
    match &new.power_limit {
        Some(limit) => say!(
            "Arithmetic is {:.2} times as fast for the first {:.1} s: then the card is at its power limit. Predictions use what it sustains.",
            limit.burst.value,
            limit.settles_secs.value
        ),
        None => say!("Steps took as long at the end as at the beginning: the card was not at its power limit."),
    }
    say!(
        "Each kind of work was measured in sampler steps and decoding, beside the same on a virtual GPU. The device calls itself {}.",
        calibration.device_name
    );
}

/// Of which kind of work the virtual GPU misses its profile by most, and by what share.
fn worst(new: &GpuProfile, profile: &GpuProfile) -> Option<(WorkKind, f64)> {
    let off = |kind| {
        let [found, known] = [new, profile].map(|profile| profile.efficiency.of(kind));
        Some((found?.expected / known?.expected - 1.0).abs())
    };
    let measured =
        KINDS.into_iter().filter(|&kind| new.efficiency.of(kind).is_some_and(|share| share.source.starts_with("measured on this")));
    measured.filter_map(|kind| Some((kind, off(kind)?))).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Whether the virtual GPU gives its profile back.
fn compare(new: &GpuProfile, profile: &GpuProfile) -> ExitCode {
    let Some((kind, worst)) = worst(new, profile) else { return ExitCode::Fault };
    say!("The virtual GPU gives back its profile: the furthest off is {}, by {:.1}%. Nothing is kept.", kind.name(), worst * 100.0);
    if worst <= TOLERANCE { ExitCode::Done } else { ExitCode::Fault }
}

fn own_path(profile: &GpuProfile) -> Result<PathBuf, Error> {
    let folder = data::user_folder().ok_or_else(|| Error::input("there is no folder for it: set HOME or XDG_CONFIG_HOME"))?;
    Ok(folder.join(data::GPUS).join(format!("{}.yaml", profile.name)))
}

/// What was measured.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CalibrateJson {
    /// The profile with what was measured in it.
    profile: GpuProfile,
    /// Whether another process used the GPU meanwhile.
    is_shared: bool,
    /// Where it was kept.
    kept_in: Option<PathBuf>,
    /// Of the virtual GPU, the kind of work at which it misses its own profile by most.
    furthest_off: Option<OffBy>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct OffBy {
    kind: WorkKind,
    /// Of the profile's figure.
    share: f64,
}

/// Writes the calibrated profile, in one step.
fn write(profile: &GpuProfile, path: &Path) -> Result<(), Error> {
    let failed = |why: &dyn std::fmt::Display| Error::input(format!("{}: {why}", path.display()));
    let text = serde_yaml::to_string(profile).map_err(|error| failed(&error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = fs::create_dir_all(folder).and_then(|()| write_whole(path, text));
    written.map_err(|error| failed(&error))
}
