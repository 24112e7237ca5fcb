//! `lowmem generate`.

mod ending;
mod log;
mod output;
mod pictures;

use std::time::Duration;

use engine_protocol::{CheckpointFiles, Config, Device, Event, OutputFormat, Request};
use serde_json::Value;

pub(crate) use log::LogLine;

use super::{check_kernels, one_video, warn_of_attention, weights};
use crate::autos;
use crate::cli::GenerateArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::json;
use crate::launched::Launched;
use crate::meeting::Meeting;
use crate::model::{Models, is_made_small};
use crate::print;
use crate::progress::Progress;
use crate::rank_plans::RankGpus;
use crate::shares;
use crate::splits;
use crate::sweep::{Definition, Rules, resolve};
use crate::testbed::Testbed;
use crate::worker::{self, Launcher, Patience};
use crate::{disk, host_rates};

/// Makes a video, or a rank's part of one.
pub(crate) fn run(arguments: &GenerateArguments) -> Result<ExitCode, Error> {
    let launched = Launched::here()?;
    if !launched.as_ref().is_none_or(Launched::is_first) {
        // All are given the same words: what is wrong with those is said once.
        print::hush(true);
    }
    let prepared = Prepared::of(arguments, launched.as_ref())?;
    make(arguments, prepared, launched).inspect_err(|_| print::hush(false))
}

/// A video that is about to be made.
struct Prepared {
    testbed: Testbed,
    models: Models,
    config: Config,
}

impl Prepared {
    /// What the arguments mean on this machine, checked.
    fn of(arguments: &GenerateArguments, launched: Option<&Launched>) -> Result<Self, Error> {
        let mut definition = definition(arguments)?;
        let format = format(arguments)?;
        let models = weights::models(arguments.files.named().as_ref(), &mut definition)?;
        // Another rank may see other GPUs.
        let testbed = Testbed::for_ranks(arguments.device.wanted()).inspect_err(|_| print::hush(false))?;
        match (testbed.device, &arguments.output) {
            (Device::Virtual, Some(_)) => {
                return Err(Error::input(format!(
                    "--output: nothing is computed on the virtual GPU, so there is no video to write. {} Use --device cpu (small models) or cuda, or leave \
                 --output out to see the memory",
                    testbed.choice
                )));
            }
            (Device::Cpu | Device::Cuda, None) => {
                return Err(Error::input("--output is missing: say where the video goes, --output cat.gif"));
            }
            _ => {}
        }
        testbed.check_snapshot(arguments.snapshot.is_some())?;
        if let Some(model) = definition.fixed_text("model").and_then(|name| models.get(&name).ok()) {
            pictures::look(&mut definition, model)?;
        }
        if let (Some(Launched { by, .. }), Device::Cpu) = (launched, testbed.device) {
            return Err(Error::input(format!(
                "--device cpu: ranks are threads of one process there. Start it without {by}, with --gpus or cp_size"
            )));
        }
        let on = RankGpus::of(&testbed);
        if let Some((gpus, asked)) = gpus(arguments, launched, &on)? {
            let config_of = |definition: &Definition| Ok(config(definition, &models, testbed.device)?.0);
            let request_of = |config: &Config| Ok(testbed.request("split", models.get(&config.model)?, config, None));
            let said = splits::fix(&mut definition, gpus, &asked, config_of, request_of, &on)?;
            tell!("{said}");
        }
        let (config, warnings) = config(&definition, &models, testbed.device)?;
        let model = models.get(&config.model)?;
        if testbed.device != Device::Virtual {
            pictures::check(&config, model)?;
        }
        if let Some(format) = format {
            output::check_size(format, &config)?;
        }
        warnings.iter().for_each(|warning| tell!("warning: {warning}"));
        check_kernels(&config, &testbed)?;
        warn_of_attention([&config], testbed.profile.as_ref());
        if model.files.is_none() && testbed.device != Device::Virtual && !is_made_small(&config.model) {
            tell!("warning: weights come from the seed, so the video shows nothing: name the folder of {} with --checkpoint", config.model);
        }
        Ok(Self { testbed, models, config })
    }
}

/// Over how many GPUs the video is split, and who wants that; nothing where flags alone say it.
fn gpus(arguments: &GenerateArguments, launched: Option<&Launched>, on: &RankGpus) -> Result<Option<(u32, String)>, Error> {
    let Some(Launched { by, count, .. }) = launched else { return arguments.gpus.wanted(on.named()) };
    match arguments.gpus.count.filter(|gpus| gpus != count) {
        Some(gpus) => Err(Error::input(format!("--gpus {gpus}: {by} started {count} ranks. Leave it out, or start as many"))),
        None => Ok(Some((*count, format!("{by} started {count} ranks")))),
    }
}

fn format(arguments: &GenerateArguments) -> Result<Option<OutputFormat>, Error> {
    arguments.output.as_deref().map(output::check).transpose()
}

