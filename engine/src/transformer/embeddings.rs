//! From latents to tokens and back, and what conditions the blocks: the timestep's modulation and the projected prompt.

use engine_protocol::TransformerSpec;
use tch::{Device, Kind, Tensor};

use super::context::Context;
use super::timestep::{ByToken, Timestep};
use crate::attribution::operation;
use crate::context_parallel::Shard;
use crate::error::{Error, Result};
use crate::weights::{Group, GroupName, Groups, Weights};

/// Period of the slowest wave of the timestep embedding, over 2π.
const MAX_PERIOD: f64 = 10_000.0;

/// What all blocks are conditioned on.
#[derive(Debug)]
pub(super) struct Condition {
    /// Six rows of modulation, before each block's own table is added: `[6, dim]`, in the compute type.
    pub(super) modulation: ByToken<Tensor>,
    /// The timestep embedding, for the last norm: `[1, dim]`, in the compute type.
    pub(super) timestep: ByToken<Tensor>,
    /// The prompt, projected: `[B, Lt, dim]`, in the compute type.
    pub(super) prompt: Tensor,
    /// What CLIP says of the picture, projected: `[B, Li, dim]`, in the compute type.
    pub(super) image: Option<Tensor>,
}

/// The groups of everything before the first block: the timestep's two layers, its six modulations, then prompt and patches. What is streamed needs room
/// for the largest of them, which is about as large as a part of a block.
pub(super) fn groups(spec: &TransformerSpec) -> [Group; 3] {
    let dim = spec.num_attention_heads * spec.attention_head_dim;
    let [frames, height, width] = spec.patch_size;
    let prompt_and_patches = Group::new(PROMPT_AND_PATCHES, "")
        .linear("condition_embedder.text_embedder.linear_1", spec.text_dim, dim)
        .linear("condition_embedder.text_embedder.linear_2", dim, dim)
        .param("patch_embedding.weight", &[dim, spec.in_channels, frames, height, width])
        .param("patch_embedding.bias", &[dim]);
    [
        Group::new(TIME, "")
            .fp32("condition_embedder.time_embedder.linear_1.weight", &[dim, spec.freq_dim])
            .fp32("condition_embedder.time_embedder.linear_1.bias", &[dim])
            .fp32("condition_embedder.time_embedder.linear_2.weight", &[dim, dim])
            .fp32("condition_embedder.time_embedder.linear_2.bias", &[dim]),
        Group::new(MODULATION, "").linear("condition_embedder.time_proj", dim, 6 * dim),
        match spec.image_dim {
            Some(image_dim) => with_image(prompt_and_patches, image_dim, dim),
            None => prompt_and_patches,
        },
    ]
}

/// The same group with what brings CLIP's words to the width of the hidden state. Its norms compute in fp32.
fn with_image(group: Group, image_dim: i64, dim: i64) -> Group {
    let norm = |group: Group, name: &str, width: i64| {
        group.fp32(&format!("{IMAGE}.{name}.weight"), &[width]).fp32(&format!("{IMAGE}.{name}.bias"), &[width])
    };
    let group = norm(group, "norm1", image_dim).linear(&format!("{IMAGE}.ff.net.0.proj"), image_dim, image_dim);
    norm(group.linear(&format!("{IMAGE}.ff.net.2"), image_dim, dim), "norm2", dim)
}

/// The layers that CLIP's words go through.
const IMAGE: &str = "condition_embedder.image_embedder";
/// Epsilon of its norms, which no config has.
const IMAGE_EPSILON: f64 = 1e-5;

