//! `lowmem autotune`: runs the candidates of a search and prints its answer. Which case is best is judged by the search.

use std::time::Duration;

use engine_protocol::{Config, Device, Outcome, RunRecord, gib, setting_text};
use reports::{Miss, Run, Summary};
use serde_json::{Value, json};

use super::{shell_line, sweep, warn_of_attention};
use crate::autotune::{Answer, Search, UnderRam, candidates, under_ram};
use crate::cli::{self, AutotuneArguments};
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::progress::Progress;
use crate::ram::wsl_said;
use crate::run_store::RunStore;
use crate::sweep::{Definition, Limits, Rules, Schedule, prepare};
use crate::testbed::Testbed;
use crate::worker::Launcher;

const NAME: &str = "autotune";
/// The model where none is named.
const MODEL: &str = "wan2.1-t2v-14b";
/// Settings that a command says even where they are the defaults.
const SAID: [&str; 5] = ["model", "resolution", "frames", "low_mem_level", "attn_type"];

/// Finds the best memory level for a budget.
pub(crate) fn run(arguments: AutotuneArguments) -> Result<ExitCode, Error> {
    let testbed = Testbed::choose(arguments.device.wanted())?;
    if testbed.device == Device::Cpu {
        return Err(Error::input("--device cpu: autotune looks for what fits a GPU: use --device virtual or cuda"));
    }
    let models = Models::load()?;
    let (cases, warnings) = candidates(NAME, fixed(&arguments)?, &models, Rules { device: testbed.device, may_shorten: true })?;
    let UnderRam { cases, nearest: short_of_ram } = under_ram(cases, &testbed, &models)?;
    warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    warn_of_attention(cases.iter().map(|case| &case.config), testbed.profile.as_ref());
    let limits = Limits {
        jobs: testbed.jobs(arguments.execution.jobs)?,
        case_timeout: Duration::from_secs(arguments.execution.case_timeout.into()),
    };
    let launcher = Launcher::find(testbed.device)?;
    let interrupt = Interrupt::listen()?;
    let mut manifest = sweep::manifest(&Definition::empty(NAME), &testbed, &models, &cases)?;
    // Which candidates will run is not known yet.
    manifest.cases.clear();
    let mut store = RunStore::create(arguments.execution.out.clone(), testbed.run_dir(&data::runs(), NAME), manifest)?;

    tell!("{}", testbed.choice);
    tell!("{}", testbed.ram.said);
    let schedule = Schedule::new(&testbed, &launcher, &models, limits, &interrupt);
    let (schedule, open, hopeless) = prepare(schedule, &cases.iter().collect::<Vec<_>>(), &[])?;
    store.add_cases(hopeless.iter().map(|record| record.case.clone()))?;
    hopeless.into_iter().try_for_each(|record| store.append(record))?;
    let progress = Progress::new(open.len(), "candidates at most").expecting(schedule.forecasts.secs_of_all(&open));
    let search = Search::new(open.into_iter().cloned().collect(), arguments.objective, testbed.capacity_bytes);
    let ran = run_search(&search, &schedule, &mut store, &progress);
    progress.finish();
    let run = store.run();
    let summary = Summary::of(&run);
    let written = store.write_report(&summary);
    ran.and(written)?;
    if interrupt.is_wanted() {
        tell!("Interrupted: there is no answer. What ran is in {}", store.dir().display());
        return Ok(ExitCode::Interrupted);
    }

    let mut answer = search.answer(&run);
    answer.short_of_ram = answer.short_of_ram.or(short_of_ram);
    if arguments.json {
        say!("{:#}", as_json(&answer, &run));
    } else {
        print(&answer, &summary, &search);
        say!("\nReport: {}", store.report().display());
    }
    Ok(exit_code(&answer, &run))
}

