//! The first screen: whether it fits, how, what it takes of both memories and of time, and the three answers side by side.

use engine_protocol::{Device, RunRecord, Source, gib};

use super::figure::{Figure, gpu, pinned, ram, total};
use crate::advice::{are_unlike, flags, on_gpus, rank_gpus, settled};
use crate::choices::choices;
use crate::command::generate_line;
use crate::ram::source as ram_source;
use crate::recommended;
use crate::run::Run;
use crate::sentences;
use crate::summary::Summary;
use crate::verdict::{Verdict, total_secs};
use crate::words::time_with_range;

/// The answer.
pub(super) struct Answer<'a> {
    /// The verdict in a word or two.
    pub word: &'static str,
    /// How it is shown: `fits`, `misses` or `open`.
    pub class: &'static str,
    /// What it is about.
    pub subject: String,
    /// The GPU that it is on, and of ranks whose cards differ each one; empty where there is none.
    pub gpus: String,
    /// The case that it is from: the recommended one, or the nearest.
    pub case: Option<Told<'a>>,
    /// What is to be said of it: what is missing, or that there is no answer yet.
    pub said: Vec<String>,
    /// Where the figures come from.
    pub badges: Vec<Badge>,
    /// The recommended configuration.
    pub yaml: Option<String>,
    /// Fastest, balanced and smallest: those that are one case in one.
    pub cards: Vec<(String, Told<'a>)>,
}

/// A case told in short.
pub(super) struct Told<'a> {
    pub case: &'a str,
    pub level: u8,
    /// On how many GPUs; empty where that is one.
    pub on: String,
    pub flags: String,
    pub settled: String,
    pub gpu: Bar,
    pub ram: Bar,
    pub pinned: Figure,
    pub total: Figure,
    /// The lowest and the highest that it may be.
    pub range: String,
    pub command: String,
}

/// A figure beside what there is.
pub(super) struct Bar {
    pub figure: Figure,
    /// What there is, in GiB; empty where nothing limits it.
    pub held: String,
    /// How much of it is taken, in percent, at most all.
    pub percent: f64,
    /// Whether it is more than there is.
    pub is_over: bool,
}

/// Where figures come from.
pub(super) struct Badge {
    pub of: &'static str,
    pub source: &'static str,
    pub meaning: &'static str,
}

impl<'a> Answer<'a> {
    /// That of a run: of the largest video that fits, or else of the largest.
    pub(super) fn of(summary: &Summary<'a>) -> Self {
        let run = summary.run;
        let about = about(summary);
        let best = about.and_then(|verdict| verdict.best);
        let shown = best.or_else(|| about.and_then(|verdict| verdict.short_of_ram.or(verdict.nearest.map(|miss| miss.record))));
        let (word, class) = match (run.missing(), best, shown) {
            (1.., _, _) => ("No answer yet", "open"),
            (0, Some(_), _) => ("Fits", "fits"),
            (0, None, Some(_)) => ("Does not fit", "misses"),
            (0, None, None) => ("No answer", "open"),
        };
        let mut said = Vec::new();
        if run.missing() > 0 {
            said.push(sentences::no_answer_yet(run));
        }
        if let Some(best) = best {
            said.extend(sentences::fits_not(run, best).map(|said| format!("{said}.")));
        } else if let Some(verdict) = about {
            said.push(sentences::sentence(run, verdict));
        }
        said.extend(best.and_then(sentences::steps_that_ran));
        said.extend(best.and_then(sentences::left_out));
        Self {
            word,
            class,
            subject: about.map(Verdict::subject).unwrap_or_default(),
            gpus: gpus(run, shown),
            case: shown.map(|record| told(run, record)),
            said,
            badges: shown.map(badges).unwrap_or_default(),
            yaml: summary.chosen.map(|_| recommended::yaml(summary)),
            cards: about.map(|verdict| cards(run, verdict)).unwrap_or_default(),
        }
    }
}

fn gpus(run: &Run, shown: Option<&RunRecord>) -> String {
    let each = shown.map(rank_gpus).unwrap_or_default();
    if are_unlike(&each) {
        return each.join(" and ");
    }
    run.manifest.gpu.as_ref().map(|gpu| gpu.title.clone()).unwrap_or_default()
}

/// The video that the first screen is about: the largest that fits, or else the largest.
pub(super) fn about<'s, 'a>(summary: &'s Summary<'a>) -> Option<&'s Verdict<'a>> {
    let fitting = summary.verdicts.iter().filter(|verdict| verdict.best.is_some());
    // The first of equals, as where one case is chosen for all.
    fitting.reduce(|best, next| if next.pixels() > best.pixels() { next } else { best }).or_else(|| summary.largest_video())
}