/// CLIP's words of a picture in the width of the hidden state: norm, two layers, norm.
///
/// # Shapes
/// `[B, Li, image_dim]` to `[B, Li, dim]`, in `kind`.
fn project_image(w: &Weights, image: &Tensor, kind: Kind) -> Result<Tensor> {
    let norm = |name: &str, x: &Tensor| -> Result<Tensor> {
        let (weight, bias) = (w.get(&format!("{IMAGE}.{name}.weight")), w.get(&format!("{IMAGE}.{name}.bias")));
        Ok(x.f_to_kind(Kind::Float)?.f_layer_norm(weight.size(), Some(weight), Some(bias), IMAGE_EPSILON, false)?.f_to_kind(kind)?)
    };
    let mut inner = w.linear(&format!("{IMAGE}.ff.net.0.proj"), &norm("norm1", image)?)?;
    let _ = inner.f_gelu_("none")?;
    norm("norm2", &w.linear(&format!("{IMAGE}.ff.net.2"), &inner)?)
}

/// The timestep's two layers.
const TIME: GroupName = GroupName::part("embeddings", "time");
/// Its six modulations.
const MODULATION: GroupName = GroupName::part("embeddings", "modulation");
/// What the prompt and the latents go through.
const PROMPT_AND_PATCHES: GroupName = GroupName::part("embeddings", "prompt and patches");

/// How many patches lie along frames, height and width of latents `[B, C, T, H, W]`.
///
/// # Errors
/// Latents of another rank, or that patches do not cover exactly.
pub(super) fn patch_grid(spec: &TransformerSpec, latents: &Tensor) -> Result<[i64; 3]> {
    let size = latents.size();
    let patch = spec.patch_size;
    let fits = size.len() == 5 && size[1] == spec.in_channels && (0..3).all(|axis| size[axis + 2] % patch[axis] == 0);
    if !fits {
        let wanted = format!("[batch, {}, frames, height, width] with multiples of {patch:?}", spec.in_channels);
        return Err(Error::Input(format!("latents are {size:?}, the transformer takes {wanted}")));
    }
    Ok([0, 1, 2].map(|axis| size[axis + 2] / patch[axis]))
}

/// Latents to tokens. Patches do not overlap, so the reference's convolution is a matrix product over their values.
///
/// # Shapes
/// `[B, C, T, H, W]` to `[B, L, dim]`, L counting columns first, then rows, then frames: those of `shard`.
///
/// # Errors
/// libtorch's.
fn patchify(w: &Weights, patch: [i64; 3], grid: [i64; 3], shard: Shard, latents: &Tensor) -> Result<Tensor> {
    let weight = w.get("patch_embedding.weight");
    let [batch, channels] = [latents.size()[0], latents.size()[1]];
    let values = channels * patch.iter().product::<i64>();
    let patches = latents
        .f_to_kind(weight.kind())?
        .f_reshape([batch, channels, grid[0], patch[0], grid[1], patch[1], grid[2], patch[2]])?
        .f_permute([0, 2, 4, 6, 1, 3, 5, 7])?
        .f_reshape([batch, grid.iter().product::<i64>(), values])?;
    let patches = shard.of(patches, 1)?;
    let weight = weight.f_view([weight.size()[0], values])?;
    operation(|| Ok(patches.f_linear(&weight, w.find("patch_embedding.bias"))?))
}

/// Tokens' values to latents, `[B, L, pt·ph·pw·C]` to `[B, C, T, H, W]`.
///
/// # Errors
/// libtorch's.
pub(super) fn unpatchify(patch: [i64; 3], grid: [i64; 3], channels: i64, values: &Tensor) -> Result<Tensor> {
    let batch = values.size()[0];
    let [frames, height, width] = [0, 1, 2].map(|axis| grid[axis] * patch[axis]);
    Ok(values
        .f_reshape([batch, grid[0], grid[1], grid[2], patch[0], patch[1], patch[2], channels])?
        .f_permute([0, 7, 1, 4, 2, 5, 3, 6])?
        .f_reshape([batch, channels, frames, height, width])?)
}

