//! Runs as tables need them: of each run, model, video and set of flags the record of each memory level.

use engine_protocol::{Config, Outcome, RunRecord, Secs, Source};

use crate::advice;
use crate::run::Run;
use crate::verdict::total_secs;

/// How many levels there are.
pub(super) const LEVELS: usize = 4;

/// One video in one run, at each level: all that its records differ in.
pub(super) struct Video<'a> {
    pub(super) run: &'a Run,
    /// Of one of its records.
    pub(super) config: &'a Config,
    /// What is not the level's own.
    pub(super) flags: Vec<String>,
    levels: [Option<&'a RunRecord>; LEVELS],
}

impl<'a> Video<'a> {
    /// Whether `other` is the same video on the same card, with flags of its own perhaps.
    pub(super) fn is_same_but_for_flags(&self, other: &Self) -> bool {
        let of = |video: &Self| (video.config.model.clone(), video.config.resolution, video.config.frames, video.card_gb());
        of(self) == of(other)
    }

    /// The record at a level.
    pub(super) fn at(&self, level: usize) -> Option<&'a RunRecord> {
        self.levels.get(level).copied().flatten()
    }

    /// The record at a level, where it fits.
    pub(super) fn fits_at(&self, level: usize) -> Option<&'a RunRecord> {
        self.at(level).filter(|record| self.run.fits_ram(record) && record.peak_device_bytes().is_some())
    }

    /// The time at a level.
    pub(super) fn secs_at(&self, level: usize) -> Option<Secs> {
        total_secs(self.at(level)?)
    }

    /// Pixels of a frame.
    pub(super) fn pixels(&self) -> u64 {
        self.config.resolution.pixels()
    }

    /// How many GB the GPU or the budget has, as it is sold.
    pub(super) fn card_gb(&self) -> Option<u64> {
        let manifest = &self.run.manifest;
        let capacity = manifest.capacity_bytes?;
        let nominal = manifest.gpu.as_ref().filter(|gpu| gpu.memory_bytes.value == capacity).map(|gpu| u64::from(gpu.nominal_gb));
        Some(nominal.unwrap_or_else(|| capacity.div_ceil(1 << 30)))
    }

    /// Whether it is of the size and length that the model is made for.
    pub(super) fn is_usual(&self) -> bool {
        let model = self.run.manifest.models.iter().find(|model| model.name == self.config.model);
        let resolution = self.config.resolution;
        model.is_some_and(|model| model.sampling.resolution == [resolution.width, resolution.height] && self.is_of_usual_length())
    }

    /// Whether it has as many frames as the model is made for.
    pub(super) fn is_of_usual_length(&self) -> bool {
        let model = self.run.manifest.models.iter().find(|model| model.name == self.config.model);
        model.is_none_or(|model| model.sampling.frames == self.config.frames)
    }

    fn is_measured(&self) -> bool {
        self.levels.iter().flatten().any(|record| record.memory_source == Some(Source::Measured))
    }

    fn fitting(&self) -> usize {
        self.levels.iter().flatten().filter(|record| record.outcome == Outcome::Ok).count()
    }

    /// What tells most about levels: one that has level 0, of the usual size, with most levels, and measured.
    fn rank(&self) -> impl Ord + use<> {
        (self.flags.is_empty(), self.fits_at(0).is_some(), self.is_usual(), self.fitting(), self.is_measured(), self.pixels())
    }
}

/// The videos of all runs, those that tell most first. A level's record with an answer, and of those the first, is the one that counts.
pub(super) fn videos(runs: &[Run]) -> Vec<Video<'_>> {
    let mut videos: Vec<Video<'_>> = Vec::new();
    for run in runs {
        let first = videos.len();
        for record in run.records.iter().filter(|record| record.outcome.is_answer()) {
            let config = &record.config;
            let flags = flags(run, config);
            let is_of = |video: &&mut Video<'_>| is_same_video(video.config, config) && video.flags == flags;
            let place = match videos.iter_mut().skip(first).find(is_of) {
                Some(video) => video,
                None => videos.push_mut(Video { run, config, flags, levels: [None; LEVELS] }),
            };
            if let Some(level) = place.levels.get_mut(usize::from(config.low_mem_level)) {
                level.get_or_insert(record);
            }
        }
    }
    // Stable: of equals the run that was named first counts.
    videos.sort_by(|a, b| b.rank().cmp(&a.rank()));
    videos
}

fn is_same_video(a: &Config, b: &Config) -> bool {
    let of = |config: &Config| (config.model.clone(), config.resolution, config.frames, config.steps, config.guidance_scale.to_bits());
    of(a) == of(b)
}

/// What says which video it is, as its size does: a level takes as much of the GPU whichever it is.
const OF_THE_VIDEO: [&str; 4] = ["steps", "sampler", "guidance_scale", "flow_shift"];

/// The flags that are not the level's own. Loading all at the start is what a machine with memory enough does.
fn flags(run: &Run, config: &Config) -> Vec<String> {
    let flags = advice::flags(run, config);
    let is_told = |flag: &&str| {
        let key = flag.split('=').next().unwrap_or_default();
        !flag.is_empty() && !OF_THE_VIDEO.contains(&key) && *flag != "load_weights=at_start"
    };
    flags.split(", ").filter(is_told).map(str::to_owned).collect()
}

/// Whether words such as `14b` mean a model.
pub(super) fn is_named(model: &str, words: &[String]) -> bool {
    model
        .split(['-', '_'])
        .any(|part| part.ends_with('b') && part.contains(|c: char| c.is_ascii_digit()) && words.iter().any(|word| word == part))
}
