//! `lowmem generate`.

use std::path::Path;
use std::time::Duration;

use engine_protocol::{Config, Device, Event, Outcome, Request, RunRecord, Settings, gib};
use serde_json::json;

use super::table;
use crate::cli::{self, GenerateArguments};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::progress::Progress;
use crate::sweep::{Definition, Rules, resolve_one};
use crate::target::Target;
use crate::worker::{self, Launcher};

/// Makes a video.
pub(crate) fn run(arguments: GenerateArguments) -> Result<ExitCode, Error> {
    let definition = definition(&arguments)?;
    if let Some(output) = &arguments.output {
        check_output(output)?;
    }
    let target = Target::choose(&arguments.target)?;
    match (target.device, &arguments.output) {
        (Device::Virtual, Some(_)) => {
            return Err(Error::input(format!(
                "--output: nothing is computed on the virtual GPU, so there is no video to write. {} Use --device cpu (small models) or cuda, or leave \
                 --output out to see the memory",
                target.choice
            )));
        }
        (Device::Cpu | Device::Cuda, None) => return Err(Error::input("--output is missing: say where the video goes, --output cat.gif")),
        _ => {}
    }
    let models = Models::load()?;
    let (config, warnings) = config(&definition, &models, target.device)?;
    warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    let launcher = Launcher::find(target.device)?;
    let interrupt = Interrupt::listen()?;
    tell!("{}", target.choice);

    let request = Request {
        case: "generate".into(),
        device: target.device,
        memory_limit_bytes: target.memory_limit_bytes,
        model: models.get(&config.model)?.clone(),
        config,
        output: arguments.output.clone(),
    };
    let limit = arguments.timeout.map(|secs| Duration::from_secs(secs.into()));
    let mut watcher = Watcher::default();
    let record = worker::run_case(&launcher, &target, &request, limit, &interrupt, &mut |event| watcher.see(event))?;
    watcher.finish();
    match record {
        Some(record) => Ok(finish(&record, &target, arguments.output.as_deref())),
        None => {
            tell!("interrupted: no video was made");
            Ok(ExitCode::Interrupted)
        }
    }
}

/// The settings of the file, the flags and the words, later ones first.
fn definition(arguments: &GenerateArguments) -> Result<Definition, Error> {
    let mut definition = match &arguments.config {
        Some(path) => Definition::load(&path.to_string_lossy())?,
        None => Definition::empty("generate"),
    };
    if let Some((key, _)) = definition.lists().next() {
        return Err(Error::input(format!("--config {}: it is a sweep over {key}; a video has one value for each key", definition.name)));
    }
    let flags = [
        ("model", arguments.model.as_ref().map(|model| json!(model))),
        ("prompt", arguments.prompt.as_ref().map(|prompt| json!(prompt))),
        ("seed", arguments.seed.map(|seed| json!(seed))),
    ];
    flags.into_iter().filter_map(|(key, value)| Some((key, value?))).for_each(|(key, value)| definition.fix(key.into(), value));
    for (key, value) in cli::settings(&arguments.settings)? {
        definition.fix(key, value);
    }
    Ok(definition)
}

fn config(definition: &Definition, models: &Models, device: Device) -> Result<(Config, Vec<String>), Error> {
    let mut settings = Settings::default();
    for (key, value) in definition.fixed() {
        settings.set(key, value.clone()).map_err(|error| definition.refuse(&error))?;
    }
    // All steps of a video are run; for memory alone two are enough.
    let rules = Rules { device, may_shorten: true };
    if device != Device::Virtual && settings.steps_measured.is_some() {
        return Err(Error::input("steps_measured: a video needs all of its steps: leave it out, or set steps"));
    }
    resolve_one(&settings, models, rules, |error| definition.refuse(error))
}

/// Refuses an output that could not be written, before anything runs.
fn check_output(output: &Path) -> Result<(), Error> {
    let shown = output.display();
    if output.extension().is_none_or(|extension| extension != "gif") {
        return Err(Error::input(format!(
            "--output {shown}: only .gif can be written for now: name it {}",
            output.with_extension("gif").display()
        )));
    }
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::input(format!("--output {shown}: there is no folder {}: make it first", folder.display())));
    }
    if output.is_dir() {
        return Err(Error::input(format!("--output {shown}: that is a folder: name a file in it")));
    }
    Ok(())
}

/// Prints each stage, and what became of it all.
fn finish(record: &RunRecord, target: &Target, output: Option<&Path>) -> ExitCode {
    let mut table = table(&["stage", "time s", "peak allocated GiB", "peak reserved GiB", "peak device GiB"], &[1, 2, 3, 4]);
    for stage in &record.stages {
        let memory = |counter: fn(&engine_protocol::StageMemory) -> u64| reports::shown(stage.memory.as_ref().map(counter));
        table.add_row([
            stage.stage.name().to_owned(),
            stage.secs.map(|secs| format!("{secs:.2}")).unwrap_or_default(),
            memory(|m| m.peak_allocated_bytes),
            memory(|m| m.peak_reserved_bytes),
            memory(|m| m.peak_device_bytes),
        ]);
    }
    say!("{table}");
    let memory = record.memory_source.map_or("not there on the CPU", |source| source.name());
    let times = record.time_source.map_or("not modelled yet", |source| source.name());
    say!(
        "{} of {} steps, on {}: memory is {memory}, times are {times}",
        record.config.steps_to_run(),
        record.config.steps,
        record.device.name()
    );
    let error = record.error.as_deref().unwrap_or_default();
    match record.outcome {
        Outcome::Ok => {
            if let Some(output) = output {
                say!("Written: {}", output.display());
            }
            ExitCode::Done
        }
        Outcome::Oom => {
            let needed =
                reports::needed_bytes(record).map(|bytes| format!(", at least {:.2} GiB are needed", gib(bytes))).unwrap_or_default();
            let held = target.capacity_bytes.map(|bytes| format!(" of {:.2} GiB", gib(bytes))).unwrap_or_default();
            let stage = record.failed_stage.map_or("an unknown stage", |stage| stage.name());
            tell!("lowmem: out of memory in {stage}{held}{needed}: use a higher low_mem_level. {error}");
            ExitCode::NothingFits
        }
        other => {
            tell!("lowmem: {}: {error}", other.name());
            ExitCode::Fault
        }
    }
}

/// Shows how far the stage that runs is.
#[derive(Default)]
struct Watcher {
    progress: Option<Progress>,
}

impl Watcher {
    fn see(&mut self, event: &Event) {
        match event {
            Event::StageBegun { .. } => self.finish(),
            Event::Progress { stage, total, .. } => {
                let progress = self.progress.get_or_insert_with(|| Progress::new(*total as usize, stage.name()));
                progress.step();
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
