//! `lowmem max`: the largest video that fits, by bisection over predictions; the end of each is run.

use std::sync::atomic::{AtomicU64, Ordering};

use engine_protocol::{Config, Device, ModelSpec, RunRecord};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{one_video, table};
use crate::autotune::{Need, Quick};
use crate::cli::MaxArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::json::{self, CaseJson, NeedJson};
use crate::model::Models;
use crate::progress::Progress;
use crate::rank_plans::RankGpus;
use crate::splits::{self, Way};
use crate::sweep::{Case, Definition, Rules, expand};
use crate::testbed::Testbed;
use crate::worker::Launcher;

/// Widths to heights of videos, as people name them.
const RATIOS: [(u32, u32); 5] = [(16, 9), (9, 16), (4, 3), (1, 1), (21, 9)];
/// The largest side that is looked at, in pixels; and the most frames.
const LARGEST: u32 = 4096;
const MOST_FRAMES: u32 = 2001;

/// What is as large as can be.
struct Largest {
    what: String,
    found: Found,
}

impl Largest {
    fn pixels(&self) -> u64 {
        self.found.config().resolution.pixels()
    }
}

/// As it ran, or as it is predicted.
enum Found {
    Ran(Box<RunRecord>),
    Predicted(Box<Case>, Need),
}

impl Found {
    fn ran(record: RunRecord) -> Self {
        Self::Ran(Box::new(record))
    }

    fn config(&self) -> &Config {
        match self {
            Self::Ran(record) => &record.config,
            Self::Predicted(case, _) => &case.config,
        }
    }

    fn gpu_bytes(&self) -> Option<u64> {
        match self {
            Self::Ran(record) => record.peak_device_bytes(),
            Self::Predicted(_, need) => Some(need.gpu_bytes),
        }
    }

    fn ram_bytes(&self) -> Option<u64> {
        match self {
            Self::Ran(record) => record.host_needed_bytes(),
            Self::Predicted(_, need) => Some(need.ram_bytes),
        }
    }

    /// The command that makes it.
    fn command(&self, testbed: &Testbed, model: &ModelSpec) -> String {
        match self {
            Self::Ran(record) => reports::generate_line(record, record.device, Some(model)),
            Self::Predicted(case, _) => {
                let cards = std::iter::once(testbed).chain(&testbed.others).filter_map(|testbed| testbed.profile.as_ref());
                let cards: Vec<&str> = cards.map(|card| card.name.as_str()).collect();
                reports::generate_line_on(&case.config, &cards, testbed.device, Some(model))
            }
        }
    }

    fn as_json(&self, testbed: &Testbed, model: &ModelSpec) -> CaseJson {
        match self {
            Self::Ran(record) => CaseJson::new(record, record.device, Some(model)),
            Self::Predicted(case, _) => CaseJson::that_did_not_run(&case.name, &case.config, self.command(testbed, model)),
        }
    }
}

/// Prints the largest sizes for the frames, or the most frames for the size.
pub(crate) fn run(arguments: &MaxArguments) -> Result<ExitCode, Error> {
    let testbed = Testbed::planned_for_ranks(arguments.device.wanted())?;
    let (models, launcher, interrupt) = (Models::load()?, Launcher::find(Device::Virtual)?, Interrupt::listen()?);
    let definition = one_video::definition("max", &arguments.video, &[], &arguments.settings)?;
    let fixed = one_video::with_model(&definition);
    let on = RankGpus::of(&testbed);
    let ways = splits::to_search(&definition, arguments.gpus.wanted(on.named())?, &on)?;
    let quick = Quick { testbed: &testbed, launcher: &launcher, models: &models, interrupt: &interrupt, ways: &ways, cuts_finest: false };
    let of = |key: &str| fixed.iter().find(|(other, _)| other == key).map(|(_, value)| value);
    let model = models.get(of("model").and_then(Value::as_str).unwrap_or_default())?;
    // What a file says of both is a video that is known; what is asked for is how much more there could be.
    let is_asked = |key: &str| {
        let words = arguments.settings.iter().filter_map(|word| word.split('=').next());
        arguments.video.keys().iter().map(|(key, _)| *key).chain(words).any(|other| other == key)
    };
    let is_on_several = ways != [Way::ONE];
    let mut kept: Vec<_> = fixed.iter().filter(|(key, _)| !["resolution", "frames"].contains(&key.as_str())).cloned().collect();
    if is_on_several && of("steps_measured").is_none() && of("steps").is_none() {
        // Ranks meet at each exchange, of which a step of so large a video has hundreds of thousands. The first step holds what all others do.
        kept.push(("steps_measured".to_owned(), json!(1)));
    }
    let search = Ends { quick: &quick, fixed: kept };
    let mut found = Vec::new();
    match (of("resolution").and_then(Value::as_str).filter(|_| is_asked("resolution")), is_asked("frames")) {
        (Some(_), true) => {
            return Err(Error::input("give --frames for the largest size, or --resolution for the most frames, and not both"));
        }
        (Some(resolution), false) => {
            let most = search.most_frames(resolution)?;
            found.extend(most.map(|record| Largest { what: record.config.resolution.to_string(), found: Found::ran(record) }));
        }
        (None, _) => {
            let frames = of("frames").and_then(Value::as_i64).unwrap_or_else(|| model.sampling.frames.into());
            found.extend(search.largest_sizes(frames, is_on_several)?);
        }
    }
    if interrupt.is_wanted() {
        return Ok(ExitCode::Interrupted);
    }
    if arguments.json {
        let largest = found.iter().map(|largest| LargestJson {
            of: largest.what.clone(),
            case: largest.found.as_json(&testbed, model),
            predicted: match &largest.found {
                Found::Ran(_) => None,
                Found::Predicted(_, need) => Some(need.as_json()),
            },
        });
        json::print(&MaxJson {
            model: model.name.clone(),
            gpu: testbed.profile.as_ref().map(|gpu| gpu.name.clone()),
            capacity_bytes: testbed.capacity_bytes,
            largest: largest.collect(),
        })?;
    } else {
        print(&found, &testbed, model);
    }
    Ok(if found.is_empty() { ExitCode::NothingFits } else { ExitCode::Done })
}

