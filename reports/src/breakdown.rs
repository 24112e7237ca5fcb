//! Where the time of one run went: its models, its operations, and what holds it up.
//!
//! It times nothing: a worker that is asked for a profile records what each operation took.

use std::collections::BTreeMap;

use engine_protocol::{
    Config, GpuProfile, OffloadTextEncoder, OperationTime, PinnedMemory, ResidentBlocks, RunRecord, Secs, Stage, WorkKind, WorkType,
};

/// What bounds an operation, or a whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Multiplications and additions.
    Arithmetic,
    /// Bytes through the GPU's memory.
    Memory,
    /// Bytes from the host.
    Copies,
    /// The host: its processor, or what asking for kernels takes.
    Host,
    /// Other GPUs: what ranks send each other, and that they wait for slower ones.
    Ranks,
}

impl Bound {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic",
            Self::Memory => "memory",
            Self::Copies => "copies",
            Self::Host => "launches",
            Self::Ranks => "other GPUs",
        }
    }
}

/// An operation over all stages and all sampler steps: of steps that did not run, as of those that did.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationRow {
    /// The stage in which it ran.
    pub stage: Stage,
    /// What its calls came to.
    pub sum: OperationTime,
    /// Of a copy, the link's; else the rate of what bounds it: operations or bytes a second.
    pub rate: f64,
    /// Which share of the GPU's peak that is; empty where the GPU has no profile.
    pub share_of_peak: Option<f64>,
    /// What bounds it; empty where the GPU has no profile.
    pub bound: Option<Bound>,
}

/// What one of the models took.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelTime {
    /// The stage in which it runs.
    pub stage: Stage,
    /// How long it took.
    pub secs: Secs,
    /// What of it arithmetic waited for copies.
    pub stalled_secs: Secs,
    /// What of it arithmetic waited for other ranks, and for what they sent.
    pub ranks_secs: Secs,
    /// What of it no operation ran, nor was waited for.
    pub idle_secs: f64,
}

impl ModelTime {
    /// The model that runs in the stage.
    pub fn name(&self) -> &'static str {
        model_in(self.stage)
    }
}

/// The model that runs in a stage.
pub fn model_in(stage: Stage) -> &'static str {
    match stage {
        Stage::Load => "load",
        Stage::Encode => "text encoder",
        Stage::EncodeImage => "picture encoder",
        Stage::Denoise => "transformer",
        Stage::Decode => "VAE",
    }
}

/// Where the time of a run went, from prompt to video.
#[derive(Debug, Clone, PartialEq)]
pub struct Breakdown {
    /// All of it.
    pub total: Secs,
    /// The longest first.
    pub operations: Vec<OperationRow>,
    /// In order.
    pub models: Vec<ModelTime>,
    /// What holds it up most, and for how long.
    pub bottleneck: (Bound, f64),
    /// The same in a sentence, with what to try.
    pub advice: String,
}

/// An operation that reaches less than this of what bounds it mostly waits to be asked for.
const LAUNCH_SHARE: f64 = 0.1;

/// The breakdown of a run that was profiled. None where a time is not known.
pub fn breakdown(record: &RunRecord, gpu: Option<&GpuProfile>) -> Option<Breakdown> {
    let total = record.total_secs()?;
    // Steps that leave blocks out by a cache take less than those that ran may have: the times of both say by how much what ran stands for all.
    let of_all = record.denoise_secs()?.expected / record.stage_secs(Stage::Denoise)?.expected;
    let scale = |stage: Stage| if stage == Stage::Denoise && of_all.is_finite() { of_all } else { 1.0 };
    let (mut operations, mut models) = (Vec::new(), Vec::new());
    let mut held: BTreeMap<Bound, f64> = BTreeMap::new();
    for stage in record.stages.iter().filter(|stage| stage.stage != Stage::Load) {
        let scale = scale(stage.stage);
        let time = stage.time?;
        let stalled = time.copy_stall.unwrap_or_default();
        let busy: f64 = stage.operations.iter().filter(|sum| sum.kind != WorkKind::Copy).map(|sum| sum.secs.expected).sum();
        let ranks = time.exchange.unwrap_or_default() + time.waiting.unwrap_or_default();
        let idle = (time.secs.expected - busy - stalled.expected - ranks.expected).max(0.0) * scale;
        let (secs, stalled_secs, ranks_secs) = (time.secs * scale, stalled * scale, ranks * scale);
        models.push(ModelTime { stage: stage.stage, secs, stalled_secs, ranks_secs, idle_secs: idle });
        *held.entry(Bound::Ranks).or_default() += ranks_secs.expected;
        *held.entry(Bound::Copies).or_default() += stalled.expected * scale;
        *held.entry(Bound::Host).or_default() += idle;
        for sum in &stage.operations {
            let row = row(stage.stage, scaled(sum, scale), gpu);
            if sum.kind != WorkKind::Copy {
                *held.entry(row.bound.unwrap_or(Bound::Arithmetic)).or_default() += row.sum.secs.expected;
            }
            operations.push(row);
        }
    }
    operations.sort_by(|a, b| b.sum.secs.expected.total_cmp(&a.sum.secs.expected));
    let bottleneck = held.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let advice = advice(record, bottleneck, total.expected, &operations, &models);
    Some(Breakdown { total, operations, models, bottleneck, advice })
}