/// The tokens of `shard`, and what the blocks are conditioned on. `timestep` is the same for the whole batch.
///
/// # Shapes
/// `latents` is `[B, C, T, H, W]`, the tokens are `[B, L, dim]`.
///
/// # Errors
/// libtorch's, and what `groups` ran into.
pub(super) fn embed(
    groups: &mut impl Groups,
    spec: &TransformerSpec,
    grid: [i64; 3],
    shard: Shard,
    latents: &Tensor,
    timestep: Timestep,
    Context { prompt, image }: Context<'_>,
) -> Result<(Tensor, Condition)> {
    let given = timestep.given_frames / spec.patch_size[0] * grid[1] * grid[2];
    let timesteps = if given > 0 { vec![timestep.value, 0.0] } else { vec![timestep.value] };
    let (embedded, modulations) = time(groups, spec, &timesteps, prompt.device())?;
    let by_token = |row: &dyn Fn(i64) -> Result<Tensor>| -> Result<ByToken<Tensor>> {
        Ok(if given > 0 { ByToken::new(shard.of_first(given), row(1)?, row(0)?) } else { ByToken::all(row(0)?) })
    };
    let timestep = by_token(&|row| Ok(embedded.f_narrow(0, row, 1)?))?;
    let modulation = by_token(&|row| Ok(modulations.f_select(0, row)?.f_view([6, -1])?))?;

    // The prompt in the width of the hidden state, and the patches.
    groups.with(PROMPT_AND_PATCHES, |w| {
        let mut inner = w.linear("condition_embedder.text_embedder.linear_1", &prompt.f_to_kind(embedded.kind())?)?;
        let _ = inner.f_gelu_("tanh")?;
        let prompt = w.linear("condition_embedder.text_embedder.linear_2", &inner)?;
        let hidden = patchify(w, spec.patch_size, grid, shard, latents)?;
        let image = image.map(|image| project_image(w, image, embedded.kind())).transpose()?;
        Ok((hidden, Condition { modulation, timestep, prompt, image }))
    })
}

/// What each of `timesteps` becomes: its embedding, and six modulations of every channel in a row, both in the compute type.
///
/// # Shapes
/// `[timesteps, dim]` and `[timesteps, 6·dim]`.
///
/// # Errors
/// libtorch's, and what `groups` ran into.
pub(super) fn time(groups: &mut impl Groups, spec: &TransformerSpec, timesteps: &[f64], device: Device) -> Result<(Tensor, Tensor)> {
    // 1. The waves through two layers, in fp32 throughout.
    let waves = timesteps.iter().map(|&timestep| timestep_waves(spec.freq_dim, timestep)).collect::<Result<Vec<_>>>()?;
    let waves = Tensor::f_cat(&waves, 0)?.f_to_device(device)?;
    let embedded = groups.with(TIME, |w| {
        let inner = w.linear("condition_embedder.time_embedder.linear_1", &waves)?.f_silu()?;
        w.linear("condition_embedder.time_embedder.linear_2", &inner)
    })?;

    // 2. In the compute type from here on.
    groups.with(MODULATION, |w| {
        let timestep = embedded.f_to_kind(w.get("condition_embedder.time_proj.weight").kind())?;
        let modulation = w.linear("condition_embedder.time_proj", &timestep.f_silu()?)?;
        Ok((timestep, modulation))
    })
}

/// Cosines, then sines, of `timestep` at geometrically spaced frequencies: `[1, freq_dim]`, fp32, on the CPU.
///
/// The product with the frequency is rounded to fp32 before it is an angle, as in the reference: at timestep 999 that is
/// a visible part of the value.
fn timestep_waves(freq_dim: i64, timestep: f64) -> Result<Tensor> {
    let half = freq_dim / 2;
    let exponents = Tensor::f_arange(half, (Kind::Float, Device::Cpu))?.f_mul_scalar(-MAX_PERIOD.ln())?.f_div_scalar(half)?;
    let angles = exponents.f_exp()?.f_mul_scalar(timestep)?;
    Ok(Tensor::f_cat(&[angles.f_cos()?, angles.f_sin()?], 0)?.f_unsqueeze(0)?)
}