/// Ends of what fits.
struct Ends<'a> {
    quick: &'a Quick<'a>,
    fixed: Vec<(String, Value)>,
}

impl Ends<'_> {
    /// The largest size of each ratio with so many frames, side by side: a run computes nothing and has one core. On several GPUs, whose ranks meet at each exchange, the
    /// largest of them runs and the others are predicted.
    fn largest_sizes(&self, frames: i64, is_on_several: bool) -> Result<Vec<Largest>, Error> {
        let (progress, done) = (Progress::new(RATIOS.len(), "ratios"), AtomicU64::new(0));
        let each = RATIOS.into_par_iter().map(|(wide, high)| {
            let sizes = self.legal(&Self::sizes((wide, high), frames));
            let fitting = &sizes[..self.fitting_by_prediction(&sizes)?];
            let found = if is_on_several { self.last_prediction(fitting)? } else { self.last_that_runs(fitting)?.map(Found::ran) };
            progress.reach(done.fetch_add(1, Ordering::Relaxed) + 1, RATIOS.len() as u64);
            Ok(found.map(|found| (Largest { what: format!("{wide}:{high}"), found }, fitting.to_vec())))
        });
        let each = each.collect::<Result<Vec<_>, Error>>();
        progress.finish();
        let mut each: Vec<_> = each?.into_iter().flatten().collect();
        if let (true, Some(last)) = (is_on_several, each.iter().map(|(largest, _)| largest.pixels()).max()) {
            let at = each.iter().position(|(largest, _)| largest.pixels() == last).unwrap_or_default();
            match self.last_that_runs(&each[at].1)? {
                Some(record) => each[at].0.found = Found::ran(record),
                None => drop(each.remove(at)),
            }
        }
        Ok(each.into_iter().map(|(largest, _)| largest).collect())
    }

    /// All sizes of that ratio, the smallest first.
    fn sizes((wide, high): (u32, u32), frames: i64) -> Vec<Vec<(String, Value)>> {
        let longer = |step: u32| step * 32;
        let sizes = (1..=LARGEST / 32).map(|step| {
            let (long, short) = (longer(step), wide.min(high) * longer(step) / wide.max(high) / 32 * 32);
            if wide >= high { (long, short) } else { (short, long) }
        });
        let mut sizes: Vec<_> =
            sizes.filter(|(width, height)| *width > 0 && *height > 0).map(|(width, height)| format!("{width}x{height}")).collect();
        sizes.dedup();
        sizes.iter().map(|size| vec![("resolution".to_owned(), json!(size)), ("frames".to_owned(), json!(frames))]).collect()
    }

    /// The most frames at that size.
    fn most_frames(&self, resolution: &str) -> Result<Option<RunRecord>, Error> {
        let counts =
            (1..=MOST_FRAMES).map(|frames| vec![("resolution".to_owned(), json!(resolution)), ("frames".to_owned(), json!(frames))]);
        let counts = self.legal(&counts.collect::<Vec<_>>());
        let fitting = self.fitting_by_prediction(&counts)?;
        self.last_that_runs(&counts[..fitting])
    }

    /// Those of these settings that are legal, with what is fixed.
    fn legal(&self, settings: &[Vec<(String, Value)>]) -> Vec<Vec<(String, Value)>> {
        settings.iter().map(|own| [&self.fixed[..], own].concat()).filter(|fixed| self.is_legal(fixed)).collect()
    }

    /// How many of these settings may fit by prediction, of which each takes more than the one before it.
    fn fitting_by_prediction(&self, legal: &[Vec<(String, Value)>]) -> Result<usize, Error> {
        // All below `fits` may fit by prediction, and `fails` and all above do not.
        let (mut fits, mut fails) = (0, legal.len());
        while fits < fails {
            let middle = (fits + fails) / 2;
            if self.quick.may_fit(&legal[middle])? { fits = middle + 1 } else { fails = middle }
        }
        Ok(fits)
    }

    /// The last of these settings that is predicted to run, and how.
    fn last_prediction(&self, fitting: &[Vec<(String, Value)>]) -> Result<Option<Found>, Error> {
        let Some(fixed) = fitting.last() else { return Ok(None) };
        Ok(self.quick.prediction(fixed)?.map(|(case, need)| Found::Predicted(Box::new(case), need)))
    }

    /// The last of these settings that fits as it runs, of which each takes more than the one before it. A run may need more than was predicted.
    fn last_that_runs(&self, fitting: &[Vec<(String, Value)>]) -> Result<Option<RunRecord>, Error> {
        // `fails` and all above do not fit. The last one that does is most often near: it is looked for in steps that double, and then between two of them.
        let (mut fails, mut step, mut found) = (fitting.len(), 1, None);
        while fails > 0 && found.is_none() && !self.quick.interrupt.is_wanted() {
            let at = fails.saturating_sub(step);
            match self.quick.answer(&fitting[at])?.record {
                Some(record) => found = Some((at, record)),
                None => (fails, step) = (at, 2 * step),
            }
        }
        while let Some((fits, _)) = found.as_ref().filter(|(fits, _)| fits + 1 < fails) {
            let middle = (fits + fails) / 2;
            match self.quick.answer(&fitting[middle])?.record {
                Some(record) => found = Some((middle, record)),
                None => fails = middle,
            }
        }
        Ok(found.map(|(_, record)| record))
    }

    fn is_legal(&self, fixed: &[(String, Value)]) -> bool {
        let mut definition = Definition::empty("max");
        fixed.iter().cloned().for_each(|(key, value)| definition.fix(key, value));
        expand(&definition, self.quick.models, Rules { device: Device::Virtual, may_shorten: true }).is_ok()
    }
}

