//! What happens to work and times when a model has twice the layers, a video twice the tokens, or a run twice the steps: the parts that should change do, by as
//! much as they should, and no others.

use std::path::Path;

use engine_protocol::{RunRecord, Stage, StageTime, WorkKind};
use lowmem_tests::{lowmem, root};

/// The 1.3B model's transformer: its width, its feed-forward's, tokens of a prompt and their width, values of a patch.
const WIDTH: f64 = 1536.0;
const INNER: f64 = 8960.0;
const PROMPT: f64 = 512.0;

/// A profiled run of the 1.3B model with so many layers, at 480p. Everything is on the GPU, so that nothing depends on this machine's processor.
fn run(layers: u32, frames: u32, steps: u32, level: u8) -> RunRecord {
    let folder = tempfile::tempdir().expect("a folder");
    copy_data(folder.path(), layers);
    let settings = [
        "model=layered".to_owned(),
        "resolution=480p".into(),
        format!("frames={frames}"),
        format!("steps={steps}"),
        format!("steps_measured={steps}"),
        format!("low_mem_level={level}"),
        "offload_text_encoder=off".into(),
        "sequence_chunk=0".into(),
    ];
    let mut lowmem = lowmem();
    let output = lowmem.current_dir(&folder).args(["profile", "--json", "--gpu", "h100", "--device", "virtual"]).args(settings).output();
    let output = output.expect("lowmem starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a record")
}

/// The data files, with a model of so many layers beside the others.
fn copy_data(folder: &Path, layers: u32) {
    for kind in ["models", "gpus"] {
        std::fs::create_dir_all(folder.join("sweeps").join(kind)).expect("a folder");
        for file in std::fs::read_dir(root().join("sweeps").join(kind)).expect("data").flatten() {
            std::fs::copy(file.path(), folder.join("sweeps").join(kind).join(file.file_name())).expect("a copy");
        }
    }
    let model = std::fs::read_to_string(root().join("sweeps/models/wan2.1-t2v-1.3b.yaml")).expect("a model");
    let model = model.replace("name: wan2.1-t2v-1.3b", "name: layered").replace("num_layers: 30", &format!("num_layers: {layers}"));
    std::fs::write(folder.join("sweeps/models/layered.yaml"), model).expect("written");
}

fn time(record: &RunRecord, stage: Stage) -> StageTime {
    record.stages.iter().find(|it| it.stage == stage).and_then(|it| it.time).expect("modelled")
}

/// Operations of denoise of one kind.
fn operations(record: &RunRecord, kind: impl Fn(WorkKind) -> bool) -> f64 {
    let stage = record.stages.iter().find(|it| it.stage == Stage::Denoise).expect("it ran");
    stage.operations.iter().filter(|sum| kind(sum.kind)).map(|sum| sum.operations).sum()
}

fn products(record: &RunRecord) -> f64 {
    operations(record, |kind| kind == WorkKind::Gemm)
}

fn attention(record: &RunRecord) -> f64 {
    operations(record, |kind| matches!(kind, WorkKind::Attention | WorkKind::CudnnAttention))
}

/// Tokens at 480p: a patch is 4 frames (the first one alone), 16 x 16 pixels.
fn tokens(frames: u32) -> f64 {
    f64::from(frames.div_ceil(4)) * 30.0 * 52.0
}

fn near(a: f64, b: f64, what: &str) {
    assert!((a / b - 1.0).abs() < 1e-9, "{what}: {a:e} and {b:e}");
}

