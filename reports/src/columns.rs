//! The columns of `results.csv`: each with its name, its unit, what it means, and its cell for a case. The file and `docs/results.md` are made from them.
//!
//! What is not known is an empty cell, never 0. The columns of flags come from the table of flags.

use engine_protocol::{Device, Dtype, FLAGS, Flag, GpuProfile, GpuState, Kind, RankRecord, RunRecord, Secs, Stage, told};
use serde_json::Value;

use crate::run::Run;
use crate::sentences::keys_decided;
use crate::verdict::{need, needed_bytes, total_secs};

/// What the cells of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Real,
    /// `true` or `false`.
    Bool,
}

impl ColumnType {
    /// Its name in documents.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Bool => "bool",
        }
    }

    /// What is counted in a unit is whole, what is measured in one is not.
    fn of_unit(unit: &str) -> Self {
        match unit {
            "" | "RFC 3339" => Self::Text,
            "s" | "1/s" | "1" => Self::Real,
            _ => Self::Integer,
        }
    }

    fn of_flag(flag: &Flag) -> Self {
        match flag.kind {
            Kind::Switch => Self::Bool,
            // A word such as `auto` is settled by the time that the case runs.
            Kind::Integer | Kind::IntegerOrWord(_) => Self::Integer,
            Kind::Number => Self::Real,
            Kind::Text | Kind::Name | Kind::Levels | Kind::SharesOrWord(_) | Kind::Word(_) | Kind::WordOrSwitch(_) | Kind::Size(_) => {
                Self::Text
            }
        }
    }
}

/// One column.
pub(crate) struct Column {
    /// Its name in the header.
    pub name: &'static str,
    /// What its cells are.
    pub kind: ColumnType,
    /// Its unit; empty where it has none.
    pub unit: &'static str,
    /// What it means, in a line.
    pub doc: &'static str,
    cell: Cell,
}

impl Column {
    /// Its text for a case of a run.
    pub(crate) fn cell(&self, run: &Run, record: &RunRecord) -> String {
        (self.cell)(run, record)
    }

    /// The same with its type; null where it is not known.
    pub(crate) fn value(&self, run: &Run, record: &RunRecord) -> Value {
        let cell = self.cell(run, record);
        match self.kind {
            _ if cell.is_empty() => Value::Null,
            ColumnType::Text => cell.into(),
            ColumnType::Integer => cell.parse::<u64>().map(Value::from).or(cell.parse::<i64>().map(Value::from)).unwrap_or_default(),
            ColumnType::Real => cell.parse::<f64>().map(Value::from).unwrap_or_default(),
            ColumnType::Bool => cell.parse::<bool>().map(Value::from).unwrap_or_default(),
        }
    }

    fn of_type(self, kind: ColumnType) -> Self {
        Self { kind, ..self }
    }
}

/// The text for a case of a run.
type Cell = Box<dyn Fn(&Run, &RunRecord) -> String>;

/// All columns, in order.
pub(crate) fn columns() -> Vec<Column> {
    [identity(), configuration(), memory(), times(), rest()].into_iter().flatten().collect()
}

/// A column that needs the case's record alone.
fn of(name: &'static str, unit: &'static str, doc: &'static str, cell: impl Fn(&RunRecord) -> String + 'static) -> Column {
    of_run(name, unit, doc, move |_, record| cell(record))
}

/// A column that needs the run too.
fn of_run(name: &'static str, unit: &'static str, doc: &'static str, cell: impl Fn(&Run, &RunRecord) -> String + 'static) -> Column {
    Column { name, kind: ColumnType::of_unit(unit), unit, doc, cell: Box::new(cell) }
}

