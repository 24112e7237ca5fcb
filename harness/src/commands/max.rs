//! `lowmem max`: the largest video that fits, by bisection over predictions; the end of each is run.

use std::sync::atomic::{AtomicU64, Ordering};

use engine_protocol::{Device, ModelSpec, RunRecord, gib};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{one_video, table};
use crate::autotune::Quick;
use crate::cli::MaxArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::json::{self, CaseJson};
use crate::model::Models;
use crate::progress::Progress;
use crate::rank_plans::RankGpus;
use crate::splits;
use crate::sweep::{Definition, Rules, expand};
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
    record: RunRecord,
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
    let search =
        Ends { quick: &quick, fixed: fixed.iter().filter(|(key, _)| !["resolution", "frames"].contains(&key.as_str())).cloned().collect() };
    let mut found = Vec::new();
    match (of("resolution").and_then(Value::as_str).filter(|_| is_asked("resolution")), is_asked("frames")) {
        (Some(_), true) => {
            return Err(Error::input("give --frames for the largest size, or --resolution for the most frames, and not both"));
        }
        (Some(resolution), false) => {
            found.extend(search.most_frames(resolution)?.map(|record| Largest { what: record.config.resolution.to_string(), record }))
        }
        (None, _) => {
            let frames = of("frames").and_then(Value::as_i64).unwrap_or_else(|| model.sampling.frames.into());
            // Side by side: a run computes nothing and has one core.
            let (progress, done) = (Progress::new(RATIOS.len(), "ratios"), AtomicU64::new(0));
            let largest = RATIOS.into_par_iter().map(|(wide, high)| {
                let record = search.largest_size((wide, high), frames)?;
                progress.reach(done.fetch_add(1, Ordering::Relaxed) + 1, RATIOS.len() as u64);
                Ok(record.map(|record| Largest { what: format!("{wide}:{high}"), record }))
            });
            let largest = largest.collect::<Result<Vec<_>, Error>>();
            progress.finish();
            found.extend(largest?.into_iter().flatten());
        }
    }
    if interrupt.is_wanted() {
        return Ok(ExitCode::Interrupted);
    }
    if arguments.json {
        let largest = found.iter().map(|largest| LargestJson {
            of: largest.what.clone(),
            case: CaseJson::new(&largest.record, largest.record.device, Some(model)),
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
    /// The largest size of that ratio with so many frames.
    fn largest_size(&self, (wide, high): (u32, u32), frames: i64) -> Result<Option<RunRecord>, Error> {
        let longer = |step: u32| step * 32;
        let sizes = (1..=LARGEST / 32).map(|step| {
            let (long, short) = (longer(step), wide.min(high) * longer(step) / wide.max(high) / 32 * 32);
            if wide >= high { (long, short) } else { (short, long) }
        });
        let mut sizes: Vec<_> =
            sizes.filter(|(width, height)| *width > 0 && *height > 0).map(|(width, height)| format!("{width}x{height}")).collect();
        sizes.dedup();
        self.last_that_fits(
            &sizes
                .iter()
                .map(|size| vec![("resolution".to_owned(), json!(size)), ("frames".to_owned(), json!(frames))])
                .collect::<Vec<_>>(),
        )
    }

    /// The most frames at that size.
    fn most_frames(&self, resolution: &str) -> Result<Option<RunRecord>, Error> {
        let counts =
            (1..=MOST_FRAMES).map(|frames| vec![("resolution".to_owned(), json!(resolution)), ("frames".to_owned(), json!(frames))]);
        self.last_that_fits(&counts.collect::<Vec<_>>())
    }

    /// The last of these settings with which something fits: each takes more than the one before it. By prediction first, then as it runs.
    fn last_that_fits(&self, settings: &[Vec<(String, Value)>]) -> Result<Option<RunRecord>, Error> {
        let legal: Vec<Vec<(String, Value)>> =
            settings.iter().map(|own| [&self.fixed[..], own].concat()).filter(|fixed| self.is_legal(fixed)).collect();
        // All below `fits` may fit by prediction, and `fails` and all above do not.
        let (mut fits, mut fails) = (0, legal.len());
        while fits < fails {
            let middle = (fits + fails) / 2;
            if self.quick.may_fit(&legal[middle])? { fits = middle + 1 } else { fails = middle }
        }
        // A run may need a little more than was predicted.
        for fixed in legal[..fits].iter().rev().take(4) {
            if let Some(record) = self.quick.answer(fixed)?.record {
                return Ok(Some(record));
            }
        }
        Ok(None)
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
    for Largest { what, record } in found {
        let time = record.total_secs().map(|secs| reports::rough_time(secs.expected)).unwrap_or_default();
        let config = &record.config;
        table.add_row([
            what.clone(),
            config.resolution.to_string(),
            config.frames.to_string(),
            config.low_mem_level.to_string(),
            reports::in_gib(record.peak_device_bytes()),
            reports::in_gib(record.host_needed_bytes()),
            time,
        ]);
    }
    say!("{table}");
    say!("Each row was run on a virtual GPU: memory is counted, RAM predicted, times");
    say!("estimated. A step larger does not fit with heads taken 4 at a time, or was");
    say!("not looked at: sides go up to {LARGEST}, frames to {MOST_FRAMES}.");
    let largest = found.iter().max_by_key(|largest| largest.record.config.resolution.pixels());
    if let Some(Largest { record, .. }) = largest {
        let held = testbed.capacity_bytes.map(|bytes| format!(" of {:.2}", gib(bytes))).unwrap_or_default();
        say!(
            "\nThe largest takes {}{held} GiB{}. Run it: {}",
            reports::in_gib(record.peak_device_bytes()),
            reports::on_fullest(&record.config),
            reports::generate_line(record, record.device, Some(model))
        );
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
}
