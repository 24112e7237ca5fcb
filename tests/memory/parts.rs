//! Peaks on the virtual GPU taken apart: each allocation is counted once, and for what it is.

use std::sync::LazyLock;

use engine::components;
use engine::memory::predict;
use engine_protocol::{AttnType, Outcome, PeakParts, RunRecord, Stage, StageRecord};
use lowmem_tests::model;

use super::sweep::{sweep, sweep_on};

/// libtorch 2.13's cuBLAS workspace on GPUs of compute capability 9 and up.
const CUBLAS_WORKSPACE_BYTES: u64 = 32 << 20;

fn parts(stage: &StageRecord) -> PeakParts {
    stage.memory.and_then(|memory| memory.parts).expect("every allocation was seen")
}

fn stage(record: &RunRecord, stage: Stage) -> PeakParts {
    parts(record.stages.iter().find(|of| of.stage == stage).expect("the stage ran"))
}

/// A small case of every level.
static LEVELS: LazyLock<Vec<RunRecord>> = LazyLock::new(|| {
    let records = sweep("model: wan2.1-t2v-1.3b\nresolution: 480p\nsteps_measured: 4\nsweep:\n  low_mem_level: [0, 1, 2, 3]\n");
    assert_eq!(records.len(), 4);
    records
});

#[test]
fn the_parts_come_to_the_peaks_and_are_what_was_planned() {
    for record in LEVELS.iter() {
        let planned = predict(&record.config, &components::of(&model(&record.config.model)), None);
        for (stage, planned) in record.stages.iter().zip(&planned.stages) {
            let (memory, parts) = (stage.memory.expect("counted"), parts(stage));
            let what = format!("level {}, {}: {parts:?}", record.config.low_mem_level, stage.stage.name());
            assert_eq!(parts.allocated_bytes(), memory.peak_allocated_bytes, "{what}");
            assert_eq!(parts.reserved_bytes(), memory.peak_reserved_bytes, "{what}");
            assert_eq!(planned.stage, stage.stage);
            assert_eq!(parts.weights_bytes, planned.resident_bytes, "{what}");
            assert_eq!(parts.staging_bytes, planned.staging_bytes, "{what}");

            // What only some stages have. At level 0 the VAE decodes whole frames, which leave as they are done: there is no canvas.
            let decodes = stage.stage == Stage::Decode;
            assert_eq!(parts.feature_cache_bytes > 0, decodes, "{what}");
            assert_eq!(parts.frames_bytes > 0, decodes && record.config.vae_tile_size.is_some(), "{what}");
            let computes = match stage.stage {
                Stage::Load => false,
                Stage::Encode => record.config.low_mem_level < 2,
                Stage::EncodeImage | Stage::Denoise | Stage::Decode => true,
            };
            assert_eq!(parts.activations_bytes > 0, computes, "{what}");
            assert_eq!(parts.workspace_bytes >= CUBLAS_WORKSPACE_BYTES, computes, "{what}");
        }
    }
}

#[test]
fn a_pass_begins_with_the_same_latents_and_prompts_at_each_level() {
    for record in LEVELS.iter() {
        let model = model(&record.config.model);
        let latents = record.config.latent_shape(&model).iter().product::<i64>();
        let prompts = 2 * model.text_encoder.max_tokens * model.text_encoder.d_model;
        // bf16, and both a multiple of the allocator's 512 bytes.
        assert_eq!(stage(record, Stage::Denoise).latents_bytes, 2 * (latents + prompts) as u64);
        assert_eq!(stage(record, Stage::Decode).latents_bytes, 2 * latents as u64);
    }
}

#[test]
fn steps_are_alike_from_the_second_on_and_one_of_them_is_the_peak() {
    for record in LEVELS.iter() {
        for of in &record.stages {
            let steps = &of.steps;
            assert_eq!(steps.len(), if of.stage == Stage::Denoise { 4 } else { 0 });
            assert!(steps.iter().skip(1).all(|step| *step == steps[1]), "level {}: {steps:?}", record.config.low_mem_level);
        }
        let denoise = record.stages.iter().find(|of| of.stage == Stage::Denoise).expect("the stage ran");
        let peak = denoise.steps.iter().max_by_key(|step| step.allocated_bytes()).expect("a step");
        assert_eq!(peak.allocated_bytes(), parts(denoise).allocated_bytes());
        assert_eq!(denoise.steps.iter().map(PeakParts::reserved_bytes).max(), Some(parts(denoise).reserved_bytes()));
    }
}

#[test]
fn scores_that_attention_holds_for_itself_are_workspace() {
    let records = sweep(
        "model: wan2.1-t2v-1.3b\nresolution: 480p\nframes: 1\nsteps_measured: 1\nsweep:\n  attn_type: [flash, math]\n  sequence_chunk: [0]\n",
    );
    // Records come in the order in which cases end.
    let of = |attn_type| records.iter().find(|record| record.config.attn_type == attn_type).expect("a record for each case");
    let [flash, math] = [AttnType::Flash, AttnType::Math].map(|attn_type| stage(of(attn_type), Stage::Denoise));
    // One frame is 30 by 52 tokens. The plain product holds a score of each pair of them for each head, in fp32.
    let tokens = 30 * 52;
    let scores = 12 * tokens * tokens * 4;
    assert!(math.workspace_bytes >= scores, "{math:?}");
    assert!(flash.workspace_bytes < CUBLAS_WORKSPACE_BYTES + (1 << 20), "{flash:?}");
    assert!(math.activations_bytes <= flash.activations_bytes, "the result is no more than it was: {math:?}, {flash:?}");
}

#[test]
fn an_out_of_memory_says_what_was_there_when_it_failed() {
    let records = sweep_on("32GB", "model: wan2.1-t2v-14b\nresolution: 720p\nsequence_chunk: 0\nsweep:\n  low_mem_level: [0, 2]\n");
    let of = |level| records.iter().find(|record| record.config.low_mem_level == level).expect("a record for each case");
    let [load, denoise] = [of(0), of(2)];
    assert_eq!((load.outcome, load.failed_stage), (Outcome::Oom, Some(Stage::Load)));
    let at_failure = load.parts_at_failure.expect("the allocator's own failure");
    assert_eq!(at_failure, stage(load, Stage::Load), "loading frees nothing");
    assert_eq!(at_failure.weights_bytes, at_failure.allocated_bytes());

    assert_eq!((denoise.outcome, denoise.failed_stage), (Outcome::Oom, Some(Stage::Denoise)));
    let at_failure = denoise.parts_at_failure.expect("the allocator's own failure");
    assert_eq!(at_failure.weights_bytes, stage(denoise, Stage::Denoise).weights_bytes);
    assert!(at_failure.activations_bytes > 0 && at_failure.allocated_bytes() <= stage(denoise, Stage::Denoise).allocated_bytes());
}