/// What ran, on what, and how it ended.
fn identity() -> Vec<Column> {
    vec![
        of("case", "", "The case's name in its run.", |r| r.case.clone()),
        of("model", "", "The model definition's name, as `lowmem models` lists it.", |r| r.config.model.clone()),
        of("gpu", "", "The GPU profile's name, as `lowmem gpus` lists it.", |r| text(r.gpu.as_ref())),
        of_run(
            "capacity_bytes",
            "bytes",
            "What may be used of the GPU, the CUDA context included: its memory, or the budget.",
            |run, r| text(run.capacity_of(r)),
        ),
        of("device", "", "What ran the case: `cuda` (a real GPU), `virtual` or `cpu`.", |r| r.device.name().into()),
        of("device_name", "", "The name that the device reported.", |r| text(r.device_name.as_ref())),
        of("memory_source", "", "Where memory figures come from: `measured` on a real GPU, `virtual` on the virtual one.", |r| {
            text(r.memory_source.map(|source| source.name()))
        }),
        of("time_source", "", "Where times come from: `measured`, or `modelled` (estimated from the GPU's profile).", |r| {
            text(r.time_source.map(|source| source.name()))
        }),
        of(
            "outcome",
            "",
            "How it ended: `ok`, `oom` (the GPU's memory ran out), `oom_host` (the machine's own memory ran out), `failed`, `crashed`, `killed` or `timeout`.",
            |r| r.outcome.name().into(),
        ),
        of("is_skipped", "", "`true`: the real GPU did not try it, since the virtual one says that it cannot fit.", |r| {
            r.is_skipped.to_string()
        })
        .of_type(ColumnType::Bool),
        of("failed_stage", "", "The stage in which it did not end well: `load`, `encode`, `denoise` or `decode`.", |r| {
            text(r.failed_stage.map(Stage::name))
        }),
    ]
}

/// The configuration that ran, from the table of flags. What was left to the machine (`auto`) is as the worker settled it; a flag that means nothing in the case
/// is empty.
fn configuration() -> Vec<Column> {
    FLAGS.iter().flat_map(of_flag).collect()
}

/// Whether a column tells of the configuration and not of what came of it.
pub(crate) fn is_flag(name: &str) -> bool {
    ["width", "height"].contains(&name) || FLAGS.iter().any(|flag| flag.key == name)
}

/// The columns of a flag: one as a rule.
fn of_flag(flag: &'static Flag) -> Vec<Column> {
    let unit = flag.unit;
    match flag.key {
        // The model has a column already. Prompts may be pages. A flag that changes nothing is in no configuration.
        "model" | "prompt" | "negative_prompt" | "gradient_checkpointing" => Vec::new(),
        "resolution" => vec![
            of("width", unit, "Width of the video.", |r| r.config.resolution.width.to_string()),
            of("height", unit, "Height of the video.", |r| r.config.resolution.height.to_string()),
        ],
        "steps_measured" => {
            vec![of("steps_measured", unit, "Sampler steps that ran: times are scaled to all.", |r| r.config.steps_to_run().to_string())]
        }
        key => {
            let column = of(key, unit, &flag.doc, |r| flag.of(r.config_run()).as_ref().map(told).unwrap_or_default());
            vec![column.of_type(ColumnType::of_flag(flag))]
        }
    }
}

/// The parts of a peak, in the order of [`engine_protocol::PeakParts::NAMES`]: each one's column, and what it is.
pub(crate) const PARTS: [(&str, &str); 9] = [
    ("peak_weights_bytes", "Of the peak of allocated bytes: weights that stay on the GPU."),
    ("peak_staging_bytes", "Of it: buffers in which streamed weights take turns."),
    ("peak_activations_bytes", "Of it: what the arithmetic makes, and all that no other column has."),
    ("peak_workspace_bytes", "Of it: what cuBLAS, cuDNN and attention ask for beside their results."),
    ("peak_feature_cache_bytes", "Of it: frames that the VAE's convolutions remember between chunks."),
    ("peak_step_cache_bytes", "Of it: what a cache keeps from one sampler step for the next."),
    ("peak_frames_bytes", "Of it: finished frames on their way out."),
    ("peak_latents_bytes", "Of it: latents and prompt embeddings."),
    (
        "peak_slack_bytes",
        "What the allocator held beyond all these at its own peak: with it they add up to the stage's peak of reserved bytes.",
    ),
];

