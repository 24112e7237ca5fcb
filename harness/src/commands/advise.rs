//! `lowmem advise`, and `lowmem` alone: for each model what this machine can do with it, in a few lines. One case a model and size runs; a whole search is autotune's.

use engine_protocol::{Config, Device, ModelSpec, RunRecord, gib};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::autotune::{Quick, QuickAnswer};
use crate::cli::{AdviseArguments, DeviceArguments};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::host;
use crate::interrupt::Interrupt;
use crate::json::{self, CaseJson, NeedJson};
use crate::model::{Models, is_made_small};
use crate::rank_plans::RankGpus;
use crate::real_gpu;
use crate::splits;
use crate::sweep::Definition;
use crate::testbed::{Testbed, Wanted};
use crate::worker::Launcher;

/// The smaller of the sizes that people make videos in.
const SMALLER: &str = "832x480";
/// A video that takes less is not worth a smaller size.
const LONG_SECS: f64 = 1800.0;

/// What is known of a model here.
struct Advice<'a> {
    model: &'a ModelSpec,
    /// At the model's own size.
    usual: QuickAnswer,
    /// At a smaller size, where the model's own is larger.
    smaller: Option<QuickAnswer>,
}

/// Says for each model how it runs here, or on the GPU that is named.
pub(crate) fn run(arguments: &AdviseArguments) -> Result<ExitCode, Error> {
    let testbed = testbed(&arguments.device)?;
    let (models, launcher, interrupt) = (Models::load()?, Launcher::find(Device::Virtual)?, Interrupt::listen()?);
    let on = RankGpus::of(&testbed);
    let ways = splits::to_search(&Definition::empty("advise"), arguments.gpus.wanted(on.named())?, &on)?;
    let quick = Quick { testbed: &testbed, launcher: &launcher, models: &models, interrupt: &interrupt, ways: &ways, cuts_finest: true };
    let asked: Vec<&ModelSpec> = match &arguments.model {
        Some(name) => vec![models.get(name)?],
        None => models.iter().filter(|model| !is_made_small(&model.name)).collect(),
    };
    let advice = advice(&quick, asked)?;
    if interrupt.is_wanted() {
        return Ok(ExitCode::Interrupted);
    }
    if arguments.json {
        json::print(&AdviseJson {
            gpu: testbed.profile.as_ref().map(|gpu| gpu.name.clone()),
            capacity_bytes: testbed.capacity_bytes,
            ram_bytes: testbed.ram.bytes,
            models: advice.iter().map(|advice| advice.as_json(testbed.device)).collect(),
        })?;
    } else {
        say!("{}\n{}", testbed.choice, testbed.ram.said);
        advice.iter().for_each(|advice| print(advice, &testbed));
        say!("\nGPU memory is counted on a virtual GPU, RAM is predicted, times are estimated.");
        say!("`lowmem autotune --model NAME` searches further; `lowmem max` finds the largest video.");
    }
    let fits = advice
        .iter()
        .any(|advice| advice.usual.record.is_some() || advice.smaller.as_ref().is_some_and(|smaller| smaller.record.is_some()));
    Ok(if fits { ExitCode::Done } else { ExitCode::NothingFits })
}

/// A virtual GPU of the kind that is here, or that is named; with this machine's memory in the first case.
fn testbed(wanted: &DeviceArguments) -> Result<Testbed, Error> {
    let here = real_gpu::list().unwrap_or_default();
    let gpu = wanted.gpu.clone().or_else(|| here.iter().max_by_key(|gpu| gpu.memory_bytes).map(|gpu| gpu.title.clone()));
    let Some(gpu) = gpu else {
        return Err(Error::input(
            "there is no NVIDIA GPU here: say which one you have, or think of, and how much memory the machine has: lowmem advise --gpu 12GB --ram 32GB",
        ));
    };
    let total = host_memory::meminfo_bytes("MemTotal").filter(|_| wanted.gpu.is_none());
    let ram = wanted.ram.clone().or_else(|| total.map(|bytes| format!("{:.0}GB", gib(bytes).ceil())));
    Testbed::planned_for_ranks(Wanted { gpu: Some(&gpu), ram: ram.as_deref(), ..wanted.wanted() })
}

/// What is known of each of `models`: at its own size, and at the smaller one where that may be wanted.
fn advice<'a>(quick: &Quick<'_>, models: Vec<&'a ModelSpec>) -> Result<Vec<Advice<'a>>, Error> {
    let usual_size = |model: &ModelSpec| vec![("model".to_owned(), json!(model.name))];
    // To start the worker takes longer than to plan a model: there are as many lots as cores, each planned by one worker.
    let lots: Vec<&[&ModelSpec]> = models.chunks(models.len().div_ceil(host::cores()).max(1)).collect();
    let of_lot = |lot: &&[&ModelSpec]| quick.answers(&lot.iter().map(|model| usual_size(model)).collect::<Vec<_>>());
    let usual = lots.par_iter().map(of_lot).collect::<Result<Vec<_>, Error>>()?.concat();
    let is_alone = models.len() == 1;
    let is_wanted: Vec<bool> = models.iter().zip(&usual).map(|(model, usual)| may_want_smaller(model, usual, is_alone)).collect();
    let wanted = models.iter().zip(&is_wanted).filter(|&(_, &is_wanted)| is_wanted);
    let smaller: Vec<_> = wanted.map(|(model, _)| [usual_size(model), vec![("resolution".to_owned(), json!(SMALLER))]].concat()).collect();
    let mut smaller = if smaller.is_empty() { Vec::new() } else { quick.answers(&smaller)? }.into_iter();
    let all = models.into_iter().zip(usual).zip(is_wanted);
    Ok(all.map(|((model, usual), is_wanted)| Advice { model, usual, smaller: if is_wanted { smaller.next() } else { None } }).collect())
}

