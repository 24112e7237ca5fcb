//! `lowmem profile`: where the time of one configuration goes, and what holds it up.

use engine_protocol::{Device, OperationTiming, Outcome, Request, RunRecord, Secs, WorkKind};
use reports::{Breakdown, OperationRow, time, time_with_range};

use super::{check_kernels, one_video, table, warn_of_attention};
use crate::cli::ProfileArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::json;
use crate::model::Models;
use crate::rank_plans::RankGpus;
use crate::shares;
use crate::sweep::{Rules, resolve};
use crate::testbed::Testbed;
use crate::worker::{self, Launcher, Patience};
use crate::{disk, host_rates};

/// So many sampler steps are run where nothing is said: in the second one everything is as in all others.
const STEPS: u32 = 2;
/// So many operations have a row of their own.
const ROWS: usize = 16;

/// Runs the case and prints its breakdown.
pub(crate) fn run(arguments: &ProfileArguments) -> Result<ExitCode, Error> {
    let testbed = Testbed::for_ranks(arguments.device.wanted())?;
    if testbed.device == Device::Cpu {
        return Err(Error::input("--device cpu: operations are timed on a GPU, real or virtual: name one with --gpu"));
    }
    let models = Models::load()?;
    let definition = one_video::definition("profile", &arguments.video, &[], &arguments.settings)?;
    let mut settings = one_video::settings(&definition)?;
    if settings.steps_measured.is_none() && settings.steps.is_none_or(|steps| steps >= STEPS) {
        settings.steps_measured = Some(STEPS.into());
    }
    let (config, warnings) =
        resolve(&settings, &models, Rules { device: testbed.device, may_shorten: true }, |error| definition.refuse(error))?;
    warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    check_kernels(&config, &testbed)?;
    warn_of_attention([&config], testbed.profile.as_ref());
    let launcher = Launcher::find(testbed.device)?;
    let interrupt = Interrupt::listen()?;
    tell!("{}", testbed.choice);

    let host_rates = host_rates::for_cases(&testbed, &launcher, [&config]);
    disk::say_where_assumed(testbed.disk, disk::is_modelled(&testbed, &config));
    let model = models.get(&config.model)?;
    testbed.of_each_rank(config.split().ranks() as usize)?;
    let settled = shares::settled(config.clone(), &RankGpus::of(&testbed), |config| Ok(testbed.request("shares", model, config, None)))?;
    shares::in_words(&config, &settled).iter().for_each(|said| tell!("{said}"));
    let request = Request {
        host_limit_bytes: testbed.ram.bytes,
        operation_times: Some(OperationTiming { trace: arguments.trace.clone() }),
        ..testbed.request("profile", model, &settled, host_rates)
    };
    let Some(record) = worker::run_case(&launcher, &testbed, &request, Patience::default(), &interrupt, &mut |_| {})? else {
        tell!("interrupted: nothing was measured");
        return Ok(ExitCode::Interrupted);
    };
    let record = shares::as_asked(record, &config);
    if record.outcome != Outcome::Ok {
        let error = record.error.as_deref().unwrap_or("the worker did not say why");
        tell!("lowmem: {} in {}: {error}", record.outcome.name(), record.failed_stage.map_or("an unknown stage", |stage| stage.name()));
        if record.outcome == Outcome::OomHost {
            tell!("{}.", reports::host_remedies(&record));
        }
        return Ok(if record.outcome.is_answer() { ExitCode::NothingFits } else { ExitCode::CasesFailed });
    }
    if arguments.json {
        json::print(&record)?;
        return Ok(ExitCode::Done);
    }
    let breakdown =
        reports::breakdown(&record, testbed.profile.as_ref()).ok_or_else(|| Error::Fault("a stage's time is not known".into()))?;
    print(&record, &breakdown);
    if let Some(trace) = &arguments.trace {
        say!("Trace: {} (open it at ui.perfetto.dev)", trace.display());
    }
    Ok(ExitCode::Done)
}