fn cards<'a>(run: &Run, verdict: &Verdict<'a>) -> Vec<(String, Told<'a>)> {
    let found = choices(&verdict.ranked);
    let mut cards: Vec<(Vec<&str>, &RunRecord)> = Vec::new();
    for (name, record) in [("Fastest", found.fastest), ("Balanced", found.balanced), ("Smallest", found.smallest)] {
        let Some(record) = record else { continue };
        match cards.iter_mut().find(|(_, known)| known.case == record.case) {
            Some((names, _)) => names.push(name),
            None => cards.push((vec![name], record)),
        }
    }
    let titled = |names: Vec<&str>| match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {}", first.join(", "), last.to_lowercase()).replace("Fastest, Balanced", "Fastest, balanced"),
    };
    cards.into_iter().map(|(names, record)| (titled(names), told(run, record))).collect()
}

fn told<'a>(run: &Run, record: &'a RunRecord) -> Told<'a> {
    let config = &record.config;
    let held = run.capacity_of(record).map(|bytes| config.usable_of(bytes));
    let model = run.manifest.models.iter().find(|model| model.name == config.model);
    let needs = record.peak_device_bytes().or_else(|| crate::verdict::need(record).map(|need| need.bytes));
    Told {
        case: &record.case,
        level: config.low_mem_level,
        on: on_gpus(config),
        flags: flags(run, config),
        settled: settled(record),
        gpu: bar(gpu(record), needs, held),
        ram: bar(ram(record), record.host_needed_bytes(), run.manifest.ram_bytes),
        pinned: Some(pinned(record)).filter(|figure| figure.text != "0.00").unwrap_or_default(),
        total: total(record),
        range: range(record),
        command: generate_line(record, run.manifest.device, model),
    }
}

/// The lowest and the highest that a time may be: `1 h 58 to 2 h 36`; empty of a measured one.
fn range(record: &RunRecord) -> String {
    let said = total_secs(record).filter(|secs| secs.is_interval()).map(time_with_range);
    said.and_then(|said| Some(said.split_once('(')?.1.trim_end_matches(')').to_owned())).unwrap_or_default()
}

fn bar(figure: Figure, needs: Option<u64>, held: Option<u64>) -> Bar {
    let share = needs.zip(held).map_or(0.0, |(needs, held)| needs as f64 / held.max(1) as f64);
    Bar {
        figure,
        held: held.map(|bytes| format!("{:.2}", gib(bytes))).unwrap_or_default(),
        percent: (share * 1000.0).round().min(1000.0) / 10.0,
        is_over: share > 1.0,
    }
}

/// Where the figures of a case come from.
fn badges(record: &RunRecord) -> Vec<Badge> {
    let meaning = |source| match source {
        Source::Measured => "on the real device",
        Source::Virtual => "PyTorch's allocator counts on a virtual GPU, and nothing is computed",
        Source::Modelled => "estimated from the GPU's profile",
    };
    let badge = |of, source: Source| Badge { of, source: source.name(), meaning: meaning(source) };
    let memory = record.memory_source.map(|source| badge("GPU memory", source));
    let time = total_secs(record).and(record.time_source).map(|source| badge("time", source));
    let predicted = "from shapes, before it runs";
    let ram = record.host_needed_bytes().filter(|_| !ram(record).text.is_empty()).map(|_| match ram_source(record) {
        "measured" => badge("RAM", Source::Measured),
        source => Badge { of: "RAM", source, meaning: predicted },
    });
    let memory = memory.filter(|_| record.device != Device::Cpu);
    memory.into_iter().chain(ram).chain(time).collect()
}

#[cfg(test)]
mod tests {
    use engine_protocol::RankRecord;

    use super::*;
    use crate::samples;

    #[test]
    fn cards_that_differ_are_all_named() {
        let rank = |gpu: &str| RankRecord { gpu: Some(gpu.into()), ..RankRecord::of(&samples::ok("one", 0, 4)) };
        let of = |cards: [&str; 2]| {
            let run = samples::run(vec![RunRecord { ranks: cards.map(rank).into(), ..samples::ok("two", 3, 4) }]);
            gpus(&run, run.records.first())
        };
        assert_eq!(of(["rtx-4090", "rtx-3060"]), "rtx-4090 and rtx-3060");
        assert_eq!(of(["rtx-4090", "rtx-4090"]), samples::gpu().title);
    }
}
