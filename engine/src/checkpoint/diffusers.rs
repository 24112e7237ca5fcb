//! diffusers' layout: `model_index.json`, and a folder with config and weights for each component.
//!
//! Facts from diffusers 0.42.1 `src/diffusers/pipelines/wan/pipeline_wan.py` and the configs that `save_pretrained` writes.

use std::path::Path;

use engine_protocol::{PoolSpec, Sampler, TextEncoderSpec, TransformerSpec, VaeSpec};
use untrusted::shown;

use super::json::Json;
use super::listing::weights_file;
use super::opened::{Checkpoint, StoredComponent, TokenizerFile};
use super::published::{self, Shapes};
use crate::components::{self, Component};
use crate::error::Result;
use crate::files::Folder;
use crate::weights::TensorStore;

/// The file that makes a folder a checkpoint of this layout.
pub(super) const INDEX: &str = "model_index.json";

/// Tokens that `WanPipeline` cuts or pads a prompt to.
const MAX_TOKENS: i64 = 512;

/// Opens the checkpoint in `root`, which is `folder`.
pub(super) fn open(root: &Path, folder: &Folder) -> Result<Checkpoint> {
    // 1. How many transformers there are.
    let index = Json::read(&root.join(INDEX), folder)?;
    index.only("_class_name", "WanPipeline", "text to video")?;
    let second: Option<(Option<String>, Option<String>)> = index.find("transformer_2")?;
    let has_second = second.is_some_and(|(_, class)| class.is_some());

    // 2. Shapes.
    let config = |component: &str| Json::read(&root.join(component).join("config.json"), folder);
    let transformer = transformer_spec(&config("transformer")?)?;
    if has_second {
        let second = config("transformer_2")?;
        if transformer_spec(&second)? != transformer {
            return Err(second.error("transformer_2", "has other shapes than `transformer`: a pool of two alike is supported"));
        }
    }
    let boundary: Option<f64> = index.find("boundary_ratio")?;
    let pool = match (has_second, boundary) {
        (true, Some(boundary)) if (0.0..=1.0).contains(&boundary) => Some(PoolSpec { boundary, low_noise_guidance_scale: None }),
        (true, _) => return Err(index.error("boundary_ratio", "must be between 0 and 1 where there are two transformers")),
        (false, _) => None,
    };
    let shapes = Shapes { text_encoder: text_encoder_spec(&config("text_encoder")?)?, transformer, pool, vae: vae_spec(&config("vae")?)? };

    // 3. How it is sampled from.
    let mut model = published::complete(root, shapes, "diffusers' layout");
    let scheduler = Json::read(&root.join("scheduler/scheduler_config.json"), folder)?;
    let class: String = scheduler.get("_class_name")?;
    let (sampler, shift) = match class.as_str() {
        "UniPCMultistepScheduler" => (Sampler::Unipc, "flow_shift"),
        "DPMSolverMultistepScheduler" => (Sampler::Dpmpp, "flow_shift"),
        "FlowMatchEulerDiscreteScheduler" => (Sampler::Euler, "shift"),
        other => {
            return Err(
                scheduler.error("_class_name", &format!("`{}` is not supported: UniPC, DPM++ 2M and flow-match Euler are", shown(other)))
            );
        }
    };
    model.sampling.sampler = sampler;
    model.sampling.flow_shift = scheduler.positive(shift)?.unwrap_or(1.0);

    // 4. The weights of what it is made of.
    let components = components::of(&model).iter().map(|component| stored(root, folder, component.as_ref())).collect::<Result<_>>()?;
    let tokenizer = TokenizerFile::within(&root.join("tokenizer"));
    Ok(Checkpoint { root: root.to_owned(), folder: folder.clone(), layout: "diffusers", model, tokenizer, components })
}

