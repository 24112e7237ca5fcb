//! Shapes of models whose files have no config: the tensors say them.

use std::collections::BTreeMap;

use engine_protocol::{ImageEncoderSpec, TextEncoderSpec, TransformerSpec, VaeSpec};

use super::published;
use crate::weights::TensorStore;

/// Tokens that a prompt is cut or padded to (`text_len` in Wan's configs).
const MAX_TOKENS: i64 = 512;

/// The text encoder whose tensors `store` has, under the model's names.
pub(super) fn text_encoder(store: &TensorStore) -> Result<TextEncoderSpec, String> {
    let sides = |name: &str| sides::<2>(store, name);
    let [vocab_size, d_model] = sides("shared.weight")?;
    let [buckets, num_heads] = sides("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")?;
    let [inner, _] = sides("encoder.block.0.layer.0.SelfAttention.q.weight")?;
    let [d_ff, _] = sides("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")?;
    let spec = TextEncoderSpec {
        vocab_size,
        d_model,
        d_kv: inner / num_heads.max(1),
        num_heads,
        d_ff,
        num_layers: count(store, "encoder.block."),
        relative_attention_num_buckets: buckets,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        max_tokens: MAX_TOKENS,
        packed: BTreeMap::new(),
    };
    published::check_text_encoder(&spec).map_err(|(key, what)| format!("{key}: {what}"))?;
    Ok(spec)
}

/// Width of an attention head in CLIP's ViT-H, which Wan was trained with. No shape says it.
const IMAGE_HEAD_DIM: i64 = 80;

/// The image encoder whose tensors `store` has, under transformers' names.
pub(super) fn image_encoder(store: &TensorStore) -> Result<ImageEncoderSpec, String> {
    let [hidden_size, _, patch_size, _] = sides::<4>(store, "vision_model.embeddings.patch_embedding.weight")?;
    let [positions, _] = sides::<2>(store, "vision_model.embeddings.position_embedding.weight")?;
    let [intermediate_size, _] = sides::<2>(store, "vision_model.encoder.layers.0.mlp.fc1.weight")?;
    let spec = ImageEncoderSpec {
        hidden_size,
        num_attention_heads: (hidden_size / IMAGE_HEAD_DIM).max(1),
        intermediate_size,
        num_hidden_layers: count(store, "vision_model.encoder.layers."),
        image_size: (positions - 1).max(0).isqrt() * patch_size,
        patch_size,
        layer_norm_eps: 1e-5,
    };
    published::check_image_encoder(&spec).map_err(|(key, what)| format!("{key}: {what}"))?;
    Ok(spec)
}

/// Width of what a transformer takes of a picture from CLIP, where it does.
pub(super) fn image_dim(store: &TensorStore) -> Option<i64> {
    store.get("condition_embedder.image_embedder.norm1.weight")?.shape().first().copied()
}

/// Width of an attention head in all published models. No shape says it.
const HEAD_DIM: i64 = 128;

/// The transformer whose tensors `store` has, under the model's names, with so many heads; as wide as all published ones' where that is not known.
pub(super) fn transformer(store: &TensorStore, heads: Option<i64>) -> Result<TransformerSpec, String> {
    let [dim, in_channels, frames, height, width] = sides::<5>(store, "patch_embedding.weight")?;
    let [patches, _] = sides::<2>(store, "proj_out.weight")?;
    let [_, text_dim] = sides::<2>(store, "condition_embedder.text_embedder.linear_1.weight")?;
    let [_, freq_dim] = sides::<2>(store, "condition_embedder.time_embedder.linear_1.weight")?;
    let [ffn_dim, _] = sides::<2>(store, "blocks.0.ffn.net.0.proj.weight")?;
    let num_attention_heads = match heads {
        Some(heads) if heads > 0 && dim % heads == 0 => heads,
        Some(heads) => return Err(format!("config.json beside it says {heads} heads, over which {dim} cannot be split")),
        None if dim % HEAD_DIM == 0 => dim / HEAD_DIM,
        None => {
            return Err(format!(
                "it is {dim} wide, which cannot be split over heads of {HEAD_DIM}, and how many it has is in no tensor: put the model's config.json beside it"
            ));
        }
    };
    let patch_size = [frames, height, width];
    let patch = patch_size.iter().try_fold(1i64, |all, &side| all.checked_mul(side)).filter(|&all| all > 0).ok_or("its patch is empty")?;
    let out_channels = patches / patch;
    let spec = TransformerSpec {
        num_layers: count(store, "blocks."),
        num_attention_heads,
        attention_head_dim: dim / num_attention_heads,
        in_channels,
        out_channels,
        ffn_dim,
        text_dim,
        freq_dim,
        patch_size,
        eps: 1e-6,
        image_dim: image_dim(store),
    };
    published::check_transformer(&spec).map_err(|(key, what)| format!("{key}: {what}"))?;
    Ok(spec)
}

