//! What is said of a use case: how long a video takes, how many an hour, and what that rests on.

use engine_protocol::RunRecord;

use super::meaning::{has, level};
use super::notes::{Footnotes, WITHOUT_SAGE, figures, gpu, short_gpu, subject};
use super::videos::Video;
use crate::words::time;

const HOUR: f64 = 3600.0;

/// What words such as `Level 2, low resolution` ask for.
pub(super) struct UseCase {
    pub(super) level: usize,
    is_small: bool,
    /// Full precision.
    pub(super) is_full: bool,
    /// With an attention kernel that no run has.
    pub(super) has_sage: bool,
    is_batch: bool,
}

impl UseCase {
    /// What the words ask for; nothing where they name no level.
    pub(super) fn of(words: &[String]) -> Option<Self> {
        Some(Self {
            level: level(words)?,
            is_small: has(words, &["low", "lowest", "small", "smallest"]) && has(words, &["resolution", "resolutions", "size"]),
            is_full: has(words, &["full", "fp32", "float32"]) && has(words, &["precision", "fp32", "float32"]),
            has_sage: has(words, &["sage", "sageattention"]),
            is_batch: has(words, &["batch", "batches", "batching"]),
        })
    }

    /// The run that tells of it.
    pub(super) fn told_of<'v, 'a>(&self, videos: &[&'v Video<'a>]) -> Option<(&'v Video<'a>, &'a RunRecord)> {
        let flags_fit = |video: &&&'v Video<'a>| match video.flags.as_slice() {
            [] => !self.is_full,
            flags => self.is_full && flags.iter().any(|flag| flag == "dtype=fp32"),
        };
        let timed = |video: &'v Video<'a>| Some((video, video.fits_at(self.level)?)).filter(|_| video.secs_at(self.level).is_some());
        let mut found: Vec<_> = videos.iter().filter(flags_fit).filter_map(|video| timed(video)).collect();
        if self.is_small {
            let least = found.iter().map(|(video, _)| video.pixels()).min();
            found.retain(|(video, _)| Some(video.pixels()) == least);
        }
        found.first().copied()
    }

    /// Latency: how long one video takes.
    pub(super) fn latency(&self, (video, record): (&Video<'_>, &RunRecord), notes: &mut Footnotes) -> Option<String> {
        let secs = video.secs_at(self.level)?;
        Some(format!("{} a video{}", time(secs.expected), notes.sign(self.rests_on(video, record))))
    }

    /// Throughput: how many videos an hour, one after the other.
    pub(super) fn throughput(&self, (video, record): (&Video<'_>, &RunRecord), notes: &mut Footnotes) -> Option<String> {
        let secs = video.secs_at(self.level)?;
        Some(format!("{:.1} videos an hour{}", HOUR / secs.expected, notes.sign(self.rests_on(video, record))))
    }

    /// Both, beside the words that ask for it.
    pub(super) fn both(&self, (video, record): (&Video<'_>, &RunRecord), notes: &mut Footnotes) -> Option<String> {
        let secs = video.secs_at(self.level)?.expected;
        let sign = notes.sign(self.rests_on(video, record));
        Some(format!(": {} a video, {:.1} an hour at {} on {}{sign}", time(secs), HOUR / secs, video.config.resolution, short_gpu(video)))
    }

    fn rests_on(&self, video: &Video<'_>, record: &RunRecord) -> String {
        let sage = if self.has_sage { WITHOUT_SAGE } else { "" };
        let batch = if self.is_batch { " One video after the other: no batch is in it." } else { "" };
        format!(
            "{} at level {} on {}: {}. From prompt to video, without loading.{sage}{batch}",
            subject(video),
            self.level,
            gpu(video),
            figures(video, record)
        )
    }
}
