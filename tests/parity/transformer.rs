//! The transformer against diffusers.

use engine::Result;
use engine::transformer::{Part, PassCache, Timestep, Transformer};
use engine::weights::{Group, GroupName};
use engine_protocol::{AttnType, TransformerSpec};
use tch::{Kind, Tensor};

use crate::resident::{Fixture, Resident, assert_close, assert_close_as_a_whole, device};

const FIXTURE: &str = "transformer";

/// The timesteps that the generator ran.
const TIMESTEPS: [i64; 2] = [999, 137];

fn run(compute: Kind, attn_type: AttnType, sequence_chunk: Option<i64>, timestep: i64) -> Tensor {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    let mut groups = Resident::load(FIXTURE, &Transformer::groups(&spec), compute);
    let transformer = Transformer::new(&spec, attn_type, sequence_chunk);
    transformer.forward(&mut groups, &fixture.input("input.latents"), timestep as f64, &fixture.input("input.prompt")).unwrap()
}

fn wanted(timestep: i64) -> Tensor {
    Fixture::open(FIXTURE).tensor(&format!("output.{timestep}"))
}

#[test]
fn prediction() {
    for timestep in TIMESTEPS {
        let got = run(Kind::Float, AttnType::Sdpa, None, timestep);
        assert_close(&format!("transformer, fp32, timestep {timestep}"), &got, &wanted(timestep), 1e-5);
    }
}

#[test]
fn prediction_by_every_back_end_and_in_slices() {
    // In fp32 flash attention is the CPU's alone, and memory-efficient attention the GPU's.
    let own = if device().is_gpu() { AttnType::MemEfficient } else { AttnType::Flash };
    for attn_type in [AttnType::Sdpa, own, AttnType::Math] {
        for chunk in [None, Some(7), Some(1)] {
            let what = format!("transformer, fp32, {}, slices of {chunk:?}", attn_type.name());
            assert_close(&what, &run(Kind::Float, attn_type, chunk, 137), &wanted(137), 1e-5);
        }
    }
}

/// Queries and keys that one kernel norms and turns: on a GPU the kernel itself, on the CPU its source.
#[test]
fn prediction_by_the_fused_kernel() {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 1e-2), (Kind::Half, 2e-3)] {
        let mut groups = Resident::load(FIXTURE, &Transformer::groups(&spec), kind);
        // In 16 bits heads by themselves are rounded more often, with the kernel and without.
        let by_heads = (kind == Kind::Float).then_some((Some(7), Some(1)));
        for (chunk, heads) in [(None, None), (Some(7), None)].into_iter().chain(by_heads) {
            let transformer = Transformer::new(&spec, AttnType::Sdpa, chunk).with_head_chunk(heads).with_fused(true);
            let got = transformer.forward(&mut groups, &fixture.input("input.latents"), 137.0, &fixture.input("input.prompt")).unwrap();
            assert_close(&format!("transformer, fused, {kind:?}, slices of {chunk:?}, {heads:?} heads"), &got, &wanted(137), tolerance);
        }
    }
}

/// With so many tokens the last products of cross-attention and of feed-forward begin with the hidden state, where no frames are given and nobody asks what parts give.
#[test]
fn prediction_by_products_that_add() {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    let (batch, latents) = (2, [5, 8, 10]);
    let tokens: i64 = (0..3).map(|axis| latents[axis] / spec.patch_size[axis]).product();
    assert!(batch * tokens >= 2 * spec.ffn_dim && fixture.input("input.prompt").size()[0] >= batch);
    let [frames, height, width] = latents;
    tch::manual_seed(11);
    let latents = Tensor::rand([batch, spec.in_channels, frames, height, width], (Kind::Float, device().torch));
    let prompt = fixture.input("input.prompt").narrow(0, 0, batch);
    for given_frames in [0, 1] {
        let timestep = Timestep { value: 700.0, given_frames };
        let predict = |kind: Kind, chunk: Option<i64>, fused: bool, cache: &mut Parts| {
            let mut groups = Resident::load(FIXTURE, &Transformer::groups(&spec), kind);
            let transformer = Transformer::new(&spec, AttnType::Sdpa, chunk).with_fused(fused);
            transformer.forward_cached(&mut groups, &latents, timestep, &prompt, cache).unwrap()
        };
        let wanted = predict(Kind::Float, None, false, &mut Parts::default());
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            // In 16 bits no further off than products whose results are added then.
            let apart = predict(kind, None, false, &mut Parts::default()).to_kind(Kind::Float);
            let rounding = ((apart - &wanted).norm() / wanted.norm()).double_value(&[]);
            for (chunk, asked) in [(None, false), (Some(7), false), (Some(7), true)] {
                let mut parts = Parts { asked, told: 0 };
                let got = predict(kind, chunk, true, &mut parts);
                let what = format!("transformer, {given_frames} frames given, {kind:?}, slices of {chunk:?}, asked {asked}");
                assert_close_as_a_whole(&what, &got, &wanted, (1.1 * rounding).max(1e-5));
                // Where it is asked for, all that parts give is told; else that of self-attention alone, and of feed-forward where tokens have gates of their own.
                let slices = tokens / chunk.unwrap_or(tokens) + i64::from(chunk.is_some());
                let told = if asked { 3 } else { 1 + i64::from(given_frames > 0) };
                assert_eq!(parts.told, spec.num_layers * told * slices, "{what}");
            }
        }
    }
}

