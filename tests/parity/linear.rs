//! Linear layers in 8 bits against the same formula in Python: on a GPU libtorch's products, on the CPU the same arithmetic.

use engine::memory::{Place, Residency};
use engine::transformer::Transformer;
use engine::weights::{Source, WeightTypes};
use engine_protocol::{AttnType, LinearDtype, TransformerSpec};
use rstest::rstest;
use tch::Kind;

use crate::resident::{Fixture, assert_close_as_a_whole, device, path};

/// What a number comes to that lies between two of 8 bits and is rounded to the other one, since it was computed in another order.
const ROUNDED_OTHERWISE: f64 = 5e-3;

#[rstest]
#[case::fp8(LinearDtype::Fp8, 0.08)]
#[case::int8(LinearDtype::Int8, 0.03)]
fn products_in_8_bits_are_as_the_formula_says_and_near_the_exact_ones(#[case] linear: LinearDtype, #[case] distance: f64) {
    let exact = Fixture::open("transformer");
    let spec: TransformerSpec = exact.fact("spec");
    let groups = Transformer::groups(&spec);
    let places = vec![Place::Resident; groups.len()];
    let wanted = Fixture::open("linear");
    // FP8 is multiplied on a GPU alone, and gives bf16 there. What is rounded to 16 bits first is often another number in 8.
    let of_the_cpu = [(Kind::Float, ROUNDED_OTHERWISE), (Kind::Half, 3e-2), (Kind::BFloat16, 5e-2)];
    let kinds = if device().is_gpu() { &of_the_cpu[2..] } else { &of_the_cpu[..] };
    for &(compute, tolerance) in kinds {
        let types = WeightTypes { waiting: linear.weight_dtype().expect("8 bits"), linear, ..WeightTypes::plain(compute) };
        let source = Source::open(&path("transformer")).unwrap();
        let mut residency = Residency::new(groups.clone(), &places, types, device().torch, &source).unwrap();
        // A head's 24 channels are no multiple of 16, which a GPU asks for.
        let one_head = if device().is_gpu() { None } else { Some(1) };
        for (timestep, chunk, heads) in [(999, None, None), (137, Some(7), None), (137, None, one_head)] {
            let transformer = Transformer::new(&spec, AttnType::Sdpa, chunk).with_head_chunk(heads);
            let (latents, prompt) = (exact.input("input.latents"), exact.input("input.prompt"));
            let got = transformer.forward(&mut residency, &latents, timestep as f64, &prompt).unwrap();
            let what =
                format!("linear layers in {}, timestep {timestep}, slices of {chunk:?}, {heads:?} heads, {compute:?}", linear.name());
            assert_close_as_a_whole(&what, &got, &wanted.tensor(&format!("output.{}.{timestep}", linear.name())), tolerance);
            assert_close_as_a_whole(&format!("{what}, to the exact result"), &got, &exact.tensor(&format!("output.{timestep}")), distance);
        }
    }
}
