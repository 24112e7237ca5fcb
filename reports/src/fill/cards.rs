//! What is said of a size of card: which level it takes, and the largest size of a video.

use engine_protocol::{Outcome, RunRecord, gib};

use super::notes::{Footnotes, WITHOUT_SAGE, figures, gpu, subject};
use super::videos::{LEVELS, Video};
use crate::verdict::{need, ranked};

/// What runs say of a size of card.
pub(super) struct Card<'v, 'a> {
    gb: u64,
    /// The videos that ran on it: of several GPUs of the size those on the one that holds least.
    videos: Vec<&'v Video<'a>>,
    all: &'v [&'v Video<'a>],
}

/// A video that fits, with its record.
type Fit<'v, 'a> = (&'v Video<'a>, &'a RunRecord);

impl<'v, 'a> Card<'v, 'a> {
    /// The card of so many GB; nothing where no run is of it.
    pub(super) fn of(gb: u64, all: &'v [&'v Video<'a>]) -> Option<Self> {
        let of_it = || all.iter().copied().filter(|video| video.card_gb() == Some(gb) && video.flags.is_empty());
        let least = of_it().filter_map(|video| video.run.manifest.capacity_bytes).min()?;
        let mut videos: Vec<_> = of_it().filter(|video| video.run.manifest.capacity_bytes == Some(least)).collect();
        // A video is as long as the model makes them, where one is.
        if videos.iter().any(|video| video.is_of_usual_length()) {
            videos.retain(|video| video.is_of_usual_length());
        }
        videos.sort_by_key(|video| video.pixels());
        Some(Self { gb, videos, all })
    }

    /// The fastest level for the model's own size, or where that does not fit for the largest that does.
    pub(super) fn level(&self) -> Option<usize> {
        self.best().map(|(_, record)| usize::from(record.config.low_mem_level))
    }

    fn best(&self) -> Option<Fit<'v, 'a>> {
        let mut by_size = self.videos.iter().filter(|video| video.is_usual()).chain(self.videos.iter().rev());
        by_size.find_map(|video| Some((*video, *ranked((0..LEVELS).filter_map(|level| video.fits_at(level)), false).first()?)))
    }

    /// The level as a cell, with where it is from.
    pub(super) fn told_level(&self, notes: &mut Footnotes) -> String {
        let Some((video, record)) = self.best() else { return format!("none{}", notes.sign(self.nothing_fits())) };
        let sign = notes.sign(format!("The fastest that fits: {} on {}: {}.", subject(video), gpu(video), figures(video, record)));
        format!("Level {}{sign}", record.config.low_mem_level)
    }

    fn nothing_fits(&self) -> String {
        format!("Nothing that ran fits {}.", self.held())
    }

    /// The largest video that fits at a level.
    fn largest_at(&self, level: usize) -> Option<Fit<'v, 'a>> {
        self.videos.iter().rev().find_map(|video| Some((*video, video.fits_at(level)?)))
    }

    /// Whether anything ran at a level.
    pub(super) fn is_covered(&self, level: usize) -> bool {
        self.videos.iter().any(|video| video.at(level).is_some())
    }

    /// The largest size at a level, with where that is from; another level where nothing fits at that one.
    pub(super) fn resolution(&self, level: usize, has_sage: bool, notes: &mut Footnotes) -> String {
        if let Some(fit) = self.largest_at(level) {
            return self.said(fit, has_sage, notes);
        }
        let other = self.level().and_then(|level| Some((level, self.largest_at(level)?)));
        match other {
            Some((other, fit)) => format!("none at level {level}; at level {other} {}", self.said(fit, has_sage, notes)),
            None => format!("none{}", notes.sign(self.nothing_fits())),
        }
    }

    fn said(&self, (video, record): Fit<'v, 'a>, has_sage: bool, notes: &mut Footnotes) -> String {
        let level = record.config.low_mem_level;
        let larger = self.videos.iter().find_map(|other| other.at(level.into()).filter(|_| other.pixels() > video.pixels()));
        let (at_least, next) = match larger.map(|larger| (larger.config.resolution, need(larger))) {
            Some((size, Some(need))) => ("", format!("The next size that ran, {size}, needs {} {:.2} GiB.", need.word(), gib(need.bytes))),
            Some((size, None)) => ("", format!("The next size that ran, {size}, does not fit.")),
            None => ("at least ", "No larger size ran.".to_owned()),
        };
        let others = crate::sentences::fits_not(video.run, record).map(|said| format!(" {said}.")).unwrap_or_default();
        let sage = if has_sage { WITHOUT_SAGE } else { "" };
        let text = format!("{} at level {level} on {}: {}. {next}{others}{sage}", subject(video), gpu(video), figures(video, record));
        format!("{at_least}{}{}", video.config.resolution, notes.sign(text))
    }

    fn held(&self) -> String {
        let capacity = self.videos.first().and_then(|video| video.run.manifest.capacity_bytes);
        format!("{} GB ({:.2} GiB)", self.gb, capacity.map_or(0.0, gib))
    }

    /// Where a document recommends a level at which no size fits: what the smallest one needs there, and what does fit.
    pub(super) fn refuted(&self, level: usize) -> Option<String> {
        if self.largest_at(level).is_some() {
            return None;
        }
        let (smallest, missed) = self.videos.iter().find_map(|video| Some((*video, video.at(level)?)))?;
        // A run on a larger card says what it really takes; a run that ended early only how much at least.
        let same =
            |video: &&&Video<'a>| video.config.resolution == smallest.config.resolution && video.config.frames == smallest.config.frames;
        let complete = self.all.iter().filter(same).filter(|video| video.flags.is_empty());
        let taken = complete.filter_map(|video| Some((*video, video.at(level)?.peak_device_bytes()?))).min_by_key(|(_, bytes)| *bytes);
        let config = smallest.config;
        let needs = match (taken, missed.outcome) {
            (Some((video, bytes)), _) => format!("takes {:.2} GiB on {}", gib(bytes), gpu(video)),
            (None, Outcome::Oom) => {
                let need = need(missed)?;
                format!("needs {} {:.2} GiB", need.word(), gib(need.bytes))
            }
            (None, _) => "does not fit the machine's memory".to_owned(),
        };
        let other = self.level().and_then(|level| Some((level, self.largest_at(level)?.0.config.resolution)));
        let other = other.map(|(level, size)| format!(" At level {level} {size} fits.")).unwrap_or_default();
        Some(format!(
            "{} at level {level} does not hold {} in {}: already {} {needs}.{other}",
            self.held(),
            crate::markdown::inert(&config.model),
            config.dtype.name(),
            config.resolution
        ))
    }
}