/// Whether it is tried how videos of the smaller size run, since the model's own does not fit, or takes long. Of several models the second is left to `--model`: an answer is to come at once.
fn may_want_smaller(model: &ModelSpec, usual: &QuickAnswer, is_alone: bool) -> bool {
    is_larger(model) && (usual.record.is_none() || is_alone && takes_long(usual))
}

/// Whether the model's own size is larger than the smaller one.
fn is_larger(model: &ModelSpec) -> bool {
    let [width, height] = model.sampling.resolution;
    u64::from(width) * u64::from(height) > 832 * 480
}

fn takes_long(usual: &QuickAnswer) -> bool {
    usual.record.as_ref().and_then(RunRecord::total_secs).is_none_or(|secs| secs.expected >= LONG_SECS)
}

fn print(advice: &Advice<'_>, testbed: &Testbed) {
    let model = advice.model;
    let [width, height] = model.sampling.resolution;
    say!("\n{} ({width}x{height}, {} frames)", model.name, model.sampling.frames);
    let small = advice.smaller.as_ref().and_then(|smaller| smaller.record.as_ref());
    match &advice.usual.record {
        Some(record) => {
            describe(record, testbed, model);
            if let Some(small) = small {
                let time = small.total_secs().map(|secs| format!(", {}", reports::rough_time(secs.expected))).unwrap_or_default();
                say!("  Faster   resolution={SMALLER}: {} GiB{time}", reports::in_gib(small.peak_device_bytes()));
            } else if advice.smaller.is_none() && is_larger(model) && takes_long(&advice.usual) {
                say!("  Faster   resolution={SMALLER}: lowmem advise --model {} says by how much", model.name);
            }
            let least = advice.usual.smallest.as_ref().filter(|(_, need)| Some(need.gpu_bytes) < record.peak_device_bytes());
            if let Some((case, need)) = least {
                let level = case.config.low_mem_level;
                say!("  Smaller  level {level}, {}: about {:.1} GiB", flags(&case.config, model), gib(need.gpu_bytes));
            }
        }
        None => {
            let needs = advice.usual.smallest.as_ref().map(|(_, need)| {
                format!(": it needs {:.1} GiB of GPU memory and {:.1} of RAM at least", gib(need.gpu_bytes), gib(need.ram_bytes))
            });
            say!("  Does not fit{}", needs.unwrap_or_default());
            if let Some(small) = small {
                say!("  At {SMALLER} it fits:");
                describe(small, testbed, model);
            }
        }
    }
}

fn describe(record: &RunRecord, testbed: &Testbed, model: &ModelSpec) {
    let config = &record.config;
    say!("  Use      level {}{}: {}", config.low_mem_level, reports::on_gpus(config), flags(config, model));
    let ram_held = testbed.ram.bytes.map(|bytes| format!(" of {:.1}", gib(bytes))).unwrap_or_default();
    let ram = record.host_needed_bytes().map(|bytes| format!(", RAM {:.1}{ram_held} GiB", gib(bytes))).unwrap_or_default();
    say!("  Memory   GPU {}{ram}", reports::taken(record, testbed.capacity_bytes, 1).unwrap_or_default());
    if let Some(secs) = record.total_secs() {
        say!("  Time     {}", reports::time_with_range(secs));
    }
    say!("  Run      {}", reports::generate_line(record, record.device, Some(model)));
}

fn flags(config: &Config, model: &ModelSpec) -> String {
    match config.flags_beside_level(Device::Virtual, model).as_slice() {
        [] => "its own flags".to_owned(),
        flags => flags.join(", "),
    }
}

/// What a machine can do.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AdviseJson {
    gpu: Option<String>,
    /// What the GPU or the budget holds.
    capacity_bytes: Option<u64>,
    /// What the machine's memory may hold; null where it is taken to be without limit.
    ram_bytes: Option<u64>,
    models: Vec<AdviceJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Advice")]
struct AdviceJson {
    model: String,
    /// At the model's own size.
    usual: QuickJson,
    /// At a smaller size, where the model's own is larger.
    smaller: Option<QuickJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Quick")]
struct QuickJson {
    fits: bool,
    /// How it runs.
    best: Option<CaseJson>,
    /// What takes least, by prediction.
    smallest: Option<NeedJson>,
}

impl Advice<'_> {
    fn as_json(&self, device: Device) -> AdviceJson {
        let case = |answer: &QuickAnswer| QuickJson {
            fits: answer.record.is_some(),
            best: answer.record.as_ref().map(|record| CaseJson::new(record, device, Some(self.model))),
            smallest: answer.smallest.as_ref().map(|(_, need)| need.as_json()),
        };
        AdviceJson { model: self.model.name.clone(), usual: case(&self.usual), smaller: self.smaller.as_ref().map(case) }
    }
}
