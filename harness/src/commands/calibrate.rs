//! `lowmem calibrate`: what the GPU reaches, measured, and kept for later predictions. On the virtual GPU it must give back the profile's own rates.

use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::{Calibration, Device, GpuProfile, Measured};

use super::table;
use crate::calibration::{calibrated, peak, reached, share};
use crate::cli::DeviceArguments;
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::testbed::Testbed;
use crate::worker::{self, Launcher};

/// By how much the virtual GPU may miss the profile's rates: what kernels take beside their work.
const TOLERANCE: f64 = 0.02;

/// Measures, and keeps what a real GPU reaches.
pub(crate) fn run(arguments: &DeviceArguments) -> Result<ExitCode, Error> {
    let testbed = Testbed::choose(arguments.wanted())?;
    if testbed.device == Device::Cpu {
        return Err(Error::input("--device cpu: it is GPUs that are calibrated, real or virtual: name one with --gpu"));
    }
    let Some(profile) = &testbed.profile else {
        return Err(Error::input(format!(
            "{} No profile has that name: write one beside those in sweeps/gpus from its data sheet, with the driver's own name as `title`",
            testbed.choice
        )));
    };
    let launcher = Launcher::find(testbed.device)?;
    tell!("{}", testbed.choice);
    let calibration = worker::calibrate(&launcher, &testbed)?;
    print(&calibration, profile);
    if testbed.device == Device::Virtual {
        return Ok(compare(&calibration, profile));
    }
    let path = keep(&calibration, profile)?;
    say!("Kept in {}: predictions for {} use it from now on; delete the file to undo that.", path.display(), profile.name);
    Ok(ExitCode::Done)
}

fn print(calibration: &Calibration, profile: &GpuProfile) {
    let mut table = table(&["what", "size", "time ms", "rate", "of peak", "in the profile"], &[2, 3, 4]);
    for it in &calibration.measurements {
        let rate = it.amount / it.secs.expected;
        let computes = peak(it, profile) == profile.flops.bf16.value;
        let known = share(it.what, &profile.efficiency);
        table.add_row([
            it.what.name().to_owned(),
            it.size.clone(),
            format!("{:.3}", it.secs.expected * 1e3),
            if computes { format!("{:.1} TFLOP/s", rate / 1e12) } else { format!("{:.1} GB/s", rate / 1e9) },
            format!("{:.0}%", rate / peak(it, profile) * 100.0),
            known
                .map(|share| format!("{:.0}% ({:.0} to {:.0})", share.expected * 100.0, share.low * 100.0, share.high * 100.0))
                .unwrap_or_default(),
        ]);
    }
    say!("{table}");
    say!(
        "Peaks are the profile's: bf16, memory, and of a copy what its profile says that pinned ones reach. The device calls itself {}.",
        calibration.device_name
    );
}

/// Whether the virtual GPU gives the profile's rates back.
fn compare(calibration: &Calibration, profile: &GpuProfile) -> ExitCode {
    let mut kinds: Vec<Measured> = calibration.measurements.iter().map(|it| it.what).collect();
    kinds.sort();
    kinds.dedup();
    let off = |what: Measured| {
        let [_, measured, _] = reached(calibration, what, profile)?;
        let known = match what {
            Measured::PinnedToDevice | Measured::ToPinned => 1.0,
            _ => share(what, &profile.efficiency)?.expected,
        };
        Some((measured / known - 1.0).abs())
    };
    let worst = kinds.into_iter().filter_map(|what| Some((what, off(what)?))).max_by(|a, b| a.1.total_cmp(&b.1));
    let Some((what, worst)) = worst else { return ExitCode::Fault };
    say!("The virtual GPU gives back the profile's rates: the furthest off is {}, by {:.1}%. Nothing is kept.", what.name(), worst * 100.0);
    if worst <= TOLERANCE { ExitCode::Done } else { ExitCode::Fault }
}

/// Writes the calibrated profile into the user's folder, in one step.
fn keep(calibration: &Calibration, profile: &GpuProfile) -> Result<PathBuf, Error> {
    let folder =
        data::user_folder().ok_or_else(|| Error::input("there is no folder for it: set HOME or XDG_CONFIG_HOME"))?.join(data::GPUS);
    let source = format!("measured on this machine by lowmem calibrate, {}", jiff::Zoned::now().strftime("%Y-%m-%d"));
    let path = folder.join(format!("{}.yaml", profile.name));
    let failed = |why: &dyn std::fmt::Display| Error::input(format!("{}: {why}", path.display()));
    let text = serde_yaml::to_string(&calibrated(profile, calibration, &source)).map_err(|error| failed(&error))?;
    let draft = path.with_extension("part");
    let written = |draft: &Path| fs::create_dir_all(&folder).and_then(|()| fs::write(draft, text)).and_then(|()| fs::rename(draft, &path));
    written(&draft).map_err(|error| failed(&error))?;
    Ok(path)
}
