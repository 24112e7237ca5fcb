//! `lowmem autotune`: runs the candidates of a search and prints its answer. Which case is best is judged by the search.

use engine_protocol::{Config, Device, Outcome, RunRecord, gib, told};
use reports::{Miss, Need, Run, Summary};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{one_video, sweep, warn_of_attention, weights};
use crate::autotune::{
    Answers, Objective, Predicted, Rule, Search, WouldFit, faster_and_lossy, ladders, least_ram, of_best_splits, predicted, rule_in_words,
    smallest, would_fit,
};
use crate::cli::AutotuneArguments;
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::json::{self, CaseJson, MissJson};
use crate::progress::Progress;
use crate::ram::wsl_said;
use crate::rank_plans::RankGpus;
use crate::run_store::RunStore;
use crate::shares;
use crate::splits;
use crate::sweep::{Case, Definition, Rules, Schedule, prepare};
use crate::testbed::Testbed;
use crate::worker::{self, Launcher};

const NAME: &str = "autotune";
/// Finds the best settings for a budget.
pub(crate) fn run(arguments: AutotuneArguments) -> Result<ExitCode, Error> {
    let testbed = Testbed::for_ranks(arguments.device.wanted())?;
    if testbed.device == Device::Cpu {
        return Err(Error::input("--device cpu: autotune looks for what fits a GPU: use --device virtual or cuda"));
    }
    let launcher = Launcher::find(testbed.device)?;
    let mut definition = definition(&arguments, &testbed)?;
    let models = weights::models(arguments.files.named().as_ref(), &mut definition)?;
    let rules = Rules { device: testbed.device, may_shorten: true };
    let rule = Rule { objective: arguments.objective, deadline_secs: arguments.deadline.map(|time| time.as_secs_f64()) };
    let fixed = one_video::with_model(&definition);
    let on = RankGpus::of(&testbed);
    let ways = splits::to_search(&definition, arguments.gpus.wanted(on.named())?, &on)?;
    let (ladders, warnings) = ladders(NAME, &fixed, &models, rules, arguments.allow_lossy, &ways)?;
    // Another program in the worker's place predicts nothing.
    let ladders = predicted(ladders, &testbed, &models, !launcher.is_replaced())?;
    let ladders = of_best_splits(ladders);
    let search = Search::new(&ladders);
    warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    let judged = ladders.iter().flatten().map(|predicted| &predicted.rung.case.config);
    warn_of_attention(judged, testbed.profile.as_ref());
    let limits = arguments.execution.limits(&testbed)?;
    let interrupt = Interrupt::listen()?;
    // The case that misses by least is run too where nothing may fit: it says by how much.
    let least = smallest(ladders.iter().flatten()).filter(|_| search.is_hopeless()).map(|predicted| predicted.rung.case.clone());
    let first: Vec<&Case> = search.first().into_iter().chain(&least).collect();
    let mut manifest =
        sweep::manifest(&Definition::empty(NAME), &testbed, &models, &first.iter().map(|&case| case.clone()).collect::<Vec<_>>())?;
    // Which candidates will run is not known yet.
    manifest.cases.clear();
    manifest.allows_lossy = arguments.allow_lossy;
    let mut store = RunStore::create(arguments.execution.out.clone(), testbed.run_dir(&data::runs(), NAME), manifest)?;

    tell!("{}", testbed.choice);
    tell!("{}", testbed.ram.said);
    let schedule = Schedule::new(&testbed, &launcher, &models, limits, &interrupt);
    let (schedule, open, hopeless) = prepare(schedule, &first, &[])?;
    store.add_cases(hopeless.iter().map(|record| record.case.clone()))?;
    hopeless.into_iter().try_for_each(|record| store.append(record))?;
    let progress = Progress::new(open.len(), "candidates").expecting(schedule.forecasts.secs_of_all(&open));
    let mut ran = run_search(&search, least.as_ref(), &schedule, &mut store, &progress);
    if let (Ok(()), true) = (&ran, arguments.allow_lossy) {
        ran = run_lossy(&ladders, &fixed, &schedule, rules, &mut store, &progress);
    }
    progress.finish();
    let run = store.run();
    let summary = Summary::of(&run);
    let written = store.write_report(&summary);
    ran.and(written)?;
    if interrupt.is_wanted() {
        tell!("Interrupted: there is no answer. What ran is in {}", store.dir().display());
        return Ok(ExitCode::Interrupted);
    }

    let answers = Answers::of(&run, rule);
    let nothing = answers.best().is_none().then(|| nothing_fits(&ladders, &schedule, rules, &run)).transpose()?.unwrap_or_default();
    let told = Told { answers: &answers, nothing: &nothing, run: &run, rule: rule_in_words(summary.ranking, rule, arguments.allow_lossy) };
    if arguments.json {
        json::print(&told.as_json())?;
    } else {
        print(&told, &summary);
        say!("\nReport: {}", store.report().display());
    }
    Ok(exit_code(&told))
}