fn scaled(sum: &OperationTime, scale: f64) -> OperationTime {
    OperationTime {
        calls: (sum.calls as f64 * scale).round() as u64,
        secs: sum.secs * scale,
        operations: sum.operations * scale,
        bytes: sum.bytes * scale,
        ..sum.clone()
    }
}

fn row(stage: Stage, sum: OperationTime, gpu: Option<&GpuProfile>) -> OperationRow {
    let secs = sum.secs.expected;
    let Some(gpu) = gpu else {
        let amount = if sum.operations > 0.0 { sum.operations } else { sum.bytes };
        return OperationRow { stage, rate: amount / secs, sum, share_of_peak: None, bound: None };
    };
    let (peak, bandwidth) = (peak(gpu, sum.dtype), gpu.memory_bytes_per_sec.value);
    let (amount, peak, bound) = if sum.kind == WorkKind::Copy {
        (sum.bytes, gpu.pcie.pinned_bytes_per_sec.value, Bound::Copies)
    } else if sum.operations / peak > sum.bytes / bandwidth {
        (sum.operations, peak, Bound::Arithmetic)
    } else {
        (sum.bytes, bandwidth, Bound::Memory)
    };
    let share = amount / secs / peak;
    let bound = if share < LAUNCH_SHARE { Bound::Host } else { bound };
    OperationRow { stage, rate: amount / secs, sum, share_of_peak: Some(share), bound: Some(bound) }
}

/// Operations a second at most.
fn peak(gpu: &GpuProfile, dtype: WorkType) -> f64 {
    let flops = &gpu.flops;
    match dtype {
        WorkType::Fp32 => flops.fp32.value,
        WorkType::Tf32 => flops.tf32.value,
        WorkType::Bf16 => flops.bf16.value,
        WorkType::Fp16 => flops.fp16.value,
        WorkType::Fp8 => flops.fp8.as_ref().unwrap_or(&flops.bf16).value,
        WorkType::Int8 => flops.int8.as_ref().unwrap_or(&flops.bf16).value,
        WorkType::Fp64 => flops.fp32.value / 2.0,
    }
}

