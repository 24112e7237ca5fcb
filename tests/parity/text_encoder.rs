//! umT5 against transformers.

use engine::text_encoder::TextEncoder;
use engine_protocol::TextEncoderSpec;
use tch::{Device, Kind, Tensor};

use crate::resident::{Fixture, Resident, assert_close};

const FIXTURE: &str = "text_encoder";

fn load() -> (Fixture, TextEncoderSpec, Resident) {
    let fixture = Fixture::open(FIXTURE);
    let spec: TextEncoderSpec = fixture.fact("spec");
    let groups = Resident::load(FIXTURE, &TextEncoder::groups(&spec), Kind::Float);
    (fixture, spec, groups)
}

/// Each prompt's tokens without padding.
fn prompts(fixture: &Fixture) -> Vec<Vec<i64>> {
    let (ids, mask) = (fixture.tensor("input.ids"), fixture.tensor("input.mask"));
    (0..ids.size()[0]).map(|row| ids.get(row).narrow(0, 0, mask.get(row).sum(Kind::Int64).int64_value(&[])).try_into().unwrap()).collect()
}

#[test]
fn hidden_states() {
    let (fixture, spec, mut groups) = load();
    let hidden = TextEncoder::new(&spec).forward(&mut groups, &fixture.tensor("input.ids"), &fixture.tensor("input.mask")).unwrap();
    assert_close("umT5 hidden states, fp32", &hidden, &fixture.tensor("output.hidden"), 1e-5);
}

#[test]
fn prompt_embedding_of_two_prompts_at_once_and_of_each() {
    let (fixture, spec, mut groups) = load();
    let encoder = TextEncoder::new(&spec);
    let wanted = fixture.tensor("output.prompt_embedding");
    let prompts = prompts(&fixture);
    let both = encoder.prompt_embedding(&mut groups, &prompts, Device::Cpu).unwrap();
    assert_close("prompt embedding of two prompts, fp32", &both, &wanted, 1e-5);
    let each: Vec<Tensor> =
        prompts.iter().map(|prompt| encoder.prompt_embedding(&mut groups, std::slice::from_ref(prompt), Device::Cpu).unwrap()).collect();
    assert_close("prompt embedding of one prompt, fp32", &Tensor::cat(&each, 0), &wanted, 1e-5);
}

#[test]
fn prompt_embedding_in_16_bits() {
    let (fixture, spec, _) = load();
    let wanted = fixture.tensor("output.prompt_embedding");
    for (kind, tolerance) in [(Kind::BFloat16, 1e-2), (Kind::Half, 2e-3)] {
        let mut groups = Resident::load(FIXTURE, &TextEncoder::groups(&spec), kind);
        let got = TextEncoder::new(&spec).prompt_embedding(&mut groups, &prompts(&fixture), Device::Cpu).unwrap();
        assert_eq!(got.kind(), kind);
        assert_close(&format!("prompt embedding, {kind:?}"), &got, &wanted, tolerance);
    }
}
