//! Which steps reuse what a cache has kept: a pure function of the configuration, the timesteps and what the model makes of them.

use std::ops::Range;

use engine_protocol::{CacheDecision, Config, Flexcache, ModelSpec, Published};

use super::teacache::{Fit, Input, share_between};
use super::{magcache, meancache};
use crate::error::{Error, Result};
use crate::scheduler::{SigmaSchedule, TRAIN_TIMESTEPS};
use crate::transformer::Part;

/// The first-block cache: diffusers' threshold, under which utensils/mold saw no step left out on A14B (pull request 939), and its own, which took 327 of 606 s.
const FIRST_BLOCK: &[[f64; 2]] = &[[0.0, 1.0], [0.05, 1.0], [0.10, 0.54]];
/// Diffusers' threshold of the first-block cache.
const FIRST_BLOCK_THRESHOLD: f64 = 0.05;
/// How often a threshold is halved in search of a speed-up.
const HALVINGS: u32 = 50;

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It computes all blocks, and what it makes is kept.
    Compute,
    /// It leaves blocks out, where there is something to reuse.
    Reuse,
    /// It leaves these parts of every block out, where there is something to reuse: by their places in [`Part::ALL`].
    ReuseParts([bool; Part::ALL.len()]),
    /// It does without the transformer: its prediction is extrapolated over so many computed steps back, where there are some.
    Extrapolate(usize),
    /// What comes of its first block says, or of the steps before it.
    Ask,
}

impl Turn {
    /// Whether it is known to leave something out.
    pub fn reuses(self) -> bool {
        matches!(self, Turn::Reuse | Turn::ReuseParts(_) | Turn::Extrapolate(_))
    }
}

/// What each step of a video does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turns {
    /// One a step, of all steps.
    pub turns: Vec<Turn>,
    /// By what they are decided.
    pub decided: CacheDecision,
}

impl Turns {
    /// How many reuse; empty where that is found as they run.
    pub fn reused(&self) -> Option<u32> {
        let reused = || self.turns.iter().filter(|turn| turn.reuses()).count() as u32;
        (!self.turns.contains(&Turn::Ask)).then(reused)
    }
}

/// Which embeddings of the timesteps say which steps of `config` reuse, where some do: `true` for their modulations.
pub(crate) fn asks_for_modulations(config: &Config, model: &ModelSpec) -> Option<bool> {
    let fit = Published::of(model).and_then(Fit::of).filter(|_| config.flexcache == Flexcache::Teacache)?;
    Some(fit.input == Input::Modulation)
}

