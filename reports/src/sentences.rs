//! What a run says, in sentences: whether a case fits, how long it takes, by what cases are ranked, and where the figures come from.
//!
//! It judges nothing: the verdicts are made before.

use engine_protocol::{CacheUse, Device, GpuProfile, Outcome, RunRecord, Secs, Source, gib};

use crate::advice::{level_and_flags, on_fullest};
use crate::ram::{self, ram_in_words};
use crate::run::Run;
use crate::verdict::{Miss, Verdict, is_lossy, total_secs};
use crate::words::{time, time_with_range};

/// By what cases are ranked.
pub(crate) fn ranking(run: &Run) -> &'static str {
    if !run.manifest.allows_lossy && run.records.iter().any(is_lossy) && !run.records.iter().all(is_lossy) {
        "What gives up no quality comes first (no cache of sampler steps, nothing in fewer bits). Then the fastest wins; within 1% we prefer the lower level, then less memory."
    } else if run.records.iter().any(|record| total_secs(record).is_some()) {
        "Fastest wins. Within 1% we prefer the lower level, then less memory."
    } else {
        "No times are known, and we take lower levels to be faster: the lowest level that fits wins."
    }
}

/// What the memory figures and the times are, and where they come from.
pub(crate) fn provenance(run: &Run) -> String {
    let named = |gpu: &GpuProfile| format!("{} ({})", gpu.name, gpu.title);
    let several: Vec<String> = run.manifest.gpus.iter().map(|gpu| named(&gpu.profile)).collect();
    let gpu = run.manifest.gpu.as_ref().map(named).or_else(|| (!several.is_empty()).then(|| several.join(", ")));
    let timed = run.records.iter().any(|record| record.time_source.is_some());
    match run.manifest.device {
        Device::Virtual => format!(
            "Virtual GPU{} {}: PyTorch's allocator counts the memory, nothing is computed, and times are {}.",
            if several.is_empty() { "" } else { "s" },
            gpu.unwrap_or_default(),
            if timed { "estimated" } else { "not known" }
        ),
        Device::Cuda => {
            let name = run.records.iter().find_map(|record| record.device_name.clone()).or(gpu).unwrap_or_default();
            format!("Real GPU {name}: memory and times are measured.")
        }
        Device::Cpu => "CPU: times are measured, and no GPU memory is used.".into(),
    }
}

/// That a run lacks cases: what the others say is no answer yet.
pub(crate) fn no_answer_yet(run: &Run) -> String {
    format!("No answer yet: {} of {} not run.", run.missing(), run.manifest.cases.len())
}

/// What to use for one model and resolution, or by how much nothing fits; of a run that lacks cases, what is known so far.
pub(crate) fn sentence(run: &Run, verdict: &Verdict<'_>) -> String {
    let subject = verdict.subject();
    let nothing_fits = if run.missing() == 0 { "nothing fits" } else { "none that ran fits" };
    if let Some(best) = verdict.best {
        let says = [fit(best, run.capacity_of(best)), fits_not(run, best), ram_in_words(best, run.manifest.ram_bytes), duration(best)]
            .into_iter()
            .flatten()
            .map(|said| format!(" {said}."));
        return format!("{subject}: {}.{}", level_and_flags(run, &best.config), says.collect::<String>());
    }
    if let Some(short) = verdict.short_of_ram {
        return format!("{subject}: {nothing_fits}. {}", ram::nearest(run, short));
    }
    match &verdict.nearest {
        Some(miss) => format!("{subject}: {nothing_fits}. {}", nearest(miss, run.capacity_of(miss.record))),
        None => match verdict.records.iter().find(|record| record.outcome == Outcome::OomHost) {
            Some(short) => format!(
                "{subject}: {nothing_fits} this machine. In {} {}.",
                short.case,
                short.error.as_deref().unwrap_or("the machine's own memory ran out")
            ),
            None => format!("{subject}: no case has an answer."),
        },
    }
}

/// The case to use for all models and resolutions.
pub(crate) fn for_all(run: &Run, chosen: &RunRecord) -> String {
    format!("For all of them: {}.", level_and_flags(run, &chosen.config))
}

/// `Fits: 2.12 of 23.65 GiB (virtual)`; nothing where no memory was counted.
pub fn fit(record: &RunRecord, capacity_bytes: Option<u64>) -> Option<String> {
    let usable = capacity_bytes.map(|bytes| record.config.usable_of(bytes));
    Some(format!("Fits: {} ({})", taken(record, usable, 2)?, source(record)))
}

/// `2.12 of 23.65 GiB`: what a case took of the GPU, and what there was, where that is known. Of several GPUs it is the fullest one's, and where they hold different amounts each one's.
pub fn taken(record: &RunRecord, capacity_bytes: Option<u64>, digits: usize) -> Option<String> {
    let said = |bytes: u64, held: Option<u64>| {
        let held = held.map(|bytes| format!(" of {:.digits$}", gib(bytes))).unwrap_or_default();
        format!("{:.digits$}{held} GiB", gib(bytes))
    };
    if gpus_hold_the_same(record) {
        return Some(said(record.peak_device_bytes()?, capacity_bytes) + on_fullest(&record.config));
    }
    let each = record.ranks.iter().map(|rank| {
        let name = rank.gpu.as_deref().unwrap_or("another GPU");
        let usable = rank.capacity_bytes.map(|bytes| record.config.usable_of(bytes));
        Some(format!("{} on {name}", said(rank.peak_device_bytes?, usable)))
    });
    Some(each.collect::<Option<Vec<_>>>()?.join(", "))
}

