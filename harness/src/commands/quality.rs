//! `lowmem quality`: what the cases of a run that give up quality cost of it. Their videos are made, and held against those that give nothing up.

use std::path::Path;

use engine_protocol::{Config, Device, Outcome, Quality};
use reports::{Run, Summary};

use super::table;
use crate::cli::QualityArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::json;
use crate::model::Models;
use crate::quality::Videos;
use crate::testbed::{DeviceChoice, Testbed};
use crate::worker::Launcher;

/// Measures a run that is there.
pub(crate) fn run(arguments: &QualityArguments) -> Result<ExitCode, Error> {
    let dir = &arguments.run_dir;
    let run = reports::load(dir)?;
    let mut wanted = arguments.device.wanted();
    if wanted.device == DeviceChoice::Auto && run.manifest.device == Device::Cpu {
        wanted.device = DeviceChoice::Cpu;
    }
    let testbed = Testbed::choose(wanted)?;
    refuse_virtual(&testbed)?;
    let interrupt = Interrupt::listen()?;
    let models = run.manifest.models.iter().cloned().fold(Models::load()?, Models::with);
    let launcher = Launcher::find(testbed.device)?;
    let code = measure(dir, &run, &mut Videos::new(&testbed, &launcher, &models, &interrupt)?)?;
    let run = reports::load(dir)?;
    reports::write(&Summary::of(&run), dir)?;
    if arguments.json {
        json::print(&run.quality)?;
    } else {
        print(&run);
    }
    Ok(code)
}

/// Refuses to compare videos where none is computed.
pub(crate) fn refuse_virtual(testbed: &Testbed) -> Result<(), Error> {
    if testbed.device == Device::Virtual {
        return Err(Error::input(format!(
            "quality: nothing is computed on the virtual GPU, so there are no videos to compare. {} Use --device cpu (small models) or cuda",
            testbed.choice
        )));
    }
    Ok(())
}

/// Measures the quality of each case of `run` that gives some up and whose quality is not known, and keeps it in the run directory.
pub(crate) fn measure(dir: &Path, run: &Run, videos: &mut Videos<'_>) -> Result<ExitCode, Error> {
    let is_open = |case: &str| run.quality.iter().all(|known| known.case != case);
    let fitting = run.records.iter().filter(|record| record.outcome == Outcome::Ok && is_open(&record.case));
    let lossy: Vec<(&str, &Config, Config)> =
        fitting.filter_map(|record| Some((record.case.as_str(), &record.config, record.config.exact()?))).collect();
    let mut known: Vec<Quality> = run.quality.clone();
    let mut code = ExitCode::Done;
    for (place, (case, config, exact)) in lossy.iter().enumerate() {
        tell!("Quality, {} of {}: {case}", place + 1, lossy.len());
        match videos.quality(case, config, exact) {
            Ok(quality) => known.push(quality),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            // The others are measured all the same.
            Err(error) => {
                tell!("warning: {error}");
                code = ExitCode::CasesFailed;
            }
        }
        reports::write_quality(dir, &known)?;
    }
    Ok(code)
}

fn print(run: &Run) {
    if run.quality.is_empty() {
        say!(
            "No case of this run gives up quality: none has a cache of sampler steps, or weights or attention in 8 bits, or none came to its end."
        );
        return;
    }
    let mut rows = table(&["case", "PSNR dB", "SSIM", "latents differ by"], &[1, 2, 3]);
    for quality in &run.quality {
        let psnr = quality.psnr_db.map_or("same".to_owned(), |psnr| format!("{psnr:.1}"));
        rows.add_row([quality.case.clone(), psnr, format!("{:.3}", quality.ssim), format!("{:.1}%", quality.latents_error * 100.0)]);
    }
    say!("{rows}");
    say!("Each video against the one of the same seed without a cache of sampler steps and with weights as they are.");
    say!("PSNR: the peak signal-to-noise ratio of all frames. SSIM: their mean structural similarity, 1 where they are the same.");
}
