//! `lowmem sweep`: runs the cases and prints what their summary says. It judges no case.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};

use engine_protocol::{Device, SCHEMA, parse_values};
use reports::{Manifest, Summary};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{command_line, quality, run_answer, slurm, warn_of_attention, weights, words_without};
use crate::cli::SweepArguments;
use crate::data;
use crate::disk;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::host;
use crate::interrupt::Interrupt;
use crate::json;
use crate::live::Live;
use crate::model::Models;
use crate::progress::{Progress, Reached};
use crate::quality::Videos;
use crate::run_store::RunStore;
use crate::sweep::{Case, Definition, Expanded, GPU, Rules, Schedule, Testbeds, expand, prepare, run_once};
use crate::testbed::Testbed;
use crate::web::Address;
use crate::worker::Launcher;

/// Combinations that came out the same and are named one by one.
const FEW_MERGED: usize = 10;
/// What is run where nothing is named.
const DEFAULT: &str = "default.yaml";

/// Runs every case of a definition and writes the report.
pub(crate) fn run(arguments: SweepArguments) -> Result<ExitCode, Error> {
    let mut definition = definition(&arguments)?;
    let files = arguments.files.named();
    if files.is_some() && (definition.fixed_value("model").is_some() || definition.is_varied("model")) {
        tell!("{}: the model is that of the weights that are named, and not the definition's.", definition.name);
        definition.forget("model");
    }
    let models = weights::models(files.as_ref(), &mut definition)?;
    if let Some(parts) = arguments.slurm {
        return slurm::write(&definition, &arguments, parts.into());
    }
    let testbeds = Testbeds::choose(&definition, arguments.device.wanted())?;
    let testbed = &testbeds.first;
    if arguments.quality {
        quality::refuse_virtual(testbed)?;
    }
    testbed.check_snapshot(arguments.snapshot)?;
    let Expanded { cases, merged, warnings } = expand(&definition, &models, Rules { device: testbed.device, may_shorten: true })?;
    let on = testbeds.with_cases(&definition, &cases)?;
    on.iter().for_each(|(testbed, cases)| warn_of_attention(cases.iter().map(|case| &case.config), testbed.profile.as_ref()));
    let (cases, left_out) = match &testbed.profile {
        // On the virtual GPU a case takes a second, and a table that has every name is worth that.
        Some(gpu) if testbed.device == Device::Cuda => run_once(cases, &models, gpu)?,
        _ => (cases, Vec::new()),
    };
    if arguments.dry_run {
        let name = &definition.name;
        if arguments.form.json {
            json::print(&DryRunJson::new(name, &cases, merged, left_out))?;
        } else {
            list(name, &cases, &merged, &left_out);
            say!("{}", time_said(testbed, cases.len(), testbed.jobs(arguments.execution.jobs)?));
        }
        return Ok(ExitCode::Done);
    }
    // What the run says of its definition is of all parts.
    let whole = testbeds.in_manifest(manifest(&definition, testbed, &models, &cases)?);
    let cases = match arguments.shard {
        Some(shard) => shard.of(cases),
        None => cases,
    };
    let limits = arguments.execution.limits(testbed)?;
    let launcher = Launcher::find(testbed.device)?;
    let interrupt = Interrupt::listen()?;
    let address = arguments.serve.wanted().map(Address::of_page).transpose()?;

    let manifest = Manifest { left_out: left_out.clone(), cases: cases.iter().map(|case| case.name.clone()).collect(), ..whole };
    let default = testbed.run_dir(&data::runs(), &definition.name);
    let mut store = match arguments.execution.out {
        Some(dir) if arguments.resume => RunStore::resume(dir, manifest, arguments.keep_both)?,
        out => RunStore::create(out, default, manifest)?,
    };
    let open: Vec<&Case> = cases.iter().filter(|case| !store.has_answer(&case.name, &case.config)).collect();
    warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    testbeds.choices().iter().for_each(|choice| tell!("{choice}"));
    tell!("{} cases, {} to run, {} at once. Results: {}", cases.len(), open.len(), limits.jobs, store.dir().display());

    left_out.iter().for_each(|said| tell!("{said}"));
    steps_said(testbed, &cases).iter().for_each(|said| tell!("{said}"));
    let live = address.map(|address| Live::start(address, store.dir(), interrupt, reached(cases.len(), open.len(), None))).transpose()?;
    let snapshots = arguments.snapshot.then(|| snapshots_in(store.dir())).transpose()?;
    let schedule = Schedule { gpus: &testbeds.several, snapshots, ..Schedule::new(testbed, &launcher, &models, limits, &interrupt) };
    let (schedule, open, hopeless) = prepare(schedule, &open, &store.run().records)?;
    hopeless.into_iter().try_for_each(|record| store.append(record))?;
    let progress = Progress::new(open.len(), "cases").expecting(schedule.forecasts.secs_of_all(&open));
    let ran = schedule.run(&open, &progress, |record| {
        store.append(record)?;
        live.iter().for_each(|live| live.reach(reached(cases.len(), open.len(), Some(&progress))));
        Ok(())
    });
    progress.finish();
    // The weights that cases shared go with it.
    drop(schedule);
    let measured = if arguments.quality && ran.is_ok() && !interrupt.is_wanted() {
        Videos::new(testbed, &launcher, &models, &interrupt).and_then(|mut videos| quality::measure(store.dir(), &store.run(), &mut videos))
    } else {
        Ok(ExitCode::Done)
    };
    // What is recorded gets its report, even where something went wrong.
    let run = store.run();
    let summary = Summary::of(&run);
    let written = store.write_report(&summary);
    // Why cases are missing is said before what that did to the report.
    ran.and(written)?;
    run_answer::tell(&summary, store.dir(), arguments.form)?;
    let measured = measured?;
    let code = if interrupt.is_wanted() && run.missing() > 0 {
        tell!("Interrupted: {} of {} cases have not run. Go on with:\n  {}", run.missing(), cases.len(), resume_line(store.dir()));
        ExitCode::Interrupted
    } else if run.has_failures() || measured != ExitCode::Done {
        ExitCode::CasesFailed
    } else {
        ExitCode::Done
    };
    if let Some(live) = live {
        live.end();
        // Elsewhere somebody waits for the sweep, and not for those who look at it.
        if stdout().is_terminal() {
            live.stay(interrupt);
        }
    }
    Ok(code)
}

