//! diffusers' layout: `model_index.json`, and a folder with config and weights for each component.
//!
//! Facts from diffusers 0.42.1 `src/diffusers/pipelines/wan/pipeline_wan.py` and the configs that `save_pretrained` writes.

use std::collections::BTreeMap;
use std::path::Path;

use engine_protocol::{ImageEncoderSpec, ImageInput, PoolSpec, Sampler, TextEncoderSpec, TransformerSpec, VaeSpec};
use untrusted::shown;

use super::content::with_vision_prefix;
use super::json::Json;
use super::listing::weights_file;
use super::opened::{Checkpoint, StoredComponent, TokenizerFile};
use super::published::{self, Shapes};
use crate::components::{self, Component};
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::weights::{AGAIN, TensorStore};

/// The file that makes a folder a checkpoint of this layout.
pub(super) const INDEX: &str = "model_index.json";

/// Tokens that `WanPipeline` cuts or pads a prompt to.
const MAX_TOKENS: i64 = 512;

/// Opens the checkpoint in `root`, which is `folder`.
pub(super) fn open(root: &Path, folder: &Folder) -> Result<Checkpoint> {
    // 1. How many transformers there are.
    let index = Json::read(&root.join(INDEX), folder)?;
    let pipeline: String = index.get("_class_name")?;
    if !["WanPipeline", "WanImageToVideoPipeline"].contains(&pipeline.as_str()) {
        return Err(
            index.error("_class_name", &format!("is `{}`: WanPipeline and WanImageToVideoPipeline are supported", shown(&pipeline)))
        );
    }
    let second: Option<(Option<String>, Option<String>)> = index.find("transformer_2")?;
    let has_second = second.is_some_and(|(_, class)| class.is_some());

    // 2. Shapes.
    let config = |component: &str| component_config(root, component, folder);
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
    let (vae_config, transformer_config) = (config("vae")?, config("transformer")?);
    let vae = vae_spec(&vae_config)?;
    let image = published::image_channels(&transformer, &vae).map_err(|what| transformer_config.error("in_channels", &what))?;
    let may_begin = index.find("expand_timesteps")?.unwrap_or(false);
    let has_image_encoder = index.find::<(Option<String>, Option<String>)>("image_encoder")?.is_some_and(|(_, class)| class.is_some());
    let image_encoder = has_image_encoder.then(|| image_encoder_spec(&config("image_encoder")?)).transpose()?;
    published::check_image_width(&transformer, image_encoder.as_ref()).map_err(|what| transformer_config.error("image_dim", &what))?;
    // One that the transformer does not ask is not loaded.
    let image_encoder = image_encoder.filter(|_| transformer.image_dim.is_some());
    let image = image.or(may_begin.then_some(ImageInput::FirstFrame));
    let shapes = Shapes { text_encoder: text_encoder_spec(&config("text_encoder")?)?, transformer, pool, vae, image, image_encoder };

    // 3. How it is sampled from.
    let mut model = published::complete(root, shapes, "diffusers' layout");
    let scheduler = Json::read(&root.join("scheduler/scheduler_config.json"), folder)?;
    let class: String = scheduler.get("_class_name")?;
    let (sampler, shift) = match class.as_str() {
        "UniPCMultistepScheduler" => (Sampler::Unipc, "flow_shift"),
        "DPMSolverMultistepScheduler" => (Sampler::Dpmpp, "flow_shift"),
        "FlowMatchEulerDiscreteScheduler" => (Sampler::Euler, "shift"),
        "FlowMatchLCMScheduler" => (Sampler::Lcm, "shift"),
        other => {
            return Err(scheduler.error(
                "_class_name",
                &format!("`{}` is not supported: UniPC, DPM++ 2M, flow-match Euler and flow-match LCM are", shown(other)),
            ));
        }
    };
    model.sampling.sampler = sampler;
    model.sampling.flow_shift = scheduler.positive(shift)?.unwrap_or(1.0);

    // 4. The weights of what it is made of.
    let all = components::of(&model);
    let own = all.iter().filter(|component| component.stored_with() == component.key());
    let components = own.map(|component| stored(root, folder, component.as_ref())).collect::<Result<_>>()?;
    drop(all);
    let tokenizer = TokenizerFile::within(&root.join("tokenizer"));
    Ok(Checkpoint { root: root.to_owned(), folder: folder.clone(), layout: "diffusers", model, tokenizer, components })
}

/// What is missing in `root`, where some of such a checkpoint is there; nothing where none of it is.
pub(super) fn part(root: &Path) -> Option<Error> {
    let parts = [INDEX, "scheduler", "tokenizer", "text_encoder", "transformer", "vae"];
    let (there, missing): (Vec<&str>, Vec<&str>) = parts.into_iter().partition(|part| untrusted::is_there(&root.join(part)));
    let what = format!(
        "it is part of a checkpoint in diffusers' layout: {} is there, and {} is missing: {AGAIN}",
        there.join(", "),
        missing.join(", ")
    );
    (!there.is_empty()).then(|| Error::at(root, &what))
}

/// The config of `component`, whose folder is below `root`.
fn component_config(root: &Path, component: &str, folder: &Folder) -> Result<Json> {
    let place = root.join(component);
    if !untrusted::is_there(&place) {
        return Err(Error::at(&place, &format!("it is not there, and {INDEX} names it: {AGAIN}")));
    }
    Json::read(&place.join("config.json"), folder)
}

/// The weights of `component`, in its folder below `root`.
fn stored(root: &Path, folder: &Folder, component: &dyn Component) -> Result<StoredComponent> {
    let (key, mut tensors) = (component.key(), TensorStore::open_in(folder, &weights_file(&root.join(component.key()))?)?);
    if let Some(second) = component.alias().filter(|second| tensors.get(second.name).is_none()) {
        tensors = tensors.renamed(|name| if name == second.alias { second.name } else { name }.to_owned())?;
    }
    Ok(StoredComponent { key, name: key.to_owned(), tensors: with_vision_prefix(tensors)? })
}

fn transformer_spec(config: &Json) -> Result<TransformerSpec> {
    config.only("_class_name", "WanTransformer3DModel", "as in all published checkpoints")?;
    config.only("pos_embed_seq_len", serde_json::Value::Null, "models that see the last picture by CLIP too are not supported")?;
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
        image_dim: config.find::<i64>("image_dim")?.map(|_| config.size("image_dim")).transpose()?,
    };
    if let (Some(_), Some(width)) = (spec.image_dim, config.find::<i64>("added_kv_proj_dim")?)
        && width != spec.num_attention_heads * spec.attention_head_dim
    {
        return Err(config.error("added_kv_proj_dim", &format!("is {width}, and only the width of the hidden state is supported")));
    }
    published::check_transformer(&spec).map_err(|(key, what)| config.error(key, &what))?;
    Ok(spec)
}

fn image_encoder_spec(config: &Json) -> Result<ImageEncoderSpec> {
    config.only("hidden_act", "gelu", "as in CLIP's ViT-H, which Wan was trained with")?;
    let spec = ImageEncoderSpec {
        hidden_size: config.size("hidden_size")?,
        num_attention_heads: config.size("num_attention_heads")?,
        intermediate_size: config.size("intermediate_size")?,
        num_hidden_layers: config.size("num_hidden_layers")?,
        image_size: config.size("image_size")?,
        patch_size: config.size("patch_size")?,
        layer_norm_eps: config.positive("layer_norm_eps")?.unwrap_or(1e-5),
    };
    published::check_image_encoder(&spec).map_err(|(key, what)| config.error(key, &what))?;
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
        packed: BTreeMap::new(),
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