/// A cache that leaves nothing out, and counts what it is told of parts.
#[derive(Debug, Default)]
struct Parts {
    asked: bool,
    told: i64,
}

impl PassCache for Parts {
    fn takes_parts(&self) -> bool {
        self.asked
    }

    fn after_part(&mut self, _block: u32, _part: Part, _start: i64, _given: &Tensor) -> Result<()> {
        self.told += 1;
        Ok(())
    }

    fn in_place_of_part(&mut self, _block: u32, _part: Part, _start: i64, _hidden: &Tensor, _gate: Option<&Tensor>) -> Result<()> {
        unreachable!("nothing is left out")
    }
}

#[test]
fn prediction_in_16_bits() {
    for (kind, tolerance) in [(Kind::BFloat16, 1e-2), (Kind::Half, 2e-3)] {
        for timestep in TIMESTEPS {
            let got = run(kind, AttnType::Sdpa, None, timestep);
            assert_eq!(got.kind(), kind);
            assert_close(&format!("transformer, {kind:?}, timestep {timestep}"), &got, &wanted(timestep), tolerance);
        }
    }
}

#[test]
fn each_block_alone() {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    let groups = Transformer::groups(&spec);
    assert_eq!(spec.num_layers, 2);
    let transformer = Transformer::new(&TransformerSpec { num_layers: 1, ..spec.clone() }, AttnType::Sdpa, None);
    for index in 0..2 {
        // The only block of a transformer is its first.
        let alone = |group: &Group| Group { name: GroupName { number: group.name.number.map(|_| 0), ..group.name }, ..group.clone() };
        let groups: Vec<_> = groups.iter().filter(|group| group.name.number.is_none_or(|number| number == index)).map(alone).collect();
        for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 1e-2)] {
            let mut groups = Resident::load(FIXTURE, &groups, kind);
            let (latents, prompt) = (fixture.input("input.latents"), fixture.input("input.prompt"));
            let got = transformer.forward(&mut groups, &latents, TIMESTEPS[0] as f64, &prompt).unwrap();
            assert_close(&format!("block {index} alone, {kind:?}"), &got, &fixture.tensor(&format!("output.block.{index}")), tolerance);
        }
    }
}

#[test]
fn frames_sides_prompts_and_batches_of_other_sizes() {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    let (shapes, timestep): (Vec<String>, f64) = (fixture.fact("shapes"), fixture.fact("shapes_timestep"));
    assert_eq!(shapes.len(), 4);
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 1e-2)] {
        let mut groups = Resident::load(FIXTURE, &Transformer::groups(&spec), kind);
        for (shape, chunk) in shapes.iter().flat_map(|shape| [(shape, None), (shape, Some(16))]) {
            let input = |name: &str| fixture.input(&format!("input.{shape}.{name}"));
            let transformer = Transformer::new(&spec, AttnType::Sdpa, chunk);
            let got = transformer.forward(&mut groups, &input("latents"), timestep, &input("prompt")).unwrap();
            let what = format!("transformer, {shape}, {kind:?}, slices of {chunk:?}");
            assert_close(&what, &got, &fixture.tensor(&format!("output.{shape}")), tolerance);
        }
    }
}

/// Latent frames of videos of 5, 9, 17 and 81 frames.
#[test]
fn a_prediction_has_the_shape_of_its_latents() {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    let mut groups = Resident::load(FIXTURE, &Transformer::groups(&spec), Kind::Float);
    let transformer = Transformer::new(&spec, AttnType::Sdpa, None);
    let prompt = fixture.input("input.prompt").narrow(0, 0, 1);
    for (frames, latent_frames) in [(5, 2), (9, 3), (17, 5), (81, 21)] {
        for [height, width] in [[2, 2], [6, 10], [10, 14]] {
            let latents = Tensor::zeros([1, spec.in_channels, latent_frames, height, width], (Kind::Float, device().torch));
            let got = transformer.forward(&mut groups, &latents, 500.0, &prompt).unwrap();
            assert_eq!(got.size(), [1, spec.out_channels, latent_frames, height, width], "{frames} frames");
            assert_eq!(got.isfinite().all().int64_value(&[]), 1, "{frames} frames");
        }
    }
}

#[test]
fn latents_that_patches_do_not_cover_are_refused() {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    let mut groups = Resident::load(FIXTURE, &Transformer::groups(&spec), Kind::Float);
    let latents = fixture.input("input.latents").narrow(3, 0, 5);
    let transformer = Transformer::new(&spec, AttnType::Sdpa, None);
    let message = transformer.forward(&mut groups, &latents, 1.0, &fixture.input("input.prompt")).unwrap_err().to_string();
    assert_eq!(
        message,
        "latents are [2, 6, 3, 5, 10], the transformer takes [batch, 6, frames, height, width] with multiples of [1, 2, 2]"
    );
}