/// Memory. Peaks are those of a case that came to its end: of another one they are not known.
fn memory() -> Vec<Column> {
    let part = |(index, (name, doc)): (usize, (&'static str, &'static str))| {
        of(name, "bytes", doc, move |r| text(r.peak_parts().map(|parts| parts.bytes()[index])))
    };
    let stages = [
        (Stage::Encode, "encode_peak_allocated_bytes", "encode_peak_reserved_bytes"),
        (Stage::EncodeImage, "encode_image_peak_allocated_bytes", "encode_image_peak_reserved_bytes"),
        (Stage::Denoise, "denoise_peak_allocated_bytes", "denoise_peak_reserved_bytes"),
        (Stage::Decode, "decode_peak_allocated_bytes", "decode_peak_reserved_bytes"),
    ];
    let of_stage = |(stage, allocated, reserved): (Stage, &'static str, &'static str)| {
        [
            of(allocated, "bytes", "The most in live tensors during this stage.", move |r| {
                text(r.stage_memory(stage).map(|memory| memory.peak_allocated_bytes))
            }),
            of(reserved, "bytes", "The most that the allocator held from the driver during this stage.", move |r| {
                text(r.stage_memory(stage).map(|memory| memory.peak_reserved_bytes))
            }),
        ]
    };
    let mut columns = vec![
        of("allocated_bytes", "bytes", "In live tensors when the last stage ended, as the caching allocator rounds them.", |r| {
            text(r.last_memory().map(|m| m.allocated_bytes))
        }),
        of("reserved_bytes", "bytes", "What the allocator held from the driver when the last stage ended.", |r| {
            text(r.last_memory().map(|m| m.reserved_bytes))
        }),
        of("peak_allocated_bytes", "bytes", "The most in live tensors at once.", |r| text(r.peak_allocated_bytes())),
        of(
            "predicted_peak_allocated_bytes",
            "bytes",
            "What was predicted for that from shapes, before the stage ran, as `lowmem plan` says it.",
            |r| text(r.predicted_peak_allocated_bytes()),
        ),
        of("peak_reserved_bytes", "bytes", "The most that the allocator held from the driver at once.", |r| text(r.peak_reserved_bytes())),
        of("peak_device_bytes", "bytes", "The same with the CUDA context and the libraries' own memory: what a card must have.", |r| {
            text(r.peak_device_bytes())
        }),
        of("predicted_peak_device_bytes", "bytes", "On a real GPU: the forecast of the virtual one for that, made before.", |r| {
            text(r.forecast.and_then(|forecast| forecast.peak_device_bytes))
        }),
        of("ranks", "GPUs", "How many GPUs it ran on, a rank each. The peaks here are those of the rank that holds most.", |r| {
            r.config.split().ranks().to_string()
        }),
        of("least_rank_peak_device_bytes", "bytes", "Of several GPUs, the peak of device bytes of the rank that holds least.", |r| {
            text(r.ranks.iter().map(|rank| rank.peak_device_bytes).min().flatten())
        }),
        of("peak_device_bytes_by_rank", "", "Of several GPUs, each rank's peak of device bytes, in their order.", |r| {
            of_ranks(r, |rank| text(rank.peak_device_bytes))
        }),
        of("peak_stage", "", "The stage in which most was allocated.", |r| text(r.peak_stage().map(Stage::name))),
    ];
    columns.extend(PARTS.into_iter().enumerate().map(part));
    columns.extend(stages.into_iter().flat_map(of_stage));
    columns.extend([
        of("requested_bytes", "bytes", "The allocation that failed, where the case is `oom`.", |r| text(r.requested_bytes)),
        of("needed_bytes", "bytes", "What an `oom` case needs of a GPU at least; what it would ask for later is not known.", |r| {
            text(needed_bytes(r))
        }),
        of("predicted_need_bytes", "bytes", "What all of an `oom` case was predicted to take of a GPU, the context included.", |r| {
            text(need(r).filter(|need| need.is_whole).map(|need| need.bytes))
        }),
        of("host_requested_bytes", "bytes", "The allocation of the machine's own memory that failed, where the case is `oom_host`.", |r| {
            text(r.host_shortage.and_then(|shortage| shortage.requested_bytes))
        }),
        of("host_available_bytes", "bytes", "What of that memory was left to take then.", |r| {
            text(r.host_shortage.and_then(|shortage| shortage.available_bytes))
        }),
        of(
            "host_peak_bytes",
            "bytes",
            "The most of the machine's memory (RAM) that the process held at once, page-locked memory included, as measured.",
            |r| text(r.host().and_then(|host| host.peak_bytes)),
        ),
        of("predicted_host_peak_bytes", "bytes", "What was predicted for that.", |r| {
            text(r.predicted_host().and_then(|host| host.peak_bytes))
        }),
        of("host_pinned_peak_bytes", "bytes", "The most page-locked memory of the host at once.", |r| text(r.host_pinned_peak_bytes)),
        of("predicted_host_pinned_peak_bytes", "bytes", "What was predicted for that.", |r| {
            text(r.predicted_host().map(|host| host.pinned_peak_bytes))
        }),
    ]);
    columns.extend(HOST_OF_STAGES.into_iter().flat_map(host_of_stage));
    columns
}