fn print(found: &[Largest], testbed: &Testbed, model: &ModelSpec) {
    say!("{}\n{}\n", testbed.choice, testbed.ram.said);
    if found.is_empty() {
        say!("Nothing fits: `lowmem autotune --model {}` says what is missing.", model.name);
        return;
    }
    let mut table = table(&["", "largest", "frames", "level", "GPU GiB", "RAM GiB", "time"], &[2, 3, 4, 5]);
    for Largest { what, found } in found {
        let secs = match found {
            Found::Ran(record) => record.total_secs(),
            Found::Predicted(..) => None,
        };
        let time = secs.map(|secs| reports::rough_time(secs.expected)).unwrap_or_default();
        let config = found.config();
        table.add_row([
            what.clone(),
            config.resolution.to_string(),
            config.frames.to_string(),
            config.low_mem_level.to_string(),
            reports::in_gib(found.gpu_bytes()),
            reports::in_gib(found.ram_bytes()),
            time,
        ]);
    }
    say!("{table}");
    if found.iter().any(|largest| matches!(largest.found, Found::Predicted(..))) {
        say!("The largest was run on virtual GPUs: memory is counted, RAM predicted, times");
        say!("estimated. The rows without a time are predicted, and were not run. A step");
        say!("larger does not fit with heads taken 4 at a time, or was not looked at: sides");
        say!("go up to {LARGEST}, frames to {MOST_FRAMES}.");
    } else {
        say!("Each row was run on a virtual GPU: memory is counted, RAM predicted, times");
        say!("estimated. A step larger does not fit with heads taken 4 at a time, or was");
        say!("not looked at: sides go up to {LARGEST}, frames to {MOST_FRAMES}.");
    }
    let ran = found.iter().filter_map(|largest| match &largest.found {
        Found::Ran(record) => Some((largest.pixels(), &largest.found, record)),
        Found::Predicted(..) => None,
    });
    if let Some((_, largest, record)) = ran.max_by_key(|(pixels, ..)| *pixels) {
        let taken = reports::taken(record, testbed.capacity_bytes, 2).unwrap_or_default();
        say!("\nThe largest takes {taken}. Run it: {}", largest.command(testbed, model));
    }
}

/// The largest videos that fit.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MaxJson {
    model: String,
    gpu: Option<String>,
    /// What the GPU or the budget holds.
    capacity_bytes: Option<u64>,
    largest: Vec<LargestJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Largest")]
struct LargestJson {
    /// The ratio of sides that it is the largest of, or the size that it has the most frames at.
    of: String,
    #[serde(flatten)]
    case: CaseJson,
    /// What it is predicted to take, where it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<NeedJson>,
}
