//! What is said of a level: its memory, its speed, what lives on the GPU.

use std::collections::HashSet;

use engine_protocol::{Config, OffloadTextEncoder, Outcome, ResidentBlocks, RunRecord, gib};

use super::notes::{Footnotes, of_memory, of_time};
use super::videos::Video;
use crate::verdict::need;
use crate::words::time;

/// The video that tells of a level, with its record there: the first that has one. One that ran out of memory tells less than one that fits.
pub(super) fn told_of<'v, 'a>(videos: &[&'v Video<'a>], level: usize) -> Option<(&'v Video<'a>, &'a RunRecord)> {
    let plain = || videos.iter().filter(|video| video.flags.is_empty());
    let fitting = plain().find_map(|video| Some((*video, video.fits_at(level)?)));
    fitting.or_else(|| plain().find_map(|video| Some((*video, video.at(level).filter(|record| record.outcome == Outcome::Oom)?))))
}

/// Memory at a level; with `compared`, beside level 0's.
pub(super) fn memory(video: &Video<'_>, record: &RunRecord, is_compared: bool, notes: &mut Footnotes) -> Option<String> {
    let sign = notes.sign(of_memory(video, record));
    if let Some(need) = need(record) {
        let held =
            video.run.manifest.capacity_bytes.map(|bytes| format!(" of {:.2}", gib(record.config.usable_of(bytes)))).unwrap_or_default();
        return Some(format!("does not fit, needs {} {:.2}{held} GiB{sign}", need.word(), gib(need.bytes)));
    }
    let peak = record.peak_device_bytes()?;
    let base = video.at(0).and_then(RunRecord::peak_device_bytes).filter(|_| is_compared && record.config.low_mem_level > 0);
    let compared = base.map(|base| {
        let less = gib(base) - gib(peak);
        let (difference, word) = if less < 0.0 { (-less, "more") } else { (less, "less") };
        format!(", {difference:.2} GiB ({:.0}%) {word} than level 0", difference / gib(base) * 100.0)
    });
    Some(format!("{:.2} GiB{}{sign}", gib(peak), compared.unwrap_or_default()))
}

/// Speed at a level: the ratio to level 0 of the `plain` video, and the time.
pub(super) fn speed(video: &Video<'_>, plain: &Video<'_>, record: &RunRecord, notes: &mut Footnotes) -> Option<String> {
    let level = usize::from(record.config.low_mem_level);
    if need(record).is_some() {
        return Some(format!("does not fit{}", notes.sign(of_memory(video, record))));
    }
    let secs = video.secs_at(level)?;
    let sign = notes.sign(of_time(video, record));
    let speed = plain.secs_at(0).map(|level_0| level_0.expected / secs.expected);
    Some(match speed {
        Some(speed) => format!("{speed:.2}x ({}){sign}", time(secs.expected)),
        // Without level 0 there is nothing to hold it against.
        None => format!("{}{sign}", time(secs.expected)),
    })
}

/// What lives on the GPU.
pub(super) fn components(config: &Config) -> String {
    let vae = match (config.vae_tile_size.is_some(), config.offload_vae) {
        (false, false) => "VAE",
        (true, false) => "VAE (tiled)",
        (false, true) => "VAE while it decodes",
        (true, true) => "VAE while it decodes (tiled)",
    };
    let dit = match (config.offload_dit, config.resident_blocks) {
        (false, _) => "DiT".to_owned(),
        (true, Some(ResidentBlocks::Count(count))) if count > 0 => format!("{count} blocks of the DiT and parts of others in turn"),
        (true, _) => "parts of DiT blocks in turn".to_owned(),
    };
    match config.offload_text_encoder {
        OffloadTextEncoder::Off if dit == "DiT" && vae == "VAE" => "All".into(),
        OffloadTextEncoder::Off if dit == "DiT" && vae == "VAE (tiled)" => "All (VAE tiled)".into(),
        OffloadTextEncoder::Off => format!("text encoder + {dit} + {vae}"),
        OffloadTextEncoder::Stream => format!("layers of the text encoder in turn + {dit} + {vae}"),
        OffloadTextEncoder::Cpu => format!("{dit} + {vae}"),
    }
}

/// How much longer a sampler step takes where the transformer is streamed than where it is resident, of the videos that have both: measured ones first.
pub(super) fn overhead(videos: &[&Video<'_>]) -> Option<String> {
    let of = |video: &&Video<'_>| {
        let streamed = video.fits_at(3)?.step_secs()?;
        let level = (0..3).rev().find(|&level| video.fits_at(level).and_then(RunRecord::step_secs).is_some())?;
        let resident = video.fits_at(level)?.step_secs()?;
        let record = video.fits_at(3)?;
        let percent = (streamed.expected / resident.expected - 1.0) * 100.0;
        let is_measured = record.time_source == Some(engine_protocol::Source::Measured);
        let how = record.time_source.map_or("not known", |source| source.name());
        let place = format!("at {} against level {level} ({}, {how})", video.config.resolution, super::notes::short_gpu(video));
        // The usual size first, then the smallest, where copies have least to hide behind.
        Some(((!is_measured, !video.flags.is_empty(), !video.is_usual(), video.pixels()), percent, place))
    };
    let mut found: Vec<_> = videos.iter().filter(|video| video.is_of_usual_length()).filter_map(of).collect();
    found.sort_by_key(|found| found.0);
    let largest = found.iter().map(|found| found.1).fold(0.0, f64::max);
    let judged = if largest < SIGNIFICANT {
        "That is not significant: copies run while the GPU computes."
    } else {
        "It hangs on the size of the video and on the slot."
    };
    // Of those that differ in a cache or the like alone the plainest.
    let mut places = HashSet::new();
    found.retain(|found| places.insert(found.2.clone()));
    const MOST: usize = 3;
    let said: Vec<String> = found.into_iter().take(MOST).map(|(_, percent, place)| format!("{percent:.1}% {place}")).collect();
    (!said.is_empty()).then(|| format!("By these runs a sampler step with streamed blocks takes longer by {}. {judged}", said.join(", ")))
}

/// From so many percent on people notice.
const SIGNIFICANT: f64 = 5.0;