#[test]
fn operations_are_those_of_the_formulas() {
    for (layers, frames, steps) in [(2, 17, 1), (3, 9, 2), (1, 33, 1)] {
        let record = run(layers, frames, steps, 0);
        let (passes, layers, tokens) = (2.0 * f64::from(steps), f64::from(layers), tokens(frames));
        // Two products of a multiplication and an addition each, over all pairs: of the tokens, and of tokens and prompt.
        near(attention(&record), passes * layers * 4.0 * WIDTH * tokens * (tokens + PROMPT), "attention");
        // Queries, keys, values and output of self-attention, queries and output of cross-attention, feed-forward; keys and values of the prompt.
        let a_layer = 2.0 * tokens * (6.0 * WIDTH * WIDTH + 2.0 * WIDTH * INNER) + 2.0 * PROMPT * 2.0 * WIDTH * WIDTH;
        // Patches in and out (16 channels of 2 x 2, which may be a convolution), the prompt's two layers, the timestep's three.
        let patches = 2.0 * tokens * 64.0 * WIDTH;
        let prompt = 2.0 * PROMPT * (4096.0 * WIDTH + WIDTH * WIDTH);
        let timestep = 2.0 * (256.0 * WIDTH + WIDTH * WIDTH + 6.0 * WIDTH * WIDTH);
        let all = operations(&record, |kind| matches!(kind, WorkKind::Gemm | WorkKind::Convolution));
        near(all, passes * (layers * a_layer + 2.0 * patches + prompt + timestep), "products");
    }
}

#[test]
fn twice_the_layers_change_the_transformer_alone() {
    for level in [0, 3] {
        let [two, four, six] = [2, 4, 6].map(|layers| run(layers, 9, 1, level));
        near(attention(&four), 2.0 * attention(&two), "attention");
        near(products(&six) - products(&four), products(&four) - products(&two), "products grow by as much for each layer");
        for stage in [Stage::Encode, Stage::Decode] {
            assert_eq!(time(&two, stage).work, time(&four, stage).work, "level {level}, {}", stage.name());
            near(time(&two, stage).secs.expected, time(&four, stage).secs.expected, stage.name());
        }
        let [two, four, six] = [two, four, six].map(|record| time(&record, Stage::Denoise).secs.expected);
        assert!(((six - four) / (four - two) - 1.0).abs() < 0.01, "level {level}: {two}, {four}, {six} s");
    }
}

#[test]
fn twice_the_steps_take_twice_the_time_of_denoise_alone() {
    for level in [0, 3] {
        let [two, four, six] = [2, 4, 6].map(|steps| run(2, 9, steps, level));
        near(attention(&four), 2.0 * attention(&two), "attention");
        near(products(&four), 2.0 * products(&two), "products");
        for stage in [Stage::Encode, Stage::Decode] {
            assert_eq!(time(&two, stage).work, time(&four, stage).work, "level {level}, {}", stage.name());
            near(time(&two, stage).secs.expected, time(&four, stage).secs.expected, stage.name());
        }
        let [two, four, six] = [two, four, six].map(|record| time(&record, Stage::Denoise).secs.expected);
        assert!(((six - four) / (four - two) - 1.0).abs() < 0.01, "level {level}: {two}, {four}, {six} s");
    }
}

#[test]
fn twice_the_tokens_are_four_times_their_pairs() {
    // 5, 10 and 15 latent frames.
    let [one, two, three] = [17, 37, 57].map(|frames| run(2, frames, 1, 0));
    near(products(&three) - products(&two), products(&two) - products(&one), "products grow by as much for each token");
    // Of self-attention: what is left when cross-attention, which grows with tokens, is taken from both.
    let cross = |frames: u32| 2.0 * 2.0 * 4.0 * WIDTH * tokens(frames) * PROMPT;
    near(attention(&two) - cross(37), 4.0 * (attention(&one) - cross(17)), "pairs of tokens");
    assert_eq!(time(&one, Stage::Encode).work, time(&two, Stage::Encode).work, "the prompt is as long");
    let decode = |record: &RunRecord| time(record, Stage::Decode).work.expect("on the GPU").operations;
    // The first latent frame becomes one frame, each other one four.
    near(decode(&three) - decode(&two), decode(&two) - decode(&one), "the VAE grows by as much for each frame");
}