/// What each step does. `changes` has for each step how much the embedding of its timestep differs from that of the step before, where the model could be asked.
///
/// # Errors
/// A speed-up that leaving steps out cannot reach.
pub(crate) fn turns(config: &Config, model: &ModelSpec, timesteps: &[f64], changes: Option<&[f64]>, computes: bool) -> Result<Turns> {
    let steps = Steps { config, model, ranges: ranges(model, timesteps), all: timesteps.len() };
    let decided = match (config.flexcache, computes) {
        (Flexcache::Teacache | Flexcache::Firstblock | Flexcache::Freecache, true) => CacheDecision::Values,
        (Flexcache::Teacache | Flexcache::Firstblock | Flexcache::Freecache, false) => CacheDecision::Published,
        _ => CacheDecision::Steps,
    };
    let others = match config.flexcache {
        Flexcache::None => Vec::new(),
        Flexcache::Teacache => steps.teacache(changes)?,
        Flexcache::Magcache => steps.magcache()?,
        Flexcache::Firstblock if computes => steps.open([1, 0]).collect(),
        Flexcache::Firstblock => steps.spread(share_between(FIRST_BLOCK, first_block_threshold(config)), [1, 0]),
        // diffusers: `disable_cache_before_step`, and `cache_interval`.
        Flexcache::Taylorseer | Flexcache::TaylorseerModules => steps.every(steps.interval_or(5), [3, 0]),
        // Chitu: from .40 N to .95 N, five steps at either end computed in any case.
        Flexcache::Blockdance => {
            let share = |share: f64| (steps.all as f64 * share) as usize;
            steps.every(steps.interval_or(2), [share(0.4).max(5), (steps.all - share(0.95)).max(5)])
        }
        // Chitu: five steps at either end computed in any case. How many it leaves out was not published.
        Flexcache::Freecache if computes => steps.open([5, 5]).collect(),
        Flexcache::Freecache => Vec::new(),
        Flexcache::Meancache => steps.open([1, 0]).filter(|&step| steps.meancache(step).is_some()).collect(),
        Flexcache::Pab => steps.of_attention().concat(),
    };
    let turn = |step: usize| match config.flexcache {
        Flexcache::Firstblock | Flexcache::Freecache if computes => Turn::Ask,
        Flexcache::TaylorseerModules => Turn::ReuseParts([true; Part::ALL.len()]),
        Flexcache::Pab => {
            let [self_attention, cross_attention] = steps.of_attention().map(|steps| steps.contains(&step));
            Turn::ReuseParts([self_attention, cross_attention, false])
        }
        Flexcache::Meancache => steps.meancache(step).map_or(Turn::Compute, Turn::Extrapolate),
        _ => Turn::Reuse,
    };
    let mut turns = vec![Turn::Compute; steps.all];
    others.into_iter().for_each(|step| turns[step] = turn(step));
    Ok(Turns { turns, decided })
}

/// Refuses a speed-up that a cache cannot reach, before anything is loaded.
///
/// # Errors
/// The speed-up, and what to change.
pub fn check(config: &Config, model: &ModelSpec) -> Result<()> {
    let schedule = SigmaSchedule::of(config);
    // How many steps may reuse at most hangs on no value.
    turns(config, model, &schedule.timesteps, None, false).map(drop)
}

/// The threshold below which the first-block cache reuses.
pub(super) fn first_block_threshold(config: &Config) -> f64 {
    config.flexcache_threshold.unwrap_or(FIRST_BLOCK_THRESHOLD)
}

/// The steps of each transformer.
fn ranges(model: &ModelSpec, timesteps: &[f64]) -> Vec<Range<usize>> {
    let is_low_noise = |timestep: f64| model.pool.as_ref().is_some_and(|pool| timestep < pool.boundary * TRAIN_TIMESTEPS);
    let boundary = timesteps.iter().position(|&timestep| is_low_noise(timestep)).unwrap_or(timesteps.len());
    [0..boundary, boundary..timesteps.len()].into_iter().filter(|range| !range.is_empty()).collect()
}

struct Steps<'a> {
    config: &'a Config,
    model: &'a ModelSpec,
    /// Of each transformer.
    ranges: Vec<Range<usize>>,
    all: usize,
}