/// A stage, and the names of its columns of the machine's memory: measured, predicted, page-locked, page-locked as predicted.
macro_rules! host_columns {
    ($stage:expr, $name:literal) => {
        (
            $stage,
            [
                concat!($name, "_host_peak_bytes"),
                concat!($name, "_predicted_host_peak_bytes"),
                concat!($name, "_host_pinned_peak_bytes"),
                concat!($name, "_predicted_host_pinned_peak_bytes"),
            ],
        )
    };
}

const HOST_OF_STAGES: [(Stage, [&str; 4]); 5] = [
    host_columns!(Stage::Load, "load"),
    host_columns!(Stage::Encode, "encode"),
    host_columns!(Stage::EncodeImage, "encode_image"),
    host_columns!(Stage::Denoise, "denoise"),
    host_columns!(Stage::Decode, "decode"),
];

fn host_of_stage((stage, [peak, predicted, pinned, predicted_pinned]): (Stage, [&'static str; 4])) -> [Column; 4] {
    let measured = move |r: &RunRecord| r.stage(stage).and_then(|stage| stage.host);
    let planned = move |r: &RunRecord| r.stage(stage).and_then(|stage| stage.predicted_host);
    [
        of(peak, "bytes", "The most of the machine's memory that the process held during this stage, as measured.", move |r| {
            text(measured(r).and_then(|host| host.peak_bytes))
        }),
        of(predicted, "bytes", "What was predicted for that.", move |r| text(planned(r).and_then(|host| host.peak_bytes))),
        of(pinned, "bytes", "The most page-locked memory during this stage.", move |r| {
            text(measured(r).map(|host| host.pinned_peak_bytes))
        }),
        of(predicted_pinned, "bytes", "What was predicted for that.", move |r| text(planned(r).map(|host| host.pinned_peak_bytes))),
    ]
}

/// A figure of each rank, with spaces between them.
fn of_ranks(record: &RunRecord, figure: impl Fn(&RankRecord) -> String) -> String {
    record.ranks.iter().map(figure).collect::<Vec<_>>().join(" ")
}

/// Times on the device, in seconds.
fn times() -> Vec<Column> {
    let range = |r: &RunRecord| total_secs(r).filter(|secs| secs.is_interval());
    vec![
        of("text_encode_secs", "s", "Prompt to prompt embedding.", |r| secs(r.stage_secs(Stage::Encode))),
        of("image_encode_secs", "s", "Picture to latents, where the video begins with one.", |r| secs(r.stage_secs(Stage::EncodeImage))),
        of("denoise_secs", "s", "All sampler steps; where fewer ran, each of the others counts as `step_secs`.", |r| {
            secs(r.denoise_secs())
        }),
        of("step_secs", "s", "One sampler step that computes all: the mean of those that ran, without the first where several ran.", |r| {
            secs(r.step_secs())
        }),
        of("step_secs_least", "s", "Of measured steps: the shortest of those after the first, where several ran.", |r| {
            text(r.step_spread().map(|[least, _]| least))
        }),
        of("step_secs_largest", "s", "Of measured steps: the longest of those after the first, where several ran.", |r| {
            text(r.step_spread().map(|[_, largest]| largest))
        }),
        of("first_step_secs", "s", "The first step, which also pays for what happens once, where several ran.", |r| {
            secs(r.first_step_secs())
        }),
        of("reused_step_secs", "s", "One sampler step that leaves blocks out by what a cache has kept: the mean of those that ran.", |r| {
            secs(r.reused_step_secs())
        }),
        of("reused_steps", "steps", "Of all sampler steps those that leave blocks out.", |r| text(r.cache.map(|cache| cache.reused_steps))),
        of(
            "reuse_decided",
            "",
            "By what: `steps` (their number), `values` (computed ones), or `published` (as many as were, since the virtual GPU computes no values).",
            |r| text(r.cache.map(|cache| cache.decided.name())),
        ),
        of(
            "attn_keys_decided",
            "",
            "By what `attn_type=sparge` chooses keys: `values` (computed ones), or `share` (as many as `attn_topk` has, since the virtual GPU computes no values: no tile counts as unlike).",
            |r| text(keys_decided(r)),
        ),
        of("vae_decode_secs", "s", "Latents to frames.", |r| secs(r.stage_secs(Stage::Decode))),
        of("total_secs", "s", "From prompt to video, without loading.", |r| secs(total_secs(r))),
        of("total_secs_low", "s", "Of an estimate: no less than this.", move |r| text(range(r).map(|secs| secs.low))),
        of("total_secs_high", "s", "Of an estimate: no more than this.", move |r| text(range(r).map(|secs| secs.high))),
        of("predicted_total_secs", "s", "On a real GPU: the forecast of the virtual one for `total_secs`, made before.", |r| {
            secs(r.forecast.and_then(|forecast| forecast.total_secs))
        }),
        of("copy_stall_secs", "s", "How long arithmetic stood still because weights had not arrived.", |r| secs(r.copy_stall_secs())),
        of(
            "exchange_secs",
            "s",
            "Of several GPUs, how long the first one's arithmetic stood still in the sampler steps while ranks exchanged.",
            |r| secs(r.exchange_secs()),
        ),
        of(
            "waiting_secs",
            "s",
            "Of several GPUs, how long the first one's arithmetic stood still in the sampler steps that ran since another rank was not there yet: not scaled to all steps, since some of it comes once. Empty on real GPUs, where `exchange_secs` has it.",
            |r| secs(r.waiting_secs()),
        ),
        of("denoise_secs_by_rank", "", "Of several GPUs, the seconds of each rank's sampler steps that ran, in their order.", |r| {
            of_ranks(r, |rank| secs(rank.denoise_secs))
        }),
        of(
            "exchange_secs_by_rank",
            "",
            "Of several GPUs, how many seconds of those each rank's arithmetic stood still while ranks exchanged.",
            |r| of_ranks(r, |rank| secs(rank.exchange_secs)),
        ),
        of("waiting_secs_by_rank", "", "Of several GPUs, how many seconds of those each rank's arithmetic waited for a slower one.", |r| {
            of_ranks(r, |rank| secs(rank.waiting_secs))
        }),
        of("denoise_operations_per_sec", "1/s", "Multiplications and additions that the sampler steps reached.", |r| {
            text(r.denoise_operations_per_sec())
        }),
    ]
}

/// What is left: copies, what the virtual GPU lacks, and how the record came about.
fn rest() -> Vec<Column> {
    vec![
        of_run(
            "psnr_db",
            "dB",
            "Of a case that gives up quality: its video against the exact one of the same seed. Empty where they are the same.",
            |run, r| text(run.quality_of(r).and_then(|quality| quality.psnr_db)),
        ),
        of_run("ssim", "", "The same as structural similarity: 1 is the same.", |run, r| {
            text(run.quality_of(r).map(|quality| quality.ssim))
        })
        .of_type(ColumnType::Real),
        of("h2d_bytes", "bytes", "Copied from the host to the GPU.", |r| text(r.h2d_bytes)),
        of("d2h_bytes", "bytes", "Copied from the GPU to the host.", |r| text(r.d2h_bytes)),
        of("steps_of", "", "The case whose sampler steps it has, since its own cannot differ: it ran one step itself.", |r| {
            text(r.steps_of.as_ref())
        }),
        of("warnings", "", "What makes the case's figures doubtful, or slower than they need be.", |r| r.warnings().join("; ")),
        of("gpu_temperature_c", "°C", "Of a real GPU, before the case.", |r| of_gpu(r, |gpu| gpu.temperature_c)),
        of("gpu_highest_temperature_c", "°C", "The highest as sampler steps ended.", |r| of_gpu(r, |gpu| gpu.highest_temperature_c)),
        of("sm_clock_mhz", "MHz", "The clock of a real GPU's multiprocessors, before the case.", |r| of_gpu(r, |gpu| gpu.sm_clock_mhz)),
        of("lowest_sm_clock_mhz", "MHz", "The lowest as sampler steps ended.", |r| of_gpu(r, |gpu| gpu.lowest_sm_clock_mhz)),
        of("throttled_by", "", "What held the clocks down: `power_limit`, `heat`, `power_supply` or `hardware`.", |r| {
            let reasons = r.gpu_state.iter().flat_map(|gpu| &gpu.throttled_by);
            reasons.map(|reason| reason.name()).collect::<Vec<_>>().join(" ")
        }),
        of("gpu_held_bytes", "bytes", "Of a real GPU's memory: in use before the case.", |r| of_gpu(r, |gpu| gpu.held_bytes)),
        of("other_processes", "", "Processes on a real GPU before the case.", |r| {
            let others = r.gpu_state.iter().flat_map(|gpu| &gpu.others);
            others.map(|other| other.process.to_string()).collect::<Vec<_>>().join(" ")
        }),
        of("version", "", "The version of lowmem that ran the case.", |r| text(r.version.as_ref())),
        of("began", "RFC 3339", "When the case began to run.", |r| text(r.began.as_ref())),
        of("wall_secs", "s", "What the case took on this machine, from the worker's start to its end: no figure of the GPU.", |r| {
            format!("{:.3}", r.wall_secs)
        }),
        of("unsupported_calls", "calls", "Calls that the virtual GPU does not support.", |r| {
            text((r.device == Device::Virtual).then(|| r.unsupported_calls.values().sum::<u64>()))
        }),
        of("unsupported_names", "", "Their names.", |r| r.unsupported_calls.keys().map(String::as_str).collect::<Vec<_>>().join(" ")),
        of("error", "", "What went wrong, where the outcome is not `ok`.", |r| text(r.error.as_ref())),
        of_run(
            "denoise_share_of_peak",
            "1",
            "`denoise_operations_per_sec` as a share of what the GPU reaches at most in the case's type.",
            |run, r| text(run.profile_of(r).and_then(|gpu| denoise_share_of_peak(r, gpu))),
        ),
    ]
}

/// A figure of the real GPU.
fn of_gpu<T: ToString>(record: &RunRecord, figure: impl Fn(&GpuState) -> Option<T>) -> String {
    text(record.gpu_state.as_ref().and_then(figure))
}

fn denoise_share_of_peak(record: &RunRecord, gpu: &GpuProfile) -> Option<f64> {
    let flops = &gpu.flops;
    let peak = match record.config.dtype {
        Dtype::Fp32 => &flops.fp32,
        Dtype::Bf16 => &flops.bf16,
        Dtype::Fp16 => &flops.fp16,
    };
    Some(record.denoise_operations_per_sec()? / peak.value)
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn secs(time: Option<Secs>) -> String {
    text(time.map(|time| time.expected))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use engine_protocol::{StageTime, StageWork};

    use super::*;
    use crate::samples;

    #[test]
    fn what_denoise_reached_is_a_share_of_the_peak() {
        let mut record = samples::ok("a", 0, 10);
        assert_eq!(denoise_share_of_peak(&record, &samples::gpu()), None);
        for stage in &mut record.stages {
            let work = Some(StageWork { operations: 1.5e12, bytes: 0.0 });
            stage.time = Some(StageTime { secs: Secs::measured(3.0), copy_stall: None, exchange: None, waiting: None, work });
        }
        // Half a TFLOP/s of one.
        assert_eq!(denoise_share_of_peak(&record, &samples::gpu()), Some(0.5));
    }

    /// Figures of a real H100: the first step of a process also chooses and loads kernels.
    #[test]
    fn the_first_step_counts_once() {
        let mut record = samples::ok("a", 0, 10);
        (record.config.steps, record.config.steps_measured) = (50, Some(2.into()));
        let denoise = record.stages.iter_mut().find(|stage| stage.stage == Stage::Denoise).expect("it ran");
        denoise.time = Some(StageTime { secs: Secs::measured(13.73), copy_stall: None, exchange: None, waiting: None, work: None });
        assert_eq!(record.step_secs().map(|secs| secs.expected), Some(13.73 / 2.0), "without the steps' own times, the mean of all");
        let denoise = record.stages.iter_mut().find(|stage| stage.stage == Stage::Denoise).expect("it ran");
        denoise.step_secs = [7.53, 6.2].map(Secs::measured).to_vec();
        assert_eq!(record.step_secs().map(|secs| secs.expected), Some(6.2));
        let all = record.denoise_secs().expect("it is known").expected;
        assert!((all - (7.53 + 49.0 * 6.2)).abs() < 1e-9, "{all}");
    }

    #[test]
    fn repeated_steps_that_were_measured_have_a_spread() {
        let mut record = samples::ok("a", 0, 10);
        let mut spread = |steps: &[f64], source| {
            record.time_source = source;
            let denoise = record.stages.iter_mut().find(|stage| stage.stage == Stage::Denoise).expect("it ran");
            denoise.step_secs = steps.iter().copied().map(Secs::measured).collect();
            (record.step_spread(), record.first_step_secs().map(|secs| secs.expected))
        };
        use engine_protocol::Source::{Measured, Modelled};
        assert_eq!(spread(&[7.53, 6.2, 6.1, 6.3], Some(Measured)), (Some([6.1, 6.3]), Some(7.53)));
        assert_eq!(spread(&[7.53, 6.2], Some(Measured)), (None, Some(7.53)), "one step differs from none");
        assert_eq!(spread(&[7.53], Some(Measured)), (None, None));
        assert_eq!(spread(&[6.2, 6.2, 6.2], Some(Modelled)), (None, Some(6.2)));
    }

    #[test]
    fn each_column_has_its_own_name_and_is_explained() {
        let columns = columns();
        let names: BTreeSet<_> = columns.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), columns.len());
        for column in &columns {
            assert!(column.doc.ends_with('.') && !column.doc.contains(['\n', '|']), "{}: `{}`", column.name, column.doc);
            let unit = [("_bytes", "bytes"), ("_secs", "s")].into_iter().find(|(ending, _)| column.name.ends_with(ending));
            assert!(unit.is_none_or(|(_, unit)| unit == column.unit), "{} in {}", column.name, column.unit);
        }
    }
}