/// Runs candidates until more would not change the answer.
fn run_search(search: &Search, schedule: &Schedule<'_>, store: &mut RunStore, progress: &Progress) -> Result<(), Error> {
    loop {
        let batch = search.next(&store.run().records, schedule.limits.jobs);
        if batch.is_empty() || schedule.interrupt.is_wanted() {
            return Ok(());
        }
        store.add_cases(batch.iter().map(|case| case.name.clone()))?;
        schedule.run(&batch, progress, |record| store.append(record))?;
    }
}

/// What the arguments fix.
fn fixed(arguments: &AutotuneArguments) -> Result<Vec<(String, Value)>, Error> {
    let flags = [
        ("model", arguments.model.as_ref().map(|model| json!(model))),
        ("resolution", arguments.resolution.as_ref().map(|resolution| json!(resolution))),
        ("frames", arguments.frames.map(|frames| json!(frames))),
    ];
    let mut fixed: Vec<_> = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    fixed.extend(cli::settings(&arguments.settings)?);
    if fixed.iter().all(|(key, _)| key != "model") {
        fixed.push(("model".to_owned(), json!(MODEL)));
    }
    Ok(fixed)
}

fn exit_code(answer: &Answer<'_>, run: &Run) -> ExitCode {
    match (answer.best, answer.nearest) {
        (Some(_), _) => ExitCode::Done,
        // Without an answer from any case, that nothing fits is not known.
        (None, _) if !run.has_failures() && (!run.records.is_empty() || answer.short_of_ram.is_some()) => ExitCode::NothingFits,
        _ => ExitCode::CasesFailed,
    }
}

fn print(answer: &Answer<'_>, summary: &Summary<'_>, search: &Search) {
    let run = summary.run;
    summary.verdicts.iter().for_each(|verdict| say!("{}", verdict.subject()));
    say!("{}\n", summary.provenance);
    match (answer.best, &answer.nearest) {
        (Some(best), _) => {
            say!("Best: level {}", best.config.low_mem_level);
            describe(best, run);
            say!("  Run it: {}", command(&best.config, run));
            match answer.second {
                Some(second) => {
                    say!("\nSecond: level {}", second.config.low_mem_level);
                    describe(second, run);
                }
                None => say!("\nSecond: nothing else fits."),
            }
            say!("\n{}", search.ranking(summary.ranking));
            say!("{}", reports::counters());
            reports::steps_that_ran(best).iter().for_each(|said| say!("{said}"));
        }
        (None, nearest)
            if let Some((case, needed)) = &answer.short_of_ram
                && nearest.is_none() =>
        {
            let held = run.manifest.ram_bytes.map(|bytes| format!(", and there are {:.2}", gib(bytes))).unwrap_or_default();
            say!("Nothing fits the machine's memory (RAM): {case} takes least of it, {:.2} GiB{held}.", gib(*needed));
            say!("Try a machine with more memory, or a smaller model.");
        }
        (None, Some(miss)) => {
            say!(
                "Nothing fits into {}.",
                run.manifest.capacity_bytes.map_or_else(|| "the GPU".into(), |bytes| format!("{:.2} GiB", gib(bytes)))
            );
            say!("{}", reports::nearest(miss, run.manifest.capacity_bytes));
            say!("Try a smaller resolution, fewer frames, or a larger GPU.");
        }
        (None, None) if !run.has_failures() => say!("Nothing fits this machine."),
        (None, None) => say!("No candidate has an answer."),
    }
    // Where nothing fits as well: it may be the reason.
    if let Some(advice) = advice(answer, run) {
        say!("\nMind: {advice}.");
    }
    for record in run.records.iter().filter(|record| !record.outcome.is_lasting()) {
        say!("{}: {}: {}", record.case, record.outcome.name(), record.error.as_deref().unwrap_or_default());
    }
    if let Some(record) = run.records.iter().find(|record| record.outcome == Outcome::OomHost) {
        say!("{}: {}.", record.case, reports::host_remedies(record));
    }
}

/// What to change in the best case, or in the one that missed by least.
fn advice(answer: &Answer<'_>, run: &Run) -> Option<String> {
    let judged = answer.best.or(answer.nearest.as_ref().map(|miss| miss.record))?;
    judged.config.attention_advice(run.manifest.gpu.as_ref()?)
}

