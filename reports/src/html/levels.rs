//! The memory levels of one video side by side: what each takes, and where each part of the model lives. And all videos by level, as a heat map.

use engine_protocol::{Config, OffloadTextEncoder, PinnedMemory, ResidentBlocks, RunRecord, StreamFrom, WeightDtype, gib};

use super::figure::{Figure, gpu, ram, total};
use crate::choices::choices;
use crate::run::Run;
use crate::shown_cases::{levels, shown_case, shown_cases};
use crate::summary::Summary;
use crate::table::outcome;
use crate::verdict::{Verdict, need, total_secs};

/// A level.
pub(super) struct LevelRow<'a> {
    pub level: u8,
    pub case: &'a str,
    pub outcome: String,
    /// How many times as long as the first level that fits: `1.00×`.
    pub ratio: String,
    pub total: Figure,
    pub gpu: Figure,
    pub ram: Figure,
    /// Where text encoder, transformer and VAE live.
    pub homes: [String; 3],
    pub class: &'static str,
}

/// The levels of a video, the lowest first. Levels that no case is of are not there.
pub(super) fn rows<'a>(run: &Run, verdict: &Verdict<'a>) -> Vec<LevelRow<'a>> {
    let cases: Vec<(u8, &RunRecord)> = shown_cases(verdict).into_iter().filter_map(|(level, case)| Some((level, case?))).collect();
    let base = cases.iter().find_map(|(_, case)| total_secs(case)).map(|secs| secs.expected);
    let row = |(level, case): (u8, &'a RunRecord)| LevelRow {
        level,
        case: &case.case,
        outcome: outcome(case),
        ratio: total_secs(case).zip(base).map(|(secs, base)| format!("{:.2}×", secs.expected / base)).unwrap_or_default(),
        total: total(case),
        gpu: gpu(case),
        ram: ram(case),
        homes: homes(case.config_run()),
        class: class(run, verdict, case),
    };
    cases.into_iter().map(row).collect()
}

fn class(run: &Run, verdict: &Verdict<'_>, case: &RunRecord) -> &'static str {
    match verdict.best {
        Some(best) if best.case == case.case && run.missing() == 0 => "recommended",
        _ if need(case).is_some() => "oom",
        _ => "ok",
    }
}

/// What the levels come to, in a sentence; nothing where no level fits.
pub(super) fn finding(run: &Run, verdict: &Verdict<'_>) -> Option<String> {
    let cases = shown_cases(verdict);
    let fits = |case: Option<&RunRecord>| case.is_some_and(|case| verdict.ranked.iter().any(|fitting| fitting.case == case.case));
    let fitting: Vec<(u8, &RunRecord)> =
        cases.iter().filter(|(_, case)| fits(*case)).filter_map(|(level, case)| Some((*level, (*case)?))).collect();
    let peak = |record: &RunRecord| record.peak_device_bytes().map(gib);
    let (first, last) = (fitting.first()?, fitting.last()?);
    if first.0 < last.0 {
        return beside([&format!("Level {}", last.0), &format!("level {}", first.0)], last.1, first.1);
    }
    let found = choices(&verdict.ranked);
    if let (1, Some(fastest), Some(smallest)) = (cases.len(), found.fastest, found.smallest)
        && fastest.peak_device_bytes() != smallest.peak_device_bytes()
    {
        return beside(["The smallest", "the fastest"], smallest, fastest);
    }
    // Of levels that have not run nothing is known.
    if run.missing() > 0 {
        return None;
    }
    let below = cases.iter().rev().find(|(level, _)| *level < first.0);
    let needs = below.and_then(|(level, case)| Some((*level, need((*case)?)?)));
    let held = run.capacity_of(first.1).map(|bytes| format!(" of {:.2}", gib(bytes))).unwrap_or_default();
    let below =
        needs.map(|(level, need)| format!("; level {level} needs {} {:.2}{held} GiB", need.word(), gib(need.bytes))).unwrap_or_default();
    let only = if cases.len() == 1 { "was run" } else { "fits" };
    Some(format!("Only level {} {only}: it takes {:.2} GiB{below}.", first.0, peak(first.1)?))
}

/// What the smaller of two cases gains and loses.
fn beside([name, other]: [&str; 2], smaller: &RunRecord, larger: &RunRecord) -> Option<String> {
    let [small, large] = [smaller, larger].map(|record| record.peak_device_bytes().map(gib));
    let longer = total_secs(smaller).zip(total_secs(larger)).map(|(small, large)| (small.expected / large.expected - 1.0) * 100.0);
    let time = match longer {
        Some(percent) if percent.abs() < 0.5 => " and as long as".to_owned(),
        Some(percent) if percent > 0.0 => format!(" and {percent:.0}% longer than"),
        Some(percent) => format!(" and {:.0}% less time than", -percent),
        None => "; compare".to_owned(),
    };
    Some(format!("{name} takes {:.2} GiB{time} {other}, which takes {:.2} GiB.", small?, large?))
}

/// Where text encoder, transformer and VAE live while the case runs.
fn homes(config: &Config) -> [String; 3] {
    let encoder = match config.offload_text_encoder {
        OffloadTextEncoder::Off => "on the GPU",
        OffloadTextEncoder::Cpu => "on the host, and computes there",
        OffloadTextEncoder::Stream => "on the host, streamed layer by layer",
    };
    let transformer = if config.offload_dit {
        let from = match (config.stream_from, config.pinned_memory) {
            (Some(StreamFrom::File), _) => "in its files",
            (_, Some(PinnedMemory::Off)) => "on the host",
            _ => "on the host, page-locked",
        };
        let stay = match config.resident_blocks {
            Some(ResidentBlocks::Count(count @ 1..)) => format!("; {count} blocks stay on the GPU"),
            _ => String::new(),
        };
        format!("{from}, streamed block by block{stay}")
    } else {
        "on the GPU".into()
    };
    let bits = match config.weight_dtype {
        WeightDtype::AsStored => String::new(),
        WeightDtype::Fp8E4m3 | WeightDtype::Fp8E5m2 | WeightDtype::Int8 => ", in 8 bits".into(),
        packed => format!(", in {}", packed.name()),
    };
    let tile = config.vae_tile_size.map(|size| format!(", decodes in tiles of {size}")).unwrap_or_default();
    let vae = if config.offload_vae { "on the host until it decodes" } else { "on the GPU" };
    [encoder.into(), format!("{transformer}{bits}"), format!("{vae}{tile}")]
}

/// A level in the heat map, with a cell for each video.
pub(super) struct HeatRow<'a> {
    pub level: u8,
    pub cells: Vec<Option<HeatCell<'a>>>,
}