/// What the bottleneck is and which setting to try; and the same of copies where they take long too.
fn advice(record: &RunRecord, (bound, secs): (Bound, f64), total: f64, operations: &[OperationRow], models: &[ModelTime]) -> String {
    let config = &record.config;
    let percent = |secs: f64| format!("{:.0}%", secs / total * 100.0);
    let share = percent(secs);
    let stalled: f64 = models.iter().map(|model| model.stalled_secs.expected).sum();
    let mut advice = match bound {
        Bound::Arithmetic => {
            let first = operations.iter().find(|row| row.bound.is_none_or(|bound| bound == Bound::Arithmetic));
            let most = first.map(|row| format!(", most of it {} ({})", row.sum.kind.name(), percent(row.sum.secs.expected)));
            let hidden = if config.low_mem_level == 3 && stalled < 0.01 * total {
                "A lower level would not be much faster, since copies hide behind it. "
            } else {
                ""
            };
            let guidance =
                if config.guidance_scale > 1.0 { "; guidance_scale=1 halves each step, where the model is made for that" } else { "" };
            format!(
                "The bottleneck is arithmetic: {share} of the time{}. {hidden}Try fewer steps, a smaller resolution or fewer frames{guidance}.",
                most.unwrap_or_default()
            )
        }
        Bound::Memory => format!(
            "The bottleneck is the GPU's memory: {share} of the time goes to operations that move more than they compute. Try dtype=bf16, or a larger \
             vae_tile_size, of which less is computed twice."
        ),
        Bound::Copies => {
            format!("The bottleneck is copies from the host: arithmetic waits for them {share} of the time. {}", faster_copies(config))
        }
        Bound::Ranks => format!(
            "The bottleneck is other GPUs: {share} of the time goes to what they send and to waiting for slower ones. Try cfg_size=2, which sends least, or fewer GPUs; \
             cp_split=speed where cards differ."
        ),
        Bound::Host => {
            let encoder = models.iter().find(|model| model.stage == Stage::Encode);
            if encoder.is_some_and(|model| model.idle_secs * 2.0 > secs) && config.offload_text_encoder == OffloadTextEncoder::Cpu {
                format!(
                    "The bottleneck is the host: the text encoder computes there for {share} of the time. Try offload_text_encoder=stream, which computes \
                     on the GPU and holds one layer of it."
                )
            } else {
                format!(
                    "The bottleneck is the host: for {share} of the time the GPU waits to be asked. Try guidance_batch=true, or no sequence_chunk, which \
                     make fewer and larger operations."
                )
            }
        }
    };
    if bound != Bound::Copies && stalled > 0.1 * total {
        advice += &format!(" Copies from the host are waited for {} of the time. {}", percent(stalled), faster_copies(config));
    }
    advice
}