fn describe(record: &RunRecord, run: &Run) {
    let flags = reports::flags(run, &record.config);
    say!("  Flags: {}", if flags.is_empty() { "those of the level" } else { &flags });
    let settled = reports::settled(record);
    if !settled.is_empty() {
        say!("  Of these the machine chooses: {settled}");
    }
    reports::fit(record, run.manifest.capacity_bytes).iter().for_each(|said| say!("  {said}"));
    reports::fits_not(run, record).iter().for_each(|said| say!("  {said}"));
    if let Some(stage) = record.peak_stage() {
        let [allocated, reserved, device] =
            [record.peak_allocated_bytes(), record.peak_reserved_bytes(), record.peak_device_bytes()].map(reports::in_gib);
        say!("  Peak: {allocated} GiB allocated, {reserved} GiB reserved, {device} GiB device, in {}", stage.name());
    }
    reports::ram_in_words(record, run.manifest.ram_bytes).iter().for_each(|said| say!("  {said}"));
    wsl_said(record.host_pinned_peak_bytes.unwrap_or(0)).iter().for_each(|said| say!("  {said}"));
    say!("  {}", reports::duration(record).unwrap_or_else(|| "Time: not known".into()));
}

/// The command that makes a video with these settings: those that the level and the model do not give anyway.
fn command(config: &Config, run: &Run) -> String {
    let mut words: Vec<String> =
        ["lowmem", "generate", "--model", &config.model, "--prompt", &config.prompt, "--output", "video.mp4"].map(Into::into).into();
    let model = run.manifest.models.iter().find(|model| model.name == config.model);
    let fewest = model.map(|model| config.fewest_settings(run.manifest.device, model)).unwrap_or_default();
    let is_said = |key: &str| SAID.contains(&key) || fewest.iter().any(|(flag, _)| flag.key == key);
    let settings = reports::settings(config).into_iter().filter(|(key, _)| *key != "model" && is_said(key));
    words.extend(settings.map(|(key, value)| setting_text(key, &value)));
    shell_line(words)
}

fn as_json(answer: &Answer<'_>, run: &Run) -> Value {
    let case = |record: &RunRecord| {
        let settings = reports::settings(&record.config).into_iter().map(|(key, value)| (key.to_owned(), value));
        json!({
            "case": record.case,
            "low_mem_level": record.config.low_mem_level,
            "settings": settings.collect::<serde_json::Map<_, _>>(),
            "settled": reports::settled(record),
            "peak_allocated_bytes": record.peak_allocated_bytes(),
            "peak_reserved_bytes": record.peak_reserved_bytes(),
            "peak_device_bytes": record.peak_device_bytes(),
            "peak_stage": record.peak_stage(),
            "ram_peak_bytes": record.host_needed_bytes(),
            "ram_pinned_peak_bytes": record.host().or(record.predicted_host()).map(|host| host.pinned_peak_bytes),
            "ram_source": reports::ram_source(record),
            "memory_source": record.memory_source,
            "total_secs": record.total_secs(),
            "time_source": record.time_source,
            "command": command(&record.config, run),
        })
    };
    let nearest = |miss: Miss<'_>| json!({ "case": miss.record.case, "failed_stage": miss.record.failed_stage, "needed_bytes": miss.needed_bytes, "missing_bytes": miss.missing_bytes });
    json!({
        "gpu": run.manifest.gpu.as_ref().map(|gpu| &gpu.name),
        "device": run.manifest.device,
        "capacity_bytes": run.manifest.capacity_bytes,
        "ram_bytes": run.manifest.ram_bytes,
        "best": answer.best.map(case),
        "second": answer.second.map(case),
        "nearest_miss": answer.nearest.map(nearest),
        "short_of_ram": answer.short_of_ram.as_ref().map(|(case, needed)| json!({ "case": case, "needed_bytes": needed })),
        "advice": advice(answer, run),
    })
}