/// What the tensors of a VAE say about it, under their original names.
#[derive(Debug)]
pub(super) struct VaeShapes {
    residual: bool,
    num_res_blocks: usize,
    /// Channels of each resolution in the encoder.
    widths: Vec<i64>,
    temporal_downsample: Vec<bool>,
    base_dim: i64,
    decoder_base_dim: i64,
    z_dim: i64,
    patch_size: i64,
}

impl VaeShapes {
    /// Reads them.
    pub(super) fn of(store: &TensorStore) -> Result<Self, String> {
        let [base_dim, colours, ..] = sides::<5>(store, "encoder.conv1.weight")?;
        let [z_dim, ..] = sides::<5>(store, "conv2.weight")?;
        // A resolution's residual blocks stand in a list of their own in Wan2.2, in one list with all others in Wan2.1.
        let residual = store.iter().any(|(name, _)| name.starts_with("encoder.downsamples.0.downsamples."));
        let list = |place: usize| {
            if residual { format!("encoder.downsamples.0.downsamples.{place}") } else { format!("encoder.downsamples.{place}") }
        };
        let num_res_blocks = (0..64).take_while(|&place| has(store, &format!("{}.residual.2.weight", list(place)))).count();
        let level = |level: usize, place: usize| match residual {
            true => format!("encoder.downsamples.{level}.downsamples.{place}"),
            false => format!("encoder.downsamples.{}", level * (num_res_blocks + 1) + place),
        };
        let mut widths = Vec::new();
        while let Ok([width, ..]) = sides::<5>(store, &format!("{}.residual.2.weight", level(widths.len(), 0))) {
            widths.push(width);
            if widths.len() > 8 {
                return Err("it has more than eight resolutions".into());
            }
        }
        let temporal = |index: usize| has(store, &format!("{}.time_conv.weight", level(index, num_res_blocks)));
        let temporal_downsample = (0..widths.len().saturating_sub(1)).map(temporal).collect();
        let decoder_width = store.get("decoder.head.0.gamma").map(|gamma| gamma.parameters() as i64);
        let decoder_base_dim = decoder_width.ok_or("decoder.head.0.gamma: is missing")?;
        let patch_size = (1..=8).find(|side| 3 * side * side == colours);
        let patch_size = patch_size.ok_or_else(|| format!("encoder.conv1.weight: {colours} channels are no patch of colours"))?;
        if num_res_blocks == 0 || widths.is_empty() || base_dim < 1 {
            return Err("it has no residual blocks".into());
        }
        Ok(Self { residual, num_res_blocks, widths, temporal_downsample, base_dim, decoder_base_dim, z_dim, patch_size })
    }

    /// Residual blocks of a resolution in the encoder.
    pub(super) fn num_res_blocks(&self) -> usize {
        self.num_res_blocks
    }

    /// Whether it is the VAE of Wan2.2 TI2V-5B.
    pub(super) fn is_residual(&self) -> bool {
        self.residual
    }

    /// The [shapes](Self::spec), found to be possible.
    pub(super) fn checked_spec(&self) -> Result<VaeSpec, String> {
        let spec = self.spec()?;
        published::check_vae(&spec).map_err(|(key, what)| format!("{key}: {what}"))?;
        Ok(spec)
    }

    /// The shapes, with the latents' statistics of the published VAE with as many channels: they are in no file of this layout.
    fn spec(&self) -> Result<VaeSpec, String> {
        let published = published::all().find(|model| model.vae.z_dim == self.z_dim);
        let published = published.ok_or_else(|| {
            format!("mean and deviation of {} latent channels are not known: use the checkpoint in diffusers' layout", self.z_dim)
        })?;
        let dim_mult = self.widths.iter().map(|width| width / self.base_dim).collect();
        Ok(VaeSpec {
            base_dim: self.base_dim,
            z_dim: self.z_dim,
            dim_mult,
            num_res_blocks: self.num_res_blocks as i64,
            temporal_downsample: self.temporal_downsample.clone(),
            latents_mean: published.vae.latents_mean,
            latents_std: published.vae.latents_std,
            decoder_base_dim: (self.decoder_base_dim != self.base_dim).then_some(self.decoder_base_dim),
            residual: self.residual,
            patch_size: self.patch_size,
        })
    }
}

fn has(store: &TensorStore, name: &str) -> bool {
    store.get(name).is_some()
}

/// The sides of a tensor of so many dimensions.
fn sides<const N: usize>(store: &TensorStore, name: &str) -> Result<[i64; N], String> {
    let tensor = store.get(name).ok_or_else(|| format!("{name}: is missing"))?;
    tensor.shape().try_into().map_err(|_| format!("{name}: shape is {:?}, expected {N} sides", tensor.shape()))
}

/// How many entries a list of layers has: one more than the highest number behind `list`.
fn count(store: &TensorStore, list: &str) -> i64 {
    let indices = store.iter().filter_map(|(name, _)| name.strip_prefix(list)?.split('.').next()?.parse::<i64>().ok());
    indices.max().map_or(0, |last| last.saturating_add(1))
}