/// The weights of `component`, in its folder below `root`.
fn stored(root: &Path, folder: &Folder, component: &dyn Component) -> Result<StoredComponent> {
    let (key, mut tensors) = (component.key(), TensorStore::open_in(folder, &weights_file(&root.join(component.key()))?)?);
    if let Some(second) = component.alias().filter(|second| tensors.get(second.name).is_none()) {
        tensors = tensors.renamed(|name| if name == second.alias { second.name } else { name }.to_owned())?;
    }
    Ok(StoredComponent { key, name: key.to_owned(), tensors })
}

fn transformer_spec(config: &Json) -> Result<TransformerSpec> {
    let why = "text to video";
    config.only("_class_name", "WanTransformer3DModel", why)?;
    config.only("image_dim", serde_json::Value::Null, why)?;
    config.only("added_kv_proj_dim", serde_json::Value::Null, why)?;
    config.only("qk_norm", "rms_norm_across_heads", "as in all published checkpoints")?;
    config.only("cross_attn_norm", true, "as in all published checkpoints")?;
    let patch: Vec<i64> = config.find("patch_size")?.unwrap_or_else(|| vec![1, 2, 2]);
    let patch_size = <[i64; 3]>::try_from(patch).ok().filter(|sides| sides.iter().all(|side| (1..=64).contains(side)));
    let spec = TransformerSpec {
        num_layers: config.size("num_layers")?,
        num_attention_heads: config.size("num_attention_heads")?,
        attention_head_dim: config.size("attention_head_dim")?,
        in_channels: config.size("in_channels")?,
        out_channels: config.size("out_channels")?,
        ffn_dim: config.size("ffn_dim")?,
        text_dim: config.size("text_dim")?,
        freq_dim: config.size("freq_dim")?,
        patch_size: patch_size.ok_or_else(|| config.error("patch_size", "must be three sides"))?,
        eps: config.positive("eps")?.unwrap_or(1e-6),
    };
    if spec.in_channels != spec.out_channels {
        let what =
            format!("is {} with {} out: an image-to-video model, and only text to video is supported", spec.in_channels, spec.out_channels);
        return Err(config.error("in_channels", &what));
    }
    published::check_transformer(&spec).map_err(|(key, what)| config.error(key, &what))?;
    Ok(spec)
}

fn text_encoder_spec(config: &Json) -> Result<TextEncoderSpec> {
    config.only("model_type", "umt5", "Wan's text encoder")?;
    config.only("feed_forward_proj", "gated-gelu", "as in all published checkpoints")?;
    let spec = TextEncoderSpec {
        vocab_size: config.size("vocab_size")?,
        d_model: config.size("d_model")?,
        d_kv: config.size("d_kv")?,
        num_heads: config.size("num_heads")?,
        d_ff: config.size("d_ff")?,
        num_layers: config.size("num_layers")?,
        relative_attention_num_buckets: config.size_or("relative_attention_num_buckets", 32)?,
        relative_attention_max_distance: config.size_or("relative_attention_max_distance", 128)?,
        layer_norm_epsilon: config.positive("layer_norm_epsilon")?.unwrap_or(1e-6),
        max_tokens: MAX_TOKENS,
    };
    published::check_text_encoder(&spec).map_err(|(key, what)| config.error(key, &what))?;
    Ok(spec)
}

fn vae_spec(config: &Json) -> Result<VaeSpec> {
    config.only("_class_name", "AutoencoderKLWan", "Wan's VAE")?;
    let spec = VaeSpec {
        base_dim: config.size("base_dim")?,
        z_dim: config.size("z_dim")?,
        dim_mult: config.get("dim_mult")?,
        num_res_blocks: config.size("num_res_blocks")?,
        temporal_downsample: config.get("temperal_downsample")?,
        latents_mean: config.get("latents_mean")?,
        latents_std: config.get("latents_std")?,
        decoder_base_dim: config.find("decoder_base_dim")?,
        residual: config.find("is_residual")?.unwrap_or(false),
        patch_size: config.find("patch_size")?.unwrap_or(1),
    };
    config.only("attn_scales", Vec::<f64>::new(), "as in all published checkpoints")?;
    published::check_vae(&spec).map_err(|(key, what)| config.error(key, &what))?;
    Ok(spec)
}