/// The folder for memory snapshots of a run's cases. It is a whole path: cases run elsewhere.
fn snapshots_in(run: &Path) -> Result<PathBuf, Error> {
    let folder = run.join("snapshots");
    std::fs::create_dir_all(&folder).and_then(|()| folder.canonicalize()).map_err(|error| Error::io(&folder, error))
}

/// How far a sweep is: of so many cases, of which so many were to be run.
fn reached(cases: usize, to_run: usize, progress: Option<&Progress>) -> Reached {
    let before = (cases - to_run) as u64;
    match progress.map(Progress::reached) {
        Some(reached) => Reached { done: before + reached.done, total: cases as u64, ..reached },
        None => Reached { done: before, total: cases as u64, failed: 0, left: None },
    }
}

/// Prints what would run, and what came out the same.
fn list(name: &str, cases: &[Case], merged: &[(String, String)], left_out: &[String]) {
    cases.iter().for_each(|case| say!("{}", case.name));
    let plural = if cases.len() == 1 { "" } else { "s" };
    say!("\n{name}: {} case{plural}. Nothing was run.", cases.len());
    if !merged.is_empty() {
        say!("{} combinations come out the same as another, since a key means nothing there:", merged.len());
        merged.iter().take(FEW_MERGED).for_each(|(combination, case)| say!("  {combination} is {case}"));
        if merged.len() > FEW_MERGED {
            say!("  and {} more", merged.len() - FEW_MERGED);
        }
    }
    left_out.iter().for_each(|said| say!("{said}"));
}

/// How long a sweep takes, as far as that is known before.
fn time_said(testbed: &Testbed, cases: usize, jobs: usize) -> String {
    /// A rule, from the shipped sweeps on two cores: building and counting a case of 14B takes one to three.
    const SECS_A_CASE: usize = 2;
    match testbed.device {
        Device::Virtual => format!(
            "It takes some {}: about {SECS_A_CASE} s a case on the virtual GPU (a rule), {jobs} at once.",
            reports::rough_time((cases * SECS_A_CASE).div_ceil(jobs.max(1)) as f64)
        ),
        Device::Cuda => "How long it takes on this GPU is forecast on the virtual one, and said before the first case.".to_owned(),
        Device::Cpu => "How long it takes on this processor is not known before.".to_owned(),
    }
}