/// A cell of the heat map.
pub(super) struct HeatCell<'a> {
    pub case: &'a str,
    pub gpu: Figure,
    /// What is missing, in GiB, where it does not fit.
    pub missing: String,
    /// How much of the GPU it takes, in percent.
    pub percent: u64,
    pub class: &'static str,
}

/// All videos by level.
pub(super) fn heat<'a>(summary: &Summary<'a>) -> Vec<HeatRow<'a>> {
    let run = summary.run;
    let cell = |verdict: &Verdict<'a>, level: u8| {
        let case = shown_case(verdict, level)?;
        let held = run.capacity_of(case).map(|bytes| case.config.usable_of(bytes));
        let needed = need(case).map(|need| need.bytes);
        let taken = needed.or_else(|| case.peak_device_bytes())?;
        Some(HeatCell {
            case: &case.case,
            gpu: gpu(case),
            missing: needed.zip(held).map(|(needed, held)| format!("{:.2}", gib(needed.saturating_sub(held)))).unwrap_or_default(),
            percent: held.map_or(0, |held| (taken * 100 / held.max(1)).min(100)),
            class: class(run, verdict, case),
        })
    };
    let row = |level| HeatRow { level, cells: summary.verdicts.iter().map(|verdict| cell(verdict, level)).collect() };
    levels(run.records.iter()).into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_finding_names_what_is_gained_and_lost() {
        let run = samples::run(vec![samples::ok("level1", 1, 20), samples::ok("level3", 3, 4)]);
        let summary = Summary::of(&run);
        assert_eq!(finding(&run, &summary.verdicts[0]).as_deref(), Some("Level 3 takes 4.00 GiB; compare level 1, which takes 20.00 GiB."));
        let run = samples::run(vec![samples::oom("level0", 0, 20), samples::ok("level3", 3, 4)]);
        let summary = Summary::of(&run);
        let only = "Only level 3 fits: it takes 4.00 GiB; level 0 needs at least 31.00 of 24.00 GiB.";
        assert_eq!(finding(&run, &summary.verdicts[0]).as_deref(), Some(only));
        // Of others nothing is known.
        let run = samples::run(vec![samples::ok("level3", 3, 4)]);
        let summary = Summary::of(&run);
        assert_eq!(finding(&run, &summary.verdicts[0]).as_deref(), Some("Only level 3 was run: it takes 4.00 GiB."));
    }

    #[test]
    fn a_level_that_does_not_fit_is_a_row_with_what_is_missing() {
        let run = samples::run(vec![samples::oom("level0", 0, 20), samples::ok("level3", 3, 4)]);
        let summary = Summary::of(&run);
        let rows = rows(&run, &summary.verdicts[0]);
        assert_eq!(rows.iter().map(|row| (row.level, row.class)).collect::<Vec<_>>(), [(0, "oom"), (3, "recommended")]);
        assert_eq!(rows[0].homes[1], "on the GPU");
        assert_eq!(rows[1].homes[0], "on the host, and computes there");
        let heat = heat(&summary);
        let cell = heat[0].cells[0].as_ref().expect("a cell");
        assert_eq!((cell.missing.as_str(), cell.percent, cell.class), ("7.00", 100, "oom"));
    }
}