/// Runs candidates until each placement has one that fits, or none.
fn run_search(
    search: &Search,
    least: Option<&Case>,
    schedule: &Schedule<'_>,
    store: &mut RunStore,
    progress: &Progress,
) -> Result<(), Error> {
    let has_run = |store: &RunStore, case: &Case| store.records().iter().any(|record| record.case == case.name);
    if let Some(case) = least.filter(|case| !has_run(store, case)) {
        store.add_cases([case.name.clone()])?;
        schedule.run(&[case], progress, |record| store.append(record))?;
    }
    loop {
        let batch = search.next(store.records());
        if batch.is_empty() || schedule.interrupt.is_wanted() {
            return Ok(());
        }
        store.add_cases(batch.iter().map(|case| case.name.clone()))?;
        schedule.run(&batch, progress, |record| store.append(record))?;
    }
}

/// Runs what is faster than the fastest and gives up quality.
fn run_lossy(
    ladders: &[Vec<Predicted>],
    fixed: &[(String, Value)],
    schedule: &Schedule<'_>,
    rules: Rules,
    store: &mut RunStore,
    progress: &Progress,
) -> Result<(), Error> {
    // Another program in the worker's place predicts nothing.
    if schedule.launcher.is_replaced() {
        return Ok(());
    }
    let fastest = reports::ranked(store.records().iter(), true).first().map(|record| record.case.clone());
    let Some(fastest) = ladders.iter().flatten().find(|predicted| Some(&predicted.rung.case.name) == fastest.as_ref()) else {
        return Ok(());
    };
    let cases = faster_and_lossy(&fastest.rung.case, fixed, schedule.testbed, schedule.models, rules)?;
    if cases.is_empty() || schedule.interrupt.is_wanted() {
        return Ok(());
    }
    store.add_cases(cases.iter().map(|case| case.name.clone()))?;
    schedule.run(&cases.iter().collect::<Vec<_>>(), progress, |record| store.append(record))
}

/// What there is to say where nothing fits.
#[derive(Default)]
struct NothingFits {
    /// What the case that needs least of the GPU really needs, with its name.
    needed: Option<(String, u64)>,
    /// Where the machine's memory holds nothing: what takes least of it, and how much.
    short_of_ram: Option<(String, u64)>,
    would_fit: WouldFit,
}

fn nothing_fits(ladders: &[Vec<Predicted>], schedule: &Schedule<'_>, rules: Rules, run: &Run) -> Result<NothingFits, Error> {
    let (testbed, models) = (schedule.testbed, schedule.models);
    let Some(least) = smallest(ladders.iter().flatten()) else {
        let short_of_ram =
            least_ram(ladders.iter().flatten()).and_then(|least| Some((least.rung.case.name.clone(), least.need?.ram_bytes)));
        return Ok(NothingFits { short_of_ram, ..NothingFits::default() });
    };
    if run.records.iter().any(|record| record.outcome == Outcome::Ok) {
        return Ok(NothingFits::default());
    }
    Ok(NothingFits {
        needed: really_needs(&least.rung.case, schedule)?.map(|bytes| (least.rung.case.name.clone(), bytes)),
        short_of_ram: None,
        would_fit: would_fit(&least.rung.case, testbed, models, rules)?,
    })
}

/// What a case needs of the GPU, as a virtual one of that kind with memory without end counts it.
fn really_needs(case: &Case, schedule: &Schedule<'_>) -> Result<Option<u64>, Error> {
    let Some(mut endless) = schedule.testbed.without_end() else { return Ok(None) };
    endless.ram.bytes = None;
    let launcher = Launcher::find(Device::Virtual)?;
    let model = schedule.models.get(&case.config.model)?;
    let request_of = |config: &Config| endless.request(&case.name, model, config, schedule.host_rates.clone());
    let settled = shares::settled(case.config.clone(), &RankGpus::of(&endless), |config| Ok(request_of(config)))?;
    let request = request_of(&settled);
    let record = worker::run_case(&launcher, &endless, &request, schedule.limits.patience(), schedule.interrupt, &mut |_| {})?;
    Ok(record.filter(|record| record.outcome == Outcome::Ok).and_then(|record| record.peak_device_bytes()))
}