/// What would run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DryRunJson {
    sweep: String,
    /// Cases that would run, by name.
    cases: Vec<String>,
    /// Combinations that come out the same as another one.
    merged: Vec<Merged>,
    /// Cases that are left out since others are the same, in words.
    left_out: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Merged {
    combination: String,
    /// The case that it is.
    is: String,
}

impl DryRunJson {
    fn new(name: &str, cases: &[Case], merged: Vec<(String, String)>, left_out: Vec<String>) -> Self {
        let cases = cases.iter().map(|case| case.name.clone()).collect();
        let merged = merged.into_iter().map(|(combination, is)| Merged { combination, is }).collect();
        Self { sweep: name.to_owned(), cases, merged, left_out }
    }
}

/// How many sampler steps the cases on a real GPU run; nothing where they run all, and of other devices.
fn steps_said(testbed: &Testbed, cases: &[Case]) -> Option<String> {
    let config = cases.iter().map(|case| &case.config).find(|config| config.steps_measured.is_some())?;
    (testbed.device == Device::Cuda).then(|| {
        format!(
            "Of {} sampler steps {} are run: the first warms up and counts once, and the others stand for the rest. Cases that differ in how they decode alone share \
             them. steps_measured=all runs all in each case.",
            config.steps,
            config.steps_to_run()
        )
    })
}

/// The definition that the words name, with the keys that they fix, and the GPUs that are named beside it.
fn definition(arguments: &SweepArguments) -> Result<Definition, Error> {
    let (settings, names): (Vec<String>, Vec<String>) = arguments.words.iter().cloned().partition(|word| word.contains('='));
    let name = match names.as_slice() {
        [] => DEFAULT,
        [name] => name,
        [_, second, ..] => return Err(Error::input(format!("{second}: one sweep definition at a time; settings are written key=value"))),
    };
    let mut definition = Definition::load(name)?;
    for word in &settings {
        let (key, values) = parse_values(word)?;
        definition.give(key, values);
    }
    let gpus: Vec<Value> = arguments.device.gpu.iter().flat_map(|gpus| gpus.split(',')).map(|gpu| gpu.trim().into()).collect();
    if !gpus.is_empty() {
        definition.give(GPU.to_owned(), gpus);
    }
    Ok(definition)
}

/// What the run directory says about the run.
pub(crate) fn manifest(definition: &Definition, testbed: &Testbed, models: &Models, cases: &[Case]) -> Result<Manifest, Error> {
    let mut names: Vec<&str> = cases.iter().map(|case| case.config.model.as_str()).collect();
    names.dedup();
    let used = models.iter().filter(|model| names.contains(&model.name.as_str())).cloned().collect();
    Ok(Manifest {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").into(),
        begun: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        command_line: command_line(),
        sweep: definition.name.clone(),
        definition: definition.text.clone(),
        device: testbed.device,
        gpu: testbed.profile.clone(),
        choice: testbed.choice.clone(),
        capacity_bytes: testbed.capacity_bytes,
        smaller: testbed.smaller.clone(),
        memory_limit_bytes: testbed.memory_limit_bytes,
        gpus: Vec::new(),
        ram_bytes: testbed.ram.bytes,
        ram: Some(testbed.ram.said.clone()),
        disk: disk::said(testbed),
        allows_lossy: false,
        models: used,
        values: values(cases),
        mixed: Vec::new(),
        left_out: Vec::new(),
        cases: cases.iter().map(|case| case.name.clone()).collect(),
        host: host::describe(),
    })
}

/// The values that each flag has over the cases, in the order in which they come.
fn values(cases: &[Case]) -> BTreeMap<String, Vec<Value>> {
    let mut values = BTreeMap::<String, Vec<Value>>::new();
    for (flag, value) in cases.iter().flat_map(|case| case.config.settings()) {
        let known = values.entry(flag.key.to_owned()).or_default();
        if !known.contains(&value) {
            known.push(value);
        }
    }
    values
}

/// The command that goes on with the run in `dir`.
fn resume_line(dir: &Path) -> String {
    let words = words_without(&["--out"]).into_iter().filter(|word| word != "--resume");
    let resumed = ["--out".into(), dir.display().to_string(), "--resume".into()];
    reports::shell_line(["lowmem".to_owned()].into_iter().chain(words).chain(resumed))
}
