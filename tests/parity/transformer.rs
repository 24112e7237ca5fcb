//! The transformer against diffusers.

use engine::transformer::Transformer;
use engine_protocol::{AttnType, TransformerSpec};
use tch::{Kind, Tensor};

use crate::resident::{Fixture, Resident, assert_close};

const FIXTURE: &str = "transformer";

/// The timesteps that the generator ran.
const TIMESTEPS: [i64; 2] = [999, 137];

fn run(compute: Kind, attn_type: AttnType, sequence_chunk: Option<i64>, timestep: i64) -> Tensor {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    let mut groups = Resident::load(FIXTURE, &Transformer::groups(&spec), compute);
    let transformer = Transformer::new(&spec, attn_type, sequence_chunk);
    transformer.forward(&mut groups, &fixture.tensor("input.latents"), timestep as f64, &fixture.tensor("input.prompt")).unwrap()
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
fn prediction_by_every_back_end_of_the_cpu_and_in_slices() {
    for attn_type in [AttnType::Sdpa, AttnType::Flash, AttnType::Math] {
        for chunk in [None, Some(7), Some(1)] {
            let what = format!("transformer, fp32, {}, slices of {chunk:?}", attn_type.name());
            assert_close(&what, &run(Kind::Float, attn_type, chunk, 137), &wanted(137), 1e-5);
        }
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
fn latents_that_patches_do_not_cover_are_refused() {
    let fixture = Fixture::open(FIXTURE);
    let spec: TransformerSpec = fixture.fact("spec");
    let mut groups = Resident::load(FIXTURE, &Transformer::groups(&spec), Kind::Float);
    let latents = fixture.tensor("input.latents").narrow(3, 0, 5);
    let transformer = Transformer::new(&spec, AttnType::Sdpa, None);
    let message = transformer.forward(&mut groups, &latents, 1.0, &fixture.tensor("input.prompt")).unwrap_err().to_string();
    assert_eq!(
        message,
        "latents are [2, 6, 3, 5, 10], the transformer takes [batch, 6, frames, height, width] with multiples of [1, 2, 2]"
    );
}