/// What the arguments fix.
fn definition(arguments: &AutotuneArguments, testbed: &Testbed) -> Result<Definition, Error> {
    let capacity = testbed.capacity_bytes.map(gib).unwrap_or_default();
    let kept = arguments.margin.map(|share| share * capacity).into_iter().chain(arguments.reserve).reduce(|all, more| all + more);
    let kept = kept.map(|gib| ("reserve_gib", "reserve", Value::from((gib * 100.0).ceil() / 100.0)));
    one_video::definition(NAME, &arguments.video, kept.as_slice(), &arguments.settings)
}

/// What is printed.
struct Told<'a> {
    answers: &'a Answers<'a>,
    nothing: &'a NothingFits,
    run: &'a Run,
    /// By what the answers were chosen.
    rule: String,
}

impl<'a> Told<'a> {
    /// Where nothing fits, the case that missed by least.
    fn nearest(&self) -> Option<Miss<'a>> {
        let is_open = self.answers.best().is_none() && self.answers.too_slow.is_none();
        is_open.then(|| reports::nearest_miss(self.run.records.iter(), self.run.manifest.capacity_bytes)).flatten()
    }

    /// Where the machine's memory holds nothing that the GPU holds, what takes least of it.
    fn short_of_ram(&self) -> Option<(String, u64)> {
        let ran =
            || reports::nearest_by_ram(self.run.records.iter()).and_then(|record| Some((record.case.clone(), record.host_needed_bytes()?)));
        if self.answers.best().is_some() || self.answers.too_slow.is_some() { None } else { self.nothing.short_of_ram.clone().or_else(ran) }
    }
}

fn exit_code(told: &Told<'_>) -> ExitCode {
    let is_answered = !told.run.records.is_empty() || told.short_of_ram().is_some();
    match told.answers.best() {
        Some(_) => ExitCode::Done,
        None if told.answers.too_slow.is_some() => ExitCode::NothingFits,
        // Without an answer from any case, that nothing fits is not known.
        None if !told.run.has_failures() && is_answered => ExitCode::NothingFits,
        None => ExitCode::CasesFailed,
    }
}

fn print(told: &Told<'_>, summary: &Summary<'_>) {
    let (run, answers) = (told.run, told.answers);
    summary.verdicts.iter().for_each(|verdict| say!("{}", verdict.subject()));
    say!("{}\n", summary.provenance);
    match answers.best() {
        Some(best) => print_answers(told, best),
        None => print_nothing(told),
    }
    // Where nothing fits as well: it may be the reason.
    if let Some(advice) = advice(told) {
        say!("\nMind: {advice}.");
    }
    for record in run.records.iter().filter(|record| !record.outcome.is_lasting()) {
        say!("{}: {}: {}", record.case, record.outcome.name(), record.error.as_deref().unwrap_or_default());
    }
    if let Some(record) = run.records.iter().find(|record| record.outcome == Outcome::OomHost) {
        say!("{}: {}.", record.case, reports::host_remedies(record));
    }
}

fn print_answers(told: &Told<'_>, best: &RunRecord) {
    let run = told.run;
    for (objective, record) in &told.answers.found {
        let recommended = if record.case == best.case && told.answers.found.len() > 1 { ", recommended" } else { "" };
        say!("{}{recommended}: level {}{}", objective.title(), record.config.low_mem_level, reports::on_gpus(&record.config));
        describe(record, run);
        say!("  Run it: {}\n", command(record, run));
    }
    let missing = [Objective::Speed, Objective::Balanced, Objective::Memory].into_iter();
    let missing: Vec<_> =
        missing.filter(|objective| told.answers.found.iter().all(|(found, _)| found != objective)).map(Objective::title).collect();
    if !missing.is_empty() && best.total_secs().is_some() {
        say!("{}: as above, or the same with another tile.\n", missing.join(" and "));
    }
    say!("{}", told.rule);
    say!("{}", reports::counters());
    reports::steps_that_ran(best).iter().for_each(|said| say!("{said}"));
}

fn print_nothing(told: &Told<'_>) {
    let run = told.run;
    let capacity = run.manifest.capacity_bytes;
    if let Some(fastest) = told.answers.too_slow {
        say!("Nothing makes the deadline. The fastest:");
        describe(fastest, run);
        say!("Try fewer frames, a smaller size, fewer steps, or a faster GPU: `lowmem gpus` lists them.");
        return;
    }
    match (told.nearest(), told.short_of_ram()) {
        (Some(miss), _) => {
            say!("Nothing fits into {}.", reports::room(miss.record, capacity).unwrap_or_else(|| "the GPU".into()));
            match &told.nothing.needed {
                Some((case, needed)) => say!("{case} needs least: {:.2} GiB (virtual).", gib(*needed)),
                None => say!("{}", reports::nearest(&miss, capacity)),
            }
            say!(
                "{}",
                told.nothing.would_fit.in_words().unwrap_or_else(|| "Try a smaller resolution, fewer frames, or a larger GPU.".into())
            );
        }
        (None, Some((case, needed))) => {
            let held = run.manifest.ram_bytes.map(|bytes| format!(", and there are {:.2}", gib(bytes))).unwrap_or_default();
            say!("Nothing fits the machine's memory (RAM): {case} takes least of it, {:.2} GiB{held}.", gib(needed));
            say!("Try a machine with more memory, or a smaller model.");
        }
        (None, None) if !run.has_failures() => say!("Nothing fits this machine."),
        (None, None) => say!("No candidate has an answer."),
    }
}