/// What there was for a case: `23.65 GiB`, and of several GPUs that hold different amounts each one's, `23.65 and 11.76 GiB`; nothing where that is not known.
pub fn room(record: &RunRecord, capacity_bytes: Option<u64>) -> Option<String> {
    let each = if gpus_hold_the_same(record) {
        vec![capacity_bytes?]
    } else {
        record.ranks.iter().filter_map(|rank| rank.capacity_bytes).collect()
    };
    let each: Vec<_> = each.into_iter().map(|bytes| format!("{:.2}", gib(bytes))).collect();
    Some(format!("{} GiB", each.join(" and ")))
}

fn gpus_hold_the_same(record: &RunRecord) -> bool {
    record.ranks.windows(2).all(|pair| pair[0].capacity_bytes == pair[1].capacity_bytes)
}

/// `Does not fit l40s (44.53 GiB), sold with as much memory`: cards of the size that was named which hold less than the case takes; nothing where there is none.
pub fn fits_not(run: &Run, record: &RunRecord) -> Option<String> {
    let peak = record.peak_device_bytes()?;
    let smaller = run.smaller_than_of(record).iter().filter(|card| record.config.usable_of(card.memory_bytes) < peak);
    let named: Vec<_> = smaller.map(|card| format!("{} ({:.2} GiB)", card.name, gib(card.memory_bytes))).collect();
    (!named.is_empty()).then(|| format!("Does not fit {}, sold with as much memory: name the card", named.join(", ")))
}

/// `Estimated: 2 h 12 min (1 h 58 to 2 h 36)` or `Measured: 5 min 20 s; a step 6.20 s (6.19 to 6.22)`; nothing where no time is known.
pub fn duration(record: &RunRecord) -> Option<String> {
    let secs = total_secs(record)?;
    Some(match record.time_source? {
        Source::Measured => {
            let step = step(record).filter(|_| record.step_spread().is_some());
            format!("Measured: {}{}", time(secs.expected), step.map(|step| format!("; a step {step}")).unwrap_or_default())
        }
        Source::Virtual | Source::Modelled => format!("Estimated: {}", time_with_range(secs)),
    })
}

/// A sampler step: `6.20 s`, and where several were measured the shortest and the longest of those after the first: `6.20 s (6.19 to 6.22)`.
pub(crate) fn step(record: &RunRecord) -> Option<String> {
    let secs = record.step_secs()?;
    let [low, high] = record.step_spread().unwrap_or([secs.low, secs.high]);
    Some(time_with_range(Secs { low, high, ..secs }))
}

/// The case that missed by least, and by how much.
pub fn nearest(miss: &Miss<'_>, capacity_bytes: Option<u64>) -> String {
    let stage = miss.record.failed_stage.map(|stage| format!(" in {}", stage.name())).unwrap_or_default();
    let word = miss.need.word();
    let needed = format!("Nearest: {}, which ran out of memory{stage} and needs {word} {:.2}", miss.record.case, gib(miss.need.bytes));
    match miss.record.capacity_bytes.or(capacity_bytes).map(|bytes| miss.record.config.usable_of(bytes)) {
        Some(held) => format!("{needed} of {:.2} GiB: {word} {:.2} GiB are missing.", gib(held), gib(miss.missing_bytes)),
        None => format!("{needed} GiB."),
    }
}

/// How many of the sampler steps ran, and what that means for times; nothing where all ran, and of a case that did not come to its end.
pub fn steps_that_ran(record: &RunRecord) -> Option<String> {
    let config = &record.config;
    let ran = format!("Ran {} of {} steps", config.steps_to_run(), config.steps);
    let scaled = if record.time_source.is_some() { format!("; times are scaled to {}", config.steps) } else { String::new() };
    (record.outcome == Outcome::Ok && config.steps_to_run() < config.steps).then(|| format!("{ran}{scaled}."))
}

/// What was not computed, and by what that was decided: by a cache of sampler steps, and of attention's keys. Nothing where all was.
pub fn left_out(record: &RunRecord) -> Option<String> {
    let said = [steps_reused(record), keys_attended(record)].into_iter().flatten().collect::<Vec<_>>().join(" ");
    (!said.is_empty()).then_some(said)
}

/// The share of keys that queries attend to, and by what they are chosen; nothing where they attend to all.
fn keys_attended(record: &RunRecord) -> Option<String> {
    let (config, choice) = (&record.config, record.config.block_choice()?);
    let by = match keys_decided(record)? {
        "values" => "of each 128 queries those that are nearest, by computed values",
        _ => "as many as attn_topk has, since no values are computed here: no tile counts as unlike",
    };
    Some(format!("attn_type={}: queries attend to {:.0}% of the keys ({by}).", config.attn_type.name(), 100.0 * choice.topk))
}

/// By what attention's keys are chosen, in a word.
pub(crate) fn keys_decided(record: &RunRecord) -> Option<&'static str> {
    record.config.block_choice()?;
    Some(if record.device == Device::Virtual { "share" } else { "values" })
}

/// How many steps a cache of sampler steps lets leave blocks out, and by what; nothing where there is no cache.
fn steps_reused(record: &RunRecord) -> Option<String> {
    let CacheUse { decided, reused_steps } = record.cache?;
    let config = &record.config;
    let (name, left_out) = (config.flexcache.name(), config.flexcache.left_out());
    Some(format!("flexcache={name}: {reused_steps} of {} steps leave {left_out} out ({}).", config.steps, decided.words()))
}

/// Where a record's memory figures come from, in a word.
pub fn source(record: &RunRecord) -> &'static str {
    record.memory_source.map_or("not measured", |source| source.name())
}
