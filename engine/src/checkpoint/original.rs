//! Wan's own layout: safetensors and a `config.json` for the transformer (of a pool, in a folder each), `.pth` files for text encoder and VAE.
//!
//! Facts from Wan-Video/Wan2.1 and Wan2.2, `wan/configs/*.py` and `wan/modules/{model,t5,clip,vae,vae2_1,vae2_2}.py`.

use std::path::{Path, PathBuf};

use engine_protocol::{ImageEncoderSpec, PoolSpec, TransformerSpec};
use untrusted::shown;

use super::content::unprefixed;
use super::json::Json;
use super::listing::{self, file_name, pth, weights_file};
use super::opened::{Checkpoint, StoredComponent, TokenizerFile};
use super::published::{self, Shapes};
use super::{original_clip, original_names, original_shapes, single_files};
use crate::components::{IMAGE_ENCODER, LOW_NOISE_TRANSFORMER, TEXT_ENCODER, TRANSFORMER, VAE};
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::weights::{AGAIN, TensorStore};

/// A pool's two folders.
const POOL: [&str; 2] = ["high_noise_model", "low_noise_model"];

/// Width of the prompt embedding, and sides of a patch: no key of `config.json`.
const PATCH_SIZE: [i64; 3] = [1, 2, 2];

/// Whether `root` looks like a checkpoint of this layout.
pub(super) fn is_one(root: &Path) -> bool {
    has_config(root) || POOL.iter().any(|folder| has_config(&root.join(folder)))
}

fn has_config(folder: &Path) -> bool {
    untrusted::is_there(&folder.join("config.json"))
}

/// Opens the checkpoint in `root`, which is `folder`.
pub(super) fn open(root: &Path, folder: &Folder) -> Result<Checkpoint> {
    // A transformer's folder has such a config too.
    let has_others = listing::has(root, "models_t5") || listing::has(root, "Wan");
    if let (false, Ok(file)) = (has_others, weights_file(root)) {
        return Err(single_files::alone(&file, folder));
    }

    if let Some(half) = POOL.map(|half| root.join(half)).into_iter().find(|half| !has_config(root) && !half.is_dir()) {
        return Err(Error::at(&half, &format!("it is not there, and a pool has two transformers: {AGAIN}")));
    }

    // 1. The weights, under the models' names.
    let (text_encoder_file, vae_file) = (pth(root, "models_t5", "")?, pth(root, "Wan", "VAE")?);
    let text_encoder =
        component(TEXT_ENCODER, original_names::text_encoder, &text_encoder_file, TensorStore::open_in(folder, &text_encoder_file)?)?;
    let vae = unprefixed(TensorStore::open_in(folder, &vae_file)?)?;
    let vae_shapes = original_shapes::VaeShapes::of(&vae).map_err(|what| Error::at(&vae_file, &what))?;
    let tensors = vae.renamed(|name| original_names::vae(name, &vae_shapes))?;
    let vae = StoredComponent { key: VAE, name: file_name(&vae_file), tensors };
    let folders = if has_config(root) { vec![root.to_owned()] } else { POOL.map(|folder| root.join(folder)).to_vec() };
    let transformer = |(place, key): (&PathBuf, _)| {
        component(key, original_names::transformer, place, TensorStore::open_in(folder, &weights_file(place)?)?)
    };
    let transformers = folders.iter().zip([TRANSFORMER, LOW_NOISE_TRANSFORMER]).map(transformer).collect::<Result<Vec<_>>>()?;

    // 2. Their shapes: of the transformer as its config says, of the others as their tensors are.
    let text_encoder_spec = original_shapes::text_encoder(&text_encoder.tensors).map_err(|what| Error::at(&text_encoder_file, &what))?;
    let spec = |place: &PathBuf| {
        let config = Json::read(&place.join("config.json"), folder)?;
        Ok::<_, Error>((transformer_spec(&config, text_encoder_spec.d_model)?, config))
    };
    let (mut transformer, config) = spec(&folders[0])?;
    // No key of `config.json` says it.
    transformer.image_dim = transformers.first().and_then(|first| original_shapes::image_dim(&first.tensors));
    if let Some(place) = folders.get(1) {
        let (second, config) = spec(place)?;
        if (TransformerSpec { image_dim: transformer.image_dim, ..second }) != transformer {
            return Err(config.error("dim", &format!("other shapes than in {}: a pool of two alike is supported", POOL[0])));
        }
    }
    let pool = (folders.len() == 2).then_some(PoolSpec { boundary: published::boundary(&transformer), low_noise_guidance_scale: None });
    let vae_spec = vae_shapes.checked_spec().map_err(|what| Error::at(&vae_file, &what))?;
    let image_encoder = transformer.image_dim.map(|_| image_encoder(root, folder)).transpose()?;
    let image_encoder_spec = image_encoder.as_ref().map(|(spec, _)| spec);
    published::check_image_width(&transformer, image_encoder_spec).map_err(|what| config.error("dim", &what))?;
    let image = published::image_channels(&transformer, &vae_spec).map_err(|what| config.error("in_dim", &what))?;
    if config.find::<String>("model_type")?.as_deref() == Some("i2v") && image.is_none() {
        return Err(config.error("model_type", "is `i2v`, and its channels are those of text to video"));
    }
    let shapes = Shapes {
        text_encoder: text_encoder_spec,
        transformer,
        pool,
        vae: vae_spec,
        image,
        image_encoder: image_encoder.as_ref().map(|(spec, _)| spec.clone()),
    };

    let model = published::complete(root, shapes, "Wan's own layout");
    let tokenizer = TokenizerFile::within(&root.join("google/umt5-xxl"));
    let others = [vae].into_iter().chain(image_encoder.map(|(_, stored)| stored));
    let components = [text_encoder].into_iter().chain(transformers).chain(others).collect();
    Ok(Checkpoint { root: root.to_owned(), folder: folder.clone(), layout: "original", model, tokenizer, components })
}