/// What to change in the best case, or in the one that missed by least.
fn advice(told: &Told<'_>) -> Option<String> {
    let judged = told.answers.best().or(told.answers.too_slow).or(told.nearest().map(|miss| miss.record))?;
    judged.config.attention_advice(told.run.manifest.gpu.as_ref()?)
}

fn describe(record: &RunRecord, run: &Run) {
    let flags = reports::flags(run, &record.config);
    say!("  Flags: {}", if flags.is_empty() { "those of the level" } else { &flags });
    let settled = reports::settled(record);
    if !settled.is_empty() {
        say!("  Of these the machine chooses: {settled}");
    }
    if let Some(lossy) = lossy(record) {
        say!("  It gives up quality for that: {lossy}");
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

/// Which of its flags give up quality, without what says how a cache does it; none where nothing does.
fn lossy(record: &RunRecord) -> Option<String> {
    let exact = reports::settings(&record.config.exact()?);
    let differ =
        reports::settings(&record.config).into_iter().filter(|setting| !exact.contains(setting) && !setting.0.starts_with("flexcache_"));
    let said: Vec<String> = differ.map(|(key, value)| format!("{key}={}", told(&value))).collect();
    Some(said.join(", "))
}

/// The command that makes a video with the settings of that case.
fn command(record: &RunRecord, run: &Run) -> String {
    reports::generate_line(record, run.manifest.device, run.manifest.models.iter().find(|model| model.name == record.config.model))
}

/// The answers of a search.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AutotuneJson {
    gpu: Option<String>,
    device: Device,
    /// What the GPU or the budget holds.
    capacity_bytes: Option<u64>,
    /// What the machine's memory may hold; null where it is taken to be without limit.
    ram_bytes: Option<u64>,
    /// The one to use, by --objective; null where nothing fits.
    best: Option<CaseJson>,
    fastest: Option<CaseJson>,
    /// Null where it is as one of the others.
    balanced: Option<CaseJson>,
    /// Null where it is as one of the others.
    smallest: Option<CaseJson>,
    /// By what they were chosen.
    rule: String,
    /// Where cases fit and none makes the --deadline, the fastest.
    too_slow: Option<CaseJson>,
    /// Where nothing fits the GPU, what needs least of it.
    nearest_miss: Option<MissJson>,
    would_fit: WouldFit,
    /// Where nothing fits the machine's memory, what takes least of it.
    short_of_ram: Option<ShortOfRam>,
    /// What to mind.
    advice: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ShortOfRam {
    case: String,
    needed_bytes: u64,
}

impl Told<'_> {
    fn as_json(&self) -> AutotuneJson {
        let manifest = &self.run.manifest;
        let case = |record: &RunRecord| {
            let model = manifest.models.iter().find(|model| model.name == record.config.model);
            CaseJson::new(record, manifest.device, model)
        };
        let of = |objective| self.answers.found.iter().find(|(other, _)| *other == objective).map(|(_, record)| case(record));
        let nearest = |miss: Miss<'_>| {
            let known = self.nothing.needed.as_ref();
            let need = known.map_or(miss.need, |(_, bytes)| Need { bytes: *bytes, is_whole: true });
            let told = MissJson::new(miss.record, need, manifest.capacity_bytes);
            MissJson { case: known.map_or(told.case, |(case, _)| case.clone()), ..told }
        };
        AutotuneJson {
            gpu: manifest.gpu.as_ref().map(|gpu| gpu.name.clone()),
            device: manifest.device,
            capacity_bytes: manifest.capacity_bytes,
            ram_bytes: manifest.ram_bytes,
            best: self.answers.best().map(case),
            fastest: of(Objective::Speed),
            balanced: of(Objective::Balanced),
            smallest: of(Objective::Memory),
            rule: self.rule.clone(),
            too_slow: self.answers.too_slow.map(case),
            nearest_miss: self.nearest().map(nearest),
            would_fit: self.nothing.would_fit.clone(),
            short_of_ram: self.short_of_ram().map(|(case, needed_bytes)| ShortOfRam { case, needed_bytes }),
            advice: advice(self),
        }
    }
}
