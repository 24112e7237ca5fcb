//! Records for this crate's tests.

use engine_protocol::{
    Config, Device, Efficiency, Figure, GIB, GpuProfile, Interval, ModelSpec, Outcome, Pcie, PeakFlops, PeakParts, RunRecord, SCHEMA,
    Settings, Source, Stage, StageMemory, StageRecord,
};

use crate::run::{Host, Manifest, Run, RunGpu};

const TINY: &str = include_str!("../../sweeps/models/wan-tiny.yaml");

/// A run of these records on a GPU of 24 GiB.
pub(crate) fn run(records: Vec<RunRecord>) -> Run {
    let manifest = Manifest {
        schema: SCHEMA,
        version: "0.1.0".into(),
        begun: "2026-11-24T12:00:00+00:00[UTC]".into(),
        command_line: vec!["lowmem".into(), "sweep".into()],
        sweep: "sample".into(),
        definition: "model: wan-tiny\n".into(),
        device: Device::Virtual,
        gpu: Some(gpu()),
        choice: "the only one".into(),
        capacity_bytes: Some(24 * GIB),
        smaller: Vec::new(),
        memory_limit_bytes: None,
        gpus: Vec::new(),
        ram_bytes: None,
        ram: None,
        disk: None,
        allows_lossy: false,
        models: vec![model()],
        cases: records.iter().map(|record| record.case.clone()).collect(),
        values: Default::default(),
        mixed: Vec::new(),
        left_out: Vec::new(),
        host: Host { system: "Linux".into(), processor: None, cores: 2, memory_bytes: None },
    };
    Run::new(manifest, records)
}

/// A run on a GPU of 24 GiB, which holds level 0, and one of 12, which does not.
pub(crate) fn on_two_gpus() -> Run {
    let gpus = [("24GB", "rtx-4090", 24), ("12GB", "rtx-3060", 12)].map(|(asked, name, gib)| RunGpu {
        asked: asked.into(),
        profile: GpuProfile { name: name.into(), ..gpu() },
        choice: format!("{asked} is {name}."),
        capacity_bytes: gib * GIB,
        smaller: Vec::new(),
        memory_limit_bytes: None,
    });
    let on = |gpu: &RunGpu, record: RunRecord| RunRecord {
        case: format!("{}-{}", gpu.asked, record.case),
        gpu: Some(gpu.profile.name.clone()),
        capacity_bytes: Some(gpu.capacity_bytes),
        ..record
    };
    let [large, small] = &gpus;
    let mut run = run(vec![on(large, ok("level0", 0, 20)), on(small, oom("level0", 0, 11)), on(small, ok("level3", 3, 5))]);
    (run.manifest.gpu, run.manifest.capacity_bytes, run.manifest.gpus) = (None, None, gpus.to_vec());
    run
}

/// A case that fits, with its peak of device bytes in GiB.
pub(crate) fn ok(case: &str, level: u8, peak: u64) -> RunRecord {
    let settings = Settings { low_mem_level: Some(level), ..Settings::default() };
    let memory = StageMemory {
        allocated_bytes: GIB,
        reserved_bytes: 2 * GIB,
        peak_allocated_bytes: peak.saturating_sub(2) * GIB,
        peak_reserved_bytes: peak.saturating_sub(1) * GIB,
        peak_device_bytes: peak * GIB,
        parts: Some(PeakParts::new([peak.saturating_sub(2) * GIB, 0, 0, 0, 0, 0, 0, 0], peak.saturating_sub(1) * GIB)),
    };
    let stage = |stage| StageRecord { memory: Some(memory), ..StageRecord::new(stage) };
    RunRecord {
        schema: SCHEMA,
        version: Some("0.1.0".into()),
        began: Some("2026-11-24T12:00:00+00:00".into()),
        case: case.into(),
        outcome: Outcome::Ok,
        error: None,
        failed_stage: None,
        requested_bytes: None,
        parts_at_failure: None,
        host_shortage: None,
        gpu: Some("rtx-4090".into()),
        capacity_bytes: None,
        device: Device::Virtual,
        device_name: Some("Virtual".into()),
        memory_source: Some(Source::Virtual),
        time_source: None,
        config: Config::resolve(&settings, &model()).expect("a legal configuration"),
        settled_config: None,
        lowered: Vec::new(),
        stages: vec![stage(Stage::Load), stage(Stage::Encode), stage(Stage::Denoise), stage(Stage::Decode)],
        h2d_bytes: Some(1),
        d2h_bytes: Some(2),
        host_pinned_peak_bytes: Some(0),
        page_lock_warning: None,
        wall_secs: 0.5,
        forecast: None,
        steps_of: None,
        gpu_state: None,
        is_skipped: false,
        predicted_need_bytes: None,
        cache: None,
        ranks: Vec::new(),
        unsupported_calls: [("cudaThing".to_owned(), 2)].into(),
    }
}

/// A case that ran out in denoise with so many GiB allocated, asking for 10 more.
pub(crate) fn oom(case: &str, level: u8, allocated: u64) -> RunRecord {
    let mut record = ok(case, level, allocated + 2);
    record.outcome = Outcome::Oom;
    record.error = Some("out of memory, \"quoted\" <b>".into());
    record.failed_stage = Some(Stage::Denoise);
    record.requested_bytes = Some(10 * GIB);
    record.stages.truncate(3);
    let memory = record.stages[2].memory.as_mut().expect("memory");
    memory.peak_allocated_bytes = allocated * GIB;
    record.parts_at_failure = Some(PeakParts::new([(allocated - 1) * GIB, 0, 0, 0, 0, 0, 0, 0], allocated * GIB));
    record
}

fn model() -> ModelSpec {
    serde_yaml::from_str(TINY).expect("the model definition")
}

/// A GPU with round rates.
pub(crate) fn gpu() -> GpuProfile {
    fn figure<T>(value: T) -> Figure<T> {
        Figure { value, source: "sample".into() }
    }
    let share = || Interval { low: 0.4, expected: 0.5, high: 0.8, source: "sample".into() };
    GpuProfile {
        name: "rtx-4090".into(),
        title: "NVIDIA GeForce RTX 4090".into(),
        nominal_gb: 24,
        compute_capability: figure("8.9".into()),
        multiprocessors: figure(128),
        memory_bytes: figure(24 * GIB),
        context_bytes: figure(GIB),
        code_bytes: figure(0),
        stream_bytes: figure(0),
        page_table_share: figure(0.0),
        memory_bytes_per_sec: figure(1e12),
        l2_cache_bytes: figure(1 << 20),
        clock_hz: figure(1e9),
        flops: PeakFlops { fp32: figure(1e12), tf32: figure(1e12), bf16: figure(1e12), fp16: figure(1e12), fp8: None, int8: None },
        pcie: Pcie { generation: figure(4), lanes: figure(16), pinned_bytes_per_sec: figure(2e10), pageable_bytes_per_sec: None },
        nvlink_bytes_per_sec: None,
        efficiency: Efficiency {
            gemm: share(),
            attention: share(),
            cudnn_attention: None,
            sage_attention: None,
            flash_attention_3: None,
            convolution: share(),
            pointwise: share(),
            reduction: share(),
        },
        power_limit: None,
        small_kernels: None,
    }
}
