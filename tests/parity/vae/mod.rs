//! The VAEs of Wan2.1 and Wan2.2 against diffusers' `AutoencoderKLWan`.

mod decoder;
mod encoder;
mod tiling;

use engine::vae::{FeatureCache, VaeDecoder, encoder_groups, groups};
use engine::weights::{Group, GroupLayout, Source, Weights};
use engine_protocol::VaeSpec;
use tch::{Device, Kind, Tensor};

use crate::resident::Fixture;

/// Decoder and latents of Wan2.1's VAE, made small.
const DECODER: &str = "vae";
/// Encoder of the same VAE.
const ENCODER: &str = "vae.encoder";
/// Decoder and encoder of Wan2.2's VAE, made small.
const RESIDUAL: &str = "vae.residual";

/// The small VAE of Wan2.1.
fn published() -> VaeSpec {
    Fixture::open(DECODER).fact("spec")
}

/// The small VAE of Wan2.2, with shortcuts and patches.
fn residual() -> VaeSpec {
    Fixture::open(RESIDUAL).fact("spec")
}

/// How far a decoder in bf16 may be off: by as much as the reference is in bf16 itself, which the fixture's fact `own_error` says.
fn bf16_tolerance(fixture: &str, own_error: &str) -> f64 {
    Fixture::open(fixture).fact(own_error)
}

/// Of a model, the half that a test is about.
#[derive(Clone, Copy)]
enum Parts {
    Decoder,
    Encoder,
}

impl Parts {
    fn groups(self, spec: &VaeSpec) -> Vec<Group> {
        match self {
            Self::Decoder => groups(spec),
            Self::Encoder => encoder_groups(spec),
        }
    }
}

/// Seeded weights of a model with more channels. `reach` scales what a convolution takes from the pixels around and a position from the others of
/// its frame: 1 leaves the weights as they are drawn, where everything depends on everything, and at 0 each latent pixel is decoded by itself.
fn seeded(spec: VaeSpec, parts: Parts, kind: Kind, reach: f64) -> (VaeSpec, Weights) {
    let spec = VaeSpec { base_dim: 8, decoder_base_dim: spec.decoder_base_dim.map(|_| 12), ..spec };
    let [group] = <[Group; 1]>::try_from(parts.groups(&spec)).unwrap();
    let layout = GroupLayout::new(&group, kind);
    let slab = Tensor::zeros([layout.bytes], (Kind::Uint8, Device::Cpu));
    let weights = Weights::bind(&group, &layout, &slab).unwrap();
    for param in &group.params {
        let mut value = weights.get(&param.name).shallow_clone();
        Source::Seeded(7).fill(&group, param, &mut value).unwrap();
        let sides = value.size();
        if sides.len() > 3 && sides[sides.len() - 1] == 3 {
            let centre = |value: &Tensor| value.narrow(-1, 1, 1).narrow(-2, 1, 1);
            let kept = centre(&value).copy();
            let _ = value.g_mul_scalar_(reach);
            centre(&value).copy_(&kept);
        } else if param.name.contains(".proj.") {
            let _ = value.g_mul_scalar_(reach);
        }
    }
    (spec, weights)
}

/// The video that `latents` become, `temporal_chunk` latent frames at a time.
fn decode(spec: &VaeSpec, w: &Weights, latents: &Tensor, temporal_chunk: i64) -> Tensor {
    let decoder = VaeDecoder::new(spec);
    let mut cache = FeatureCache::new();
    let chunks = latents.split(temporal_chunk, 2);
    let mut frames = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        if index + 1 == chunks.len() {
            cache.expect_last();
        }
        frames.push(decoder.decode_chunk(w, chunk, &mut cache).unwrap());
    }
    Tensor::cat(&frames, 2)
}

/// Latents that change slowly over the frame, as a trained transformer's do.
fn smooth_latents(spec: &VaeSpec, [frames, height, width]: [i64; 3]) -> Tensor {
    let axis = |n: i64| Tensor::arange(n, (Kind::Float, Device::Cpu));
    let channel = axis(spec.z_dim).view([-1, 1, 1, 1]);
    let phase = axis(frames).view([1, -1, 1, 1]) * 0.2 + axis(height).view([1, 1, -1, 1]) * 0.15 + axis(width).view([1, 1, 1, -1]) * 0.1;
    ((phase + &channel * 0.7).sin() * (channel * 0.1 + 1.0)).unsqueeze(0)
}