impl Steps<'_> {
    /// Of each transformer the steps that may reuse, where so many at its start, and at the end of the video, are computed by default. The first always is.
    fn open_ranges(&self, start: impl Fn(usize) -> usize, end: usize) -> Vec<Range<usize>> {
        let cooldown = self.config.flexcache_cooldown.map_or(end, |steps| steps as usize);
        let last = self.all.saturating_sub(cooldown);
        let open = |range: &Range<usize>| {
            let warmup = self.config.flexcache_warmup.map_or_else(|| start(range.len()), |steps| steps as usize).max(1);
            (range.start + warmup).min(range.end)..range.end.min(last).max((range.start + warmup).min(range.end))
        };
        self.ranges.iter().map(open).collect()
    }

    fn open(&self, [start, end]: [usize; 2]) -> impl Iterator<Item = usize> {
        self.open_ranges(|_| start, end).into_iter().flatten()
    }

    /// Those between which every so many are computed.
    fn every(&self, interval: usize, [start, end]: [usize; 2]) -> Vec<usize> {
        let of = |range: Range<usize>| {
            let first = range.start;
            range.filter(move |step| !(step - first).is_multiple_of(interval))
        };
        self.open_ranges(|_| start, end).into_iter().flat_map(of).collect()
    }

    /// Those that reuse what self-attention gave, and those that reuse what cross-attention gave. Chitu: ranges of two and three steps, five at either end computed in any case.
    fn of_attention(&self) -> [Vec<usize>; 2] {
        let of_cross = self.config.flexcache_cross_interval.map_or(3, |steps| steps as usize);
        [self.interval_or(2), of_cross].map(|interval| self.every(interval, [5, 5]))
    }

    fn interval_or(&self, default: usize) -> usize {
        self.config.flexcache_interval.map_or(default, |steps| steps as usize)
    }

    /// So many evenly among those that may reuse that this share of all is computed.
    fn spread(&self, share: f64, ends: [usize; 2]) -> Vec<usize> {
        let open: Vec<usize> = self.open(ends).collect();
        let wanted = (((1.0 - share) * self.all as f64).round().max(0.0) as usize).min(open.len());
        let reused = (0..open.len()).filter(|place| (place + 1) * wanted / open.len() > place * wanted / open.len());
        reused.map(|place| open[place]).collect()
    }

    fn teacache(&self, changes: Option<&[f64]>) -> Result<Vec<usize>> {
        let fit = Published::of(self.model).and_then(Fit::of).expect("a configuration has it for these models alone");
        let Some(changes) = changes else {
            let share = match self.config.flexcache_speedup {
                Some(speedup) => 1.0 / speedup,
                None => fit.published_share(self.config.flexcache_threshold.unwrap_or(fit.threshold)),
            };
            let reused = self.spread(share, fit.ends);
            return self.config.flexcache_speedup.map_or(Ok(()), |speedup| self.check_speedup(speedup, reused.len())).map(|()| reused);
        };
        let (open, interval) = (self.open_ranges(|_| fit.ends[0], fit.ends[1]), self.interval_or(usize::MAX));
        self.for_threshold(fit.threshold, |threshold| {
            let mut reused = Vec::new();
            for range in &open {
                let (mut change, mut skipped) = (0.0, 0);
                for step in range.clone() {
                    (change, skipped) = (change + fit.at(changes[step]), skipped + 1);
                    if change < threshold && skipped < interval {
                        reused.push(step);
                    } else {
                        (change, skipped) = (0.0, 0);
                    }
                }
            }
            reused
        })
    }

    fn magcache(&self) -> Result<Vec<usize>> {
        let published = Published::of(self.model).expect("a configuration has it for these models alone");
        let defaults = magcache::Defaults::of(published);
        let ratios = magcache::ratios(published, self.all);
        let branches = if self.config.has_guidance() { &ratios[..] } else { &ratios[..1] };
        let interval = self.interval_or(3);
        let open = self.open_ranges(|steps| (steps as f64 * defaults.retention) as usize, 0);
        self.for_threshold(defaults.threshold, |threshold| {
            open.iter().flat_map(|range| magcache::reuse(branches, range.clone(), threshold, interval)).collect()
        })
    }

    /// Over how many computed steps back `step` is extrapolated; nothing where the table has the transformer predict.
    fn meancache(&self, step: usize) -> Option<usize> {
        meancache::order(self.config.flexcache_fresh_steps.unwrap_or(meancache::FRESH_STEPS), step, self.all)
    }

    /// What `reused` says of the threshold that is set; or of the least one that makes the steps as many times as fast as that is wanted.
    fn for_threshold(&self, default: f64, reused: impl Fn(f64) -> Vec<usize>) -> Result<Vec<usize>> {
        let Some(speedup) = self.config.flexcache_speedup else {
            return Ok(reused(self.config.flexcache_threshold.unwrap_or(default)));
        };
        let (mut low, mut high) = (0.0, 16.0);
        self.check_speedup(speedup, reused(high).len())?;
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if self.speedup(reused(middle).len()) < speedup { low = middle } else { high = middle }
        }
        Ok(reused(high))
    }

    /// How many times as fast all steps are where so many take no time.
    fn speedup(&self, reused: usize) -> f64 {
        self.all as f64 / (self.all - reused) as f64
    }

    fn check_speedup(&self, wanted: f64, most: usize) -> Result<()> {
        // A step more or less is what whole steps allow.
        let reached = self.all as f64 / (self.all - most).saturating_sub(1).max(1) as f64;
        if reached >= wanted {
            return Ok(());
        }
        Err(Error::Input(format!(
            "flexcache_speedup={wanted}: with these steps at the ends computed at most {:.2} is reached: ask for less, or lower flexcache_warmup or raise flexcache_interval",
            self.speedup(most)
        )))
    }
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Device, Settings, parse_setting};

    use super::*;

    fn model(pool: bool) -> ModelSpec {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sweeps/models/wan-tiny.yaml");
        let mut model: ModelSpec = serde_yaml::from_str(&std::fs::read_to_string(path).expect("the tiny model")).expect("a model");
        model.name = if pool { "wan2.2-t2v-a14b" } else { "wan2.1-t2v-14b" }.into();
        model.pool = pool.then_some(engine_protocol::PoolSpec { boundary: 0.875, low_noise_guidance_scale: None });
        model
    }

    /// The steps that reuse of 20, with such changes of the timesteps' embedding where values are computed.
    fn reused(settings: &[&str], pool: bool, changes: Option<&[f64]>) -> Result<Vec<usize>> {
        let settings = settings.iter().copied().chain(["steps=20"]).map(|text| parse_setting(text).expect("a setting"));
        let model = model(pool);
        let config = Config::resolve_on(Device::Cuda, &Settings::from_pairs(settings).expect("settings"), &model).expect("legal");
        let timesteps: Vec<f64> = (0..20).map(|step| 1000.0 - 25.0 * f64::from(step)).collect();
        let Turns { turns, decided } = turns(&config, &model, &timesteps, changes, changes.is_some())?;
        assert_eq!(decided == CacheDecision::Published, changes.is_none() && config.flexcache == Flexcache::Teacache);
        Ok((0..20).filter(|&step| turns[step] == Turn::Reuse).collect())
    }

    #[test]
    fn teacache_adds_up_what_the_polynomial_makes_of_changes() {
        let fit = Fit::of(Published::T2v14b).expect("there is one");
        // A change of which the polynomial makes 0.05.
        let change = (0..200_000).map(|step| f64::from(step) * 1e-6).find(|&change| fit.at(change) >= 0.05).expect("one does");
        assert!((fit.at(change) - 0.05).abs() < 1e-3);
        let changes = vec![change; 20];
        let all = |settings: &[&str]| reused(settings, false, Some(&changes)).expect("steps");
        // Five at the start; then of four steps the last, when 0.2 is reached.
        assert_eq!(all(&["flexcache=teacache", "flexcache_threshold=0.19"]), [5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19]);
        assert_eq!(all(&["flexcache=teacache", "flexcache_threshold=0.19", "flexcache_cooldown=3"]), [5, 6, 7, 9, 10, 11, 13, 14, 15]);
        assert_eq!(all(&["flexcache=teacache", "flexcache_threshold=0.09", "flexcache_warmup=1"]), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
        assert_eq!(all(&["flexcache=teacache", "flexcache_threshold=0"]), [0; 0]);
        // Twice as fast: at least half of all.
        assert_eq!(all(&["flexcache=teacache", "flexcache_speedup=2"]).len(), 10);
        let error =
            reused(&["flexcache=teacache", "flexcache_speedup=7"], false, Some(&changes)).expect_err("five steps are computed").to_string();
        assert!(error.contains("flexcache_speedup=7") && error.contains("flexcache_warmup"), "{error}");
    }

    #[test]
    fn without_values_so_many_reuse_as_were_published() {
        let count = |settings: &[&str]| reused(settings, false, None).expect("steps").len();
        assert_eq!(count(&["flexcache=teacache", "flexcache_threshold=0.2"]), 20 - 10, "27 of 55 minutes were left");
        assert_eq!(count(&["flexcache=teacache", "flexcache_threshold=0.14"]), 20 - 14, "38 of 55");
        assert_eq!(count(&["flexcache=teacache", "flexcache_threshold=0"]), 0);
        assert_eq!(count(&["flexcache=teacache", "flexcache_speedup=2"]), 10);
    }

    #[test]
    fn each_of_two_transformers_computes_its_first_steps() {
        // The boundary is at 875: the sixth step is the second transformer's first.
        let steps = reused(&["flexcache=magcache", "flexcache_threshold=9"], true, None).expect("steps");
        assert!(!steps.contains(&0) && !steps.contains(&6), "{steps:?}");
        assert_eq!(
            reused(&["flexcache=taylorseer", "flexcache_interval=2", "flexcache_warmup=1"], true, None).expect("steps"),
            [2, 4, 8, 10, 12, 14, 16, 18]
        );
    }

    #[test]
    fn block_dance_skips_every_other_step_in_the_middle() {
        assert_eq!(reused(&["flexcache=blockdance"], false, None).expect("steps"), [9, 11, 13]);
        assert_eq!(
            reused(&["flexcache=blockdance", "flexcache_interval=3", "flexcache_warmup=2", "flexcache_cooldown=12"], false, None)
                .expect("steps"),
            [3, 4, 6, 7]
        );
    }

    #[test]
    fn mean_cache_has_its_steps_from_a_table() {
        let turns = |settings: &[&str], pool: bool| {
            let model = model(pool);
            let settings = settings.iter().copied().chain(["flexcache=meancache"]).map(|text| parse_setting(text).expect("a setting"));
            let config = Config::resolve(&Settings::from_pairs(settings).expect("settings"), &model).expect("legal");
            turns(&config, &model, &SigmaSchedule::of(&config).timesteps, None, false).expect("turns")
        };
        let all = turns(&["steps=50"], false);
        assert_eq!((all.reused(), all.decided), (Some(25), CacheDecision::Steps));
        assert_eq!((all.turns[16], all.turns[17], all.turns[42]), (Turn::Compute, Turn::Extrapolate(1), Turn::Extrapolate(5)));
        assert_eq!(
            turns(&["steps=50", "flexcache_fresh_steps=10", "flexcache_warmup=7", "flexcache_cooldown=7"], false).reused(),
            Some(30)
        );
        // Of each of two transformers the first step is computed, whatever the table has.
        let pool = turns(&["steps=50"], true);
        let more: Vec<_> = (0..50).filter(|&step| pool.turns[step] != all.turns[step]).collect();
        assert!(more.len() == 1 && pool.turns[more[0]] == Turn::Compute, "{more:?}");
    }

    #[test]
    fn cross_attention_is_computed_less_often_than_self_attention() {
        let model = model(false);
        let settings = ["steps=20", "flexcache=pab"].map(|text| parse_setting(text).expect("a setting"));
        let config = Config::resolve(&Settings::from_pairs(settings).expect("settings"), &model).expect("legal");
        let timesteps: Vec<f64> = (0..20).map(|step| 1000.0 - 25.0 * f64::from(step)).collect();
        let turns = turns(&config, &model, &timesteps, None, false).expect("turns");
        let parts = |attention, cross| Turn::ReuseParts([attention, cross, false]);
        // Five at either end are computed, and both in the sixth, which is the first of each range.
        let wanted = [Turn::Compute, parts(true, true), parts(false, true), parts(true, false), parts(false, true), parts(true, true)];
        assert_eq!(turns.turns[5..11], wanted);
        assert_eq!((&turns.turns[..5], &turns.turns[15..]), (&[Turn::Compute; 5][..], &[Turn::Compute; 5][..]));
        assert_eq!(turns.reused(), Some(8), "all but the sixth and the twelfth");
    }
}