/// Makes it. Of several ranks with a process each the first one writes and tells of all.
fn make(arguments: &GenerateArguments, prepared: Prepared, launched: Option<Launched>) -> Result<ExitCode, Error> {
    let Prepared { testbed, models, config: asked } = prepared;
    let model = models.get(&asked.model)?;
    let on = RankGpus::of(&testbed);
    let config = shares::settled(asked.clone(), &on, |config| Ok(testbed.request("shares", model, config, None)))?;
    shares::in_words(&asked, &config).iter().for_each(|said| tell!("{said}"));
    let launcher = Launcher::find(testbed.device)?;
    let interrupt = Interrupt::listen()?;
    tell!("{}", testbed.choice);
    let meeting = launched.map(|launched| Meeting::join(launched, interrupt)).transpose()?;
    let is_first = meeting.as_ref().is_none_or(|meeting| meeting.launched.is_first());

    let host_rates = host_rates::for_cases(&testbed, &launcher, [&config]);
    let disk = disk::for_video(&testbed, model.files.as_ref().and_then(CheckpointFiles::main), &config);
    disk::say_where_assumed(disk, disk::is_modelled(&testbed, &config));
    let request = Request {
        disk,
        // On the virtual GPU no weight is read, and a figure depends on nothing of this machine.
        host_limit_bytes: testbed.ram.bytes,
        output: arguments.output.clone(),
        snapshot: arguments.snapshot.clone(),
        ..testbed.request("generate", model, &config, host_rates)
    };
    let mut log = arguments.log.as_deref().filter(|_| is_first).map(log::Log::open).transpose()?;
    let _held = arguments
        .output
        .as_deref()
        .zip(format(arguments)?)
        .filter(|_| is_first)
        .map(|(output, format)| output::Held::of(output, format))
        .transpose()?;
    let whole = arguments.timeout.map(|secs| Duration::from_secs(secs.into()));
    let patience = Patience { whole, rank: arguments.ranks.patience() };
    let mut watcher = Watcher::new(&request.config);
    let mut on_event = |event: &Event| {
        if is_first {
            watcher.see(event);
        }
    };
    let record = match &meeting {
        Some(meeting) => worker::run_rank(&launcher, &testbed, &request, patience, &interrupt, meeting, &mut on_event)?,
        None => worker::run_case(&launcher, &testbed, &request, patience, &interrupt, &mut on_event)?,
    };
    let record = record.map(|record| shares::as_asked(record, &asked));
    watcher.finish();
    let logged = match (&mut log, &record) {
        (Some(log), Some(record)) => log.append(record, &request.model),
        _ => Ok(()),
    };
    // What became of the video is said before what went wrong with the log.
    let code = match record {
        Some(record) if arguments.json && is_first => {
            json::print(&record)?;
            ending::tell_end(&record, &testbed, None)
        }
        Some(record) => ending::tell_of(&record, &testbed, arguments.output.as_deref()),
        None => {
            tell!("Interrupted: no video was made.");
            ExitCode::Interrupted
        }
    };
    logged.map(|()| code)
}

/// The settings of the file, the options and the words, later ones first.
fn definition(arguments: &GenerateArguments) -> Result<Definition, Error> {
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let all = [
        ("prompt", "prompt", text(&arguments.prompt)),
        ("negative_prompt", "negative-prompt", text(&arguments.negative_prompt)),
        ("image", "image", text(&arguments.image)),
        ("last_image", "last-image", text(&arguments.last_image)),
        ("seed", "seed", arguments.seed.map(Value::from)),
        ("steps", "steps", arguments.steps.map(Value::from)),
        ("guidance_scale", "guidance", arguments.guidance.map(Value::from)),
    ];
    let given: Vec<_> = all.into_iter().filter_map(|(key, option, value)| Some((key, option, value?))).collect();
    one_video::definition("generate", &arguments.video, &given, &arguments.settings)
}

fn config(definition: &Definition, models: &Models, device: Device) -> Result<(Config, Vec<String>), Error> {
    let settings = one_video::settings(definition)?;
    // All steps of a video are run; for memory alone two are enough.
    let rules = Rules { device, may_shorten: true };
    if device != Device::Virtual && settings.steps_measured.is_some() {
        return Err(Error::input("steps_measured: a video needs all of its steps: leave it out, or set steps"));
    }
    resolve(&settings, models, rules, |error| definition.refuse(error))
}

/// Shows which stage runs and how far it is.
struct Watcher {
    asked: Config,
    progress: Option<Progress>,
}

impl Watcher {
    /// Of a run of the configuration that was asked for.
    fn new(asked: &Config) -> Self {
        Self { asked: asked.clone(), progress: None }
    }

    fn see(&mut self, event: &Event) {
        match event {
            Event::StageBegun { stage } => {
                self.finish();
                self.progress = Some(Progress::unknown(stage.name()));
            }
            Event::Progress { stage, done, total } => {
                let progress = self.progress.get_or_insert_with(|| Progress::unknown(stage.name()));
                progress.reach(u64::from(*done), u64::from(*total));
            }
            Event::Lowered(lowered) => {
                self.finish();
                tell!("{}", ending::lowered_in_words(lowered));
            }
            Event::Planned { config, .. } => {
                for said in autos::in_words(&self.asked, config) {
                    tell!("{said}");
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }
}