/// CLIP's vision encoder in `root`, with its shapes.
fn image_encoder(root: &Path, folder: &Folder) -> Result<(ImageEncoderSpec, StoredComponent)> {
    let file = pth(root, "models_clip", "")?;
    let tensors = original_clip::image_encoder(unprefixed(TensorStore::open_in(folder, &file)?)?)?;
    let spec = original_shapes::image_encoder(&tensors).map_err(|what| Error::at(&file, &what))?;
    Ok((spec, StoredComponent { key: IMAGE_ENCODER, name: file_name(&file), tensors }))
}

/// These tensors under the models' names, which `rename` knows. `place` is what people know them by: a folder or a file.
fn component(key: &'static str, rename: fn(&str) -> String, place: &Path, tensors: TensorStore) -> Result<StoredComponent> {
    let name = match file_name(place) {
        name if POOL.contains(&name.as_str()) || name.ends_with(".pth") => name,
        _ => "transformer".to_owned(),
    };
    Ok(StoredComponent { key, name, tensors: unprefixed(tensors)?.renamed(rename)? })
}

fn transformer_spec(config: &Json, text_dim: i64) -> Result<TransformerSpec> {
    // A model for text to video and for images alike is `ti2v`.
    let kind: Option<String> = config.find("model_type")?;
    if let Some(kind) = kind.filter(|kind| !["t2v", "ti2v", "i2v"].contains(&kind.as_str())) {
        return Err(config.error("model_type", &format!("is `{}`: text to video and image to video are supported", shown(&kind))));
    }
    let (dim, heads) = (config.size("dim")?, config.size("num_heads")?);
    if dim % heads != 0 {
        return Err(config.error("dim", &format!("{dim} cannot be split over {heads} heads")));
    }
    let spec = TransformerSpec {
        num_layers: config.size("num_layers")?,
        num_attention_heads: heads,
        attention_head_dim: dim / heads,
        in_channels: config.size("in_dim")?,
        out_channels: config.size("out_dim")?,
        ffn_dim: config.size("ffn_dim")?,
        text_dim,
        freq_dim: config.size("freq_dim")?,
        patch_size: PATCH_SIZE,
        eps: config.positive("eps")?.unwrap_or(1e-6),
        image_dim: None,
    };
    published::check_transformer(&spec).map_err(|(key, what)| config.error(key, &what))?;
    Ok(spec)
}