fn faster_copies(config: &Config) -> String {
    let mut tries = Vec::new();
    if config.resident_blocks != Some(ResidentBlocks::Auto) {
        tries.push("resident_blocks=auto, which keeps as many blocks on the GPU as let copies hide");
    }
    if config.pinned_memory == Some(PinnedMemory::Off) {
        tries.push("pinned_memory=true");
    }
    tries.push("weight_dtype=fp8_e4m3, which halves them");
    tries.push("a lower level, if it fits");
    format!("Try {}.", tries.join(", or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use engine_protocol::{CacheDecision, CacheUse, StageTime};

    /// A run of two of 50 steps on the sample GPU, with these operations in denoise and this stall for copies; encode and decode take a second each, with nothing in them.
    fn profiled(operations: Vec<OperationTime>, denoise_secs: f64, stalled_secs: f64) -> RunRecord {
        let mut record = samples::ok("level3", 3, 10);
        record.config.steps = 50;
        record.config.steps_measured = Some(2.into());
        for stage in &mut record.stages {
            let (secs, stall) = if stage.stage == Stage::Denoise { (denoise_secs, stalled_secs) } else { (1.0, 0.0) };
            stage.time = Some(StageTime {
                secs: Secs::measured(secs),
                copy_stall: Some(Secs::measured(stall)),
                exchange: None,
                waiting: None,
                work: None,
            });
            if stage.stage == Stage::Denoise {
                stage.operations.clone_from(&operations);
            }
        }
        record
    }

    fn operation(name: &str, kind: WorkKind, secs: f64, operations: f64, bytes: f64) -> OperationTime {
        OperationTime { name: name.into(), kind, dtype: WorkType::Bf16, calls: 4, secs: Secs::measured(secs), operations, bytes }
    }

    #[test]
    fn steps_that_did_not_run_count_as_those_that_did() {
        let gpu = samples::gpu();
        let peak = gpu.flops.bf16.value;
        let record = profiled(vec![operation("aten::addmm", WorkKind::Gemm, 8.0, 4.0 * peak, 1.0)], 10.0, 0.0);
        let breakdown = breakdown(&record, Some(&gpu)).expect("all times are known");
        // 10 s for two steps, so 250 s for 50, and a second before and after.
        assert_eq!(breakdown.total, Secs::measured(252.0));
        let row = &breakdown.operations[0];
        assert_eq!((row.sum.calls, row.sum.secs.expected), (100, 200.0));
        assert_eq!((row.share_of_peak, row.bound), (Some(0.5), Some(Bound::Arithmetic)));
        assert_eq!(breakdown.models[1].idle_secs, 50.0);
        assert_eq!(breakdown.bottleneck, (Bound::Arithmetic, 200.0));
        assert!(
            breakdown.advice.starts_with("The bottleneck is arithmetic: 79% of the time, most of it matrix product (79%)."),
            "{}",
            breakdown.advice
        );
    }

    #[test]
    fn what_ranks_wait_for_is_not_the_hosts() {
        let mut record = profiled(vec![operation("aten::addmm", WorkKind::Gemm, 3.0, 1.0, 1.0)], 10.0, 0.0);
        let denoise = record.stages.iter_mut().find(|stage| stage.stage == Stage::Denoise).expect("a stage");
        let time = denoise.time.as_mut().expect("a time");
        (time.exchange, time.waiting) = (Some(Secs::measured(4.0)), Some(Secs::measured(2.0)));
        let breakdown = breakdown(&record, None).expect("all times are known");
        // Of two steps, for 50.
        assert_eq!((breakdown.models[1].ranks_secs, breakdown.models[1].idle_secs), (Secs::measured(150.0), 25.0));
        assert_eq!(breakdown.bottleneck, (Bound::Ranks, 150.0));
        assert!(breakdown.advice.starts_with("The bottleneck is other GPUs: 60% of the time"), "{}", breakdown.advice);
    }

    #[test]
    fn steps_that_a_cache_shortens_count_as_such() {
        let mut record = profiled(vec![operation("aten::addmm", WorkKind::Gemm, 12.0, 1.0, 1.0)], 12.0, 0.0);
        // Four ran, of which one is short; of all 50 it is every other one.
        record.config.steps_measured = Some(4.into());
        record.cache = Some(CacheUse { decided: CacheDecision::Steps, reused_steps: 25 });
        let denoise = record.stages.iter_mut().find(|stage| stage.stage == Stage::Denoise).expect("a stage");
        (denoise.step_secs, denoise.reused_steps) = ([4.0, 3.5, 0.5, 4.0].map(Secs::measured).to_vec(), vec![2]);
        let breakdown = breakdown(&record, None).expect("all times are known");
        let models: f64 = breakdown.models.iter().map(|model| model.secs.expected).sum();
        assert!((models - breakdown.total.expected).abs() < 1e-9, "{models} of {:?}", breakdown.total);
    }

    #[test]
    fn what_holds_a_run_up_is_named() {
        let gpu = samples::gpu();
        let (peak, bandwidth, link) = (gpu.flops.bf16.value, gpu.memory_bytes_per_sec.value, gpu.pcie.pinned_bytes_per_sec.value);
        let product = |secs: f64| operation("aten::addmm", WorkKind::Gemm, secs, secs * peak, 1.0);
        for (record, bound, part) in [
            (
                profiled(vec![product(2.0), operation("copy to device", WorkKind::Copy, 9.0, 0.0, 9.0 * link)], 10.0, 8.0),
                Bound::Copies,
                "resident_blocks=auto",
            ),
            (
                profiled(vec![product(2.0), operation("aten::add_", WorkKind::Pointwise, 7.0, 0.0, 7.0 * bandwidth)], 10.0, 0.0),
                Bound::Memory,
                "vae_tile_size",
            ),
            (profiled(vec![product(2.0)], 10.0, 0.0), Bound::Host, "guidance_batch=true"),
            (
                profiled(vec![operation("aten::add_", WorkKind::Pointwise, 9.0, 0.0, bandwidth * 0.1)], 10.0, 0.0),
                Bound::Host,
                "the GPU waits to be asked",
            ),
        ] {
            let breakdown = breakdown(&record, Some(&gpu)).expect("all times are known");
            assert_eq!(breakdown.bottleneck.0, bound, "{breakdown:?}");
            assert!(breakdown.advice.contains(part), "{}", breakdown.advice);
        }
    }

    #[test]
    fn a_time_that_is_not_known_is_no_breakdown() {
        assert_eq!(breakdown(&samples::ok("level3", 3, 10), None), None);
    }
}