fn print(record: &RunRecord, breakdown: &Breakdown) {
    let config = &record.config;
    let total = breakdown.total.expected;
    let share = |secs: f64| format!("{:.1}%", secs / total * 100.0);
    say!(
        "{} at {}, {} frames, level {}{}: {}\n",
        config.model,
        config.resolution,
        config.frames,
        config.low_mem_level,
        reports::on_gpus(config),
        time_with_range(breakdown.total)
    );

    let is_split = !record.ranks.is_empty();
    let titles = ["model", "time", "of all", "waits for copies", "waits for the host", "waits for other GPUs"];
    let count = if is_split { titles.len() } else { titles.len() - 1 };
    let mut models = table(&titles[..count], &(1..count).collect::<Vec<_>>());
    for model in &breakdown.models {
        let secs = model.secs.expected;
        let waits = [model.stalled_secs.expected, model.idle_secs, model.ranks_secs.expected].map(time);
        models.add_row([model.name().to_owned(), time(secs), share(secs)].into_iter().chain(waits).take(count));
    }
    say!("{models}\n");
    if is_split {
        print_ranks(record);
    }

    let titles = ["operation", "kind", "type", "model", "calls", "time", "of all", "operations", "bytes", "rate", "of peak", "bound by"];
    let mut rows = table(&titles, &[4, 5, 6, 7, 8, 9, 10]);
    for row in breakdown.operations.iter().take(ROWS) {
        rows.add_row(cells(row, &share));
    }
    say!("{rows}");
    let rest = breakdown.operations.get(ROWS..).unwrap_or_default();
    if !rest.is_empty() {
        let secs: f64 = rest.iter().filter(|row| row.sum.kind != WorkKind::Copy).map(|row| row.sum.secs.expected).sum();
        say!("{} more take {} together; --json has all.", rest.len(), time(secs));
    }
    let source = record.time_source.map_or("", |source| source.name());
    say!("Times are {source}. Copies to the device go on beside arithmetic: the first table says how long it waits for them.");
    reports::steps_that_ran(record).iter().for_each(|said| say!("{said}"));
    say!("\n{}", breakdown.advice);
}

/// What each rank took for the steps that ran. All else is of the first one.
fn print_ranks(record: &RunRecord) {
    let mut ranks = table(&["rank", "GPU", "steps that ran", "sends and gets", "waits for slower ones", "peak device GiB"], &[2, 3, 4, 5]);
    let of = |secs: Option<Secs>| secs.map(|secs| time(secs.expected)).unwrap_or_default();
    for (number, rank) in record.ranks.iter().enumerate() {
        ranks.add_row([
            number.to_string(),
            rank.gpu.clone().unwrap_or_default(),
            of(rank.denoise_secs),
            of(rank.exchange_secs),
            of(rank.waiting_secs),
            reports::in_gib(rank.peak_device_bytes),
        ]);
    }
    say!("{ranks}\nWhat stands above and below is of rank 0, which alone encodes, and puts the video together.\n");
}

fn cells(row: &OperationRow, share: &impl Fn(f64) -> String) -> [String; 12] {
    let sum = &row.sum;
    let is_copy = sum.kind == WorkKind::Copy;
    let per_sec = if sum.operations > 0.0 && row.rate > 0.0 && row.bound != Some(reports::Bound::Memory) { "op/s" } else { "B/s" };
    [
        sum.name.trim_start_matches("aten::").to_owned(),
        sum.kind.name().to_owned(),
        if is_copy { "" } else { sum.dtype.name() }.to_owned(),
        reports::model_in(row.stage).to_owned(),
        sum.calls.to_string(),
        time(sum.secs.expected),
        if is_copy { String::new() } else { share(sum.secs.expected) },
        if sum.operations > 0.0 { in_units(sum.operations, "") } else { String::new() },
        in_units(sum.bytes, "B"),
        in_units(row.rate, per_sec),
        row.share_of_peak.map(|share| format!("{:.0}%", share * 100.0)).unwrap_or_default(),
        row.bound.map(|bound| bound.name().to_owned()).unwrap_or_default(),
    ]
}

/// With three digits and a decimal prefix.
fn in_units(amount: f64, unit: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E"];
    let step = ((amount.max(1.0).log10() / 3.0) as usize).min(prefixes.len() - 1);
    let scaled = amount / 1000_f64.powi(step as i32);
    let decimals = if scaled < 10.0 { 2 } else { usize::from(scaled < 100.0) };
    format!("{scaled:.decimals$} {}{unit}", prefixes[step]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_three_digits() {
        let shown =
            [(0.0, "B"), (999.0, "B"), (1.5e3, "op/s"), (1.652e14, "op/s"), (2.0e21, "")].map(|(amount, unit)| in_units(amount, unit));
        assert_eq!(shown, ["0.00 B", "999 B", "1.50 kop/s", "165 Top/s", "2000 E"]);
    }
}
