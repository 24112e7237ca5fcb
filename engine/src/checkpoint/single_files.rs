//! Files that are named one by one: transformer, text encoder and VAE, each found to be what it is named for, and the model that they make, by shapes.

use std::path::{Path, PathBuf};

use engine_protocol::{CheckpointFiles, ImageEncoderSpec, PoolSpec, TransformerSpec};

use super::content::{self, Content, as_transformers_has_it, unprefixed, with_vision_prefix};
use super::json::Json;
use super::listing::file_name;
use super::opened::{Checkpoint, StoredComponent, TokenizerFile};
use super::published::{self, Shapes};
use super::{original_names, original_shapes};
use crate::components::{IMAGE_ENCODER, LOW_NOISE_TRANSFORMER, TEXT_ENCODER, TRANSFORMER, VAE};
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::weights::TensorStore;

/// What each file is named with, and where ComfyUI has such files, below its folder `models`.
pub(super) const TEXT_ENCODER_OPTION: (&str, &str) = ("text-encoder", "text_encoders");
pub(super) const VAE_OPTION: (&str, &str) = ("vae", "vae");
pub(super) const TRANSFORMER_OPTION: (&str, &str) = ("transformer", "diffusion_models");

/// Within ComfyUI's text encoders: the tokenizer, as SentencePiece's own file.
const PIECES: &str = "spiece_model";

/// A file of weights and what it is.
#[derive(Debug)]
pub(super) struct OpenedFile {
    path: PathBuf,
    pub(super) content: Content,
    store: TensorStore,
}

impl OpenedFile {
    /// Opens the file at `path`.
    pub(super) fn open(folder: &Folder, path: &Path) -> Result<Self> {
        let store = with_vision_prefix(as_transformers_has_it(unprefixed(TensorStore::open_in(folder, path)?)?)?)?;
        Ok(Self { path: path.to_owned(), content: Content::of(&store), store })
    }

    /// Whether it is a transformer that sees pictures by CLIP.
    pub(super) fn sees_pictures(&self) -> bool {
        ["img_emb.proj.0.weight", "condition_embedder.image_embedder.norm1.weight"].iter().any(|name| self.store.get(name).is_some())
    }

    /// Channels of the latents; nothing of a file that has none.
    pub(super) fn channels(&self) -> Option<i64> {
        let shape = |name: &str| Some(self.store.get(name)?.shape().to_vec());
        match self.content {
            Content::Transformer { .. } => {
                let patch: i64 = shape("patch_embedding.weight")?.get(2..)?.iter().product();
                let values = *shape("head.head.weight").or_else(|| shape("proj_out.weight"))?.first()?;
                values.checked_div(patch)
            }
            Content::Vae { .. } => shape("conv2.weight")?.first().copied(),
            _ => None,
        }
    }

    /// As a component's weights, under the model's names.
    fn stored(self, key: &'static str, rename: impl Fn(&str) -> String) -> Result<StoredComponent> {
        Ok(StoredComponent { key, name: file_name(&self.path), tensors: self.store.renamed(rename)? })
    }

    /// A transformer's weights under the model's names.
    fn transformer(self, key: &'static str, option: &str) -> Result<(PathBuf, StoredComponent)> {
        let path = self.path.clone();
        match self.content {
            Content::Transformer { is_original: true } => Ok((path, self.stored(key, original_names::transformer)?)),
            Content::Transformer { is_original: false } => Ok((path, self.stored(key, str::to_owned)?)),
            other => Err(content::refuse(&path, other, "a transformer", option)),
        }
    }

    /// What kind of model a transformer is of, as far as it says that itself.
    fn model_name(self, folder: &Folder) -> Result<String> {
        let (path, stored) = self.transformer(TRANSFORMER, "transformer")?;
        let spec = transformer_spec(&stored.tensors, &path, folder)?;
        let known: Vec<String> = published::all().filter(|model| model.transformer == spec).map(|model| model.title).collect();
        Ok(if known.is_empty() { format!("a model of {} blocks that is not published", spec.num_layers) } else { known.join(" or of ") })
    }
}

/// Opens the files that were named.
pub(super) fn open(files: &CheckpointFiles, folder: &Folder) -> Result<Checkpoint> {
    // 1. The weights, under the models' names.
    let open = |path: &Option<PathBuf>, (option, place): (&str, &str)| match path {
        Some(path) => OpenedFile::open(folder, path),
        None => Err(Error::Input(format!("--{option} is missing: name its file, which ComfyUI has in models/{place}"))),
    };
    let (place, first) = open(&files.transformer, TRANSFORMER_OPTION)?.transformer(TRANSFORMER, "transformer")?;
    let low_noise = files
        .low_noise_transformer
        .as_deref()
        .map(|path| OpenedFile::open(folder, path)?.transformer(LOW_NOISE_TRANSFORMER, "low-noise-transformer"));
    let low_noise = low_noise.transpose()?;
    let mut text_encoder_file = open(&files.text_encoder, TEXT_ENCODER_OPTION)?;
    let vae_file = open(&files.vae, VAE_OPTION)?;

    // 2. Their shapes.
    let transformer = transformer_spec(&first.tensors, &place, folder)?;
    if let Some((place, second)) = &low_noise
        && transformer_spec(&second.tensors, place, folder)? != transformer
    {
        return Err(Error::at(place, "it has other shapes than --transformer: a pool of two alike is supported"));
    }
    let text_encoder_path = text_encoder_file.path.clone();
    let pieces = text_encoder_file.store.remove(PIECES);
    let text_encoder = match text_encoder_file.content {
        Content::TextEncoder { is_original: true } => text_encoder_file.stored(TEXT_ENCODER, original_names::text_encoder)?,
        Content::TextEncoder { is_original: false } if text_encoder_file.store.get("shared.weight").is_some() => {
            text_encoder_file.stored(TEXT_ENCODER, str::to_owned)?
        }
        Content::TextEncoder { is_original: false } => text_encoder_file
            .stored(TEXT_ENCODER, |name| if name == "encoder.embed_tokens.weight" { "shared.weight" } else { name }.to_owned())?,
        other => return Err(content::refuse(&text_encoder_path, other, "a text encoder (umT5)", TEXT_ENCODER_OPTION.0)),
    };
    let text_encoder_spec = original_shapes::text_encoder(&text_encoder.tensors).map_err(|what| Error::at(&text_encoder_path, &what))?;
    let vae_path = vae_file.path.clone();
    let vae_shapes = match vae_file.content {
        Content::Vae { is_original: true } => {
            original_shapes::VaeShapes::of(&vae_file.store).map_err(|what| Error::at(&vae_path, &what))?
        }
        Content::Vae { is_original: false } => {
            return Err(Error::at(
                &vae_path,
                "it is a VAE under diffusers' names, which says too little by itself: use the one under Wan's own, or --checkpoint with its whole folder",
            ));
        }
        other => return Err(content::refuse(&vae_path, other, "a VAE of Wan", VAE_OPTION.0)),
    };
    let vae_spec = vae_shapes.checked_spec().map_err(|what| Error::at(&vae_path, &what))?;
    if vae_spec.z_dim != transformer.out_channels {
        let what = format!(
            "its latents have {} channels, and those of the transformer {}: use the VAE that belongs to it ({})",
            vae_spec.z_dim,
            transformer.out_channels,
            if transformer.out_channels == 48 { "wan2.2_vae, for TI2V-5B alone" } else { "wan_2.1_vae, for all but TI2V-5B" }
        );
        return Err(Error::at(&vae_path, &what));
    }
    if text_encoder_spec.d_model != transformer.text_dim {
        let what = format!("it is {} wide, and the transformer takes prompts of {}", text_encoder_spec.d_model, transformer.text_dim);
        return Err(Error::at(&text_encoder_path, &what));
    }
    let vae = vae_file.stored(VAE, |name| original_names::vae(name, &vae_shapes))?;

    // 3. The model.
    let image = published::image_channels(&transformer, &vae_spec).map_err(|what| Error::at(&place, &what))?;
    let image_encoder = image_encoder(files, &transformer, &place, folder)?;
    let image_encoder_spec = image_encoder.as_ref().map(|(spec, _)| spec.clone());
    let pool = low_noise.is_some().then_some(PoolSpec { boundary: published::boundary(&transformer), low_noise_guidance_scale: None });
    let model = published::complete(
        &place,
        Shapes { text_encoder: text_encoder_spec, transformer, pool, vae: vae_spec, image, image_encoder: image_encoder_spec },
        "single files",
    );
    let tokenizer = match (&files.tokenizer, pieces) {
        (Some(path), _) => TokenizerFile::Named(path.clone()),
        (None, Some(pieces)) => TokenizerFile::Within { path: text_encoder_path, pieces },
        (None, None) => TokenizerFile::beside(text_encoder_path),
    };
    let root = files.main().unwrap_or(Path::new("")).to_owned();
    let components = [text_encoder, first]
        .into_iter()
        .chain(low_noise.map(|(_, stored)| stored))
        .chain([vae])
        .chain(image_encoder.map(|(_, stored)| stored))
        .collect();
    Ok(Checkpoint { root, folder: folder.clone(), layout: "files", model, tokenizer, components })
}

/// The image encoder that the transformer at `place` asks for, with its weights; nothing where it asks for none.
fn image_encoder(
    files: &CheckpointFiles,
    transformer: &TransformerSpec,
    place: &Path,
    folder: &Folder,
) -> Result<Option<(ImageEncoderSpec, StoredComponent)>> {
    let path = match (&files.image_encoder, transformer.image_dim) {
        (Some(path), Some(_)) => path,
        (Some(path), None) => return Err(Error::at(path, "the transformer sees no picture by CLIP: leave --image-encoder out")),
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            let what =
                "it sees a picture by CLIP: name that file with --image-encoder, which ComfyUI has in models/clip_vision (clip_vision_h)";
            return Err(Error::at(place, what));
        }
    };
    let opened = OpenedFile::open(folder, path)?;
    if opened.content != Content::ImageEncoder {
        return Err(content::refuse(path, opened.content, "an image encoder (CLIP)", "image-encoder"));
    }
    let spec = original_shapes::image_encoder(&opened.store).map_err(|what| Error::at(path, &what))?;
    published::check_image_width(transformer, Some(&spec)).map_err(|what| Error::at(place, &what))?;
    Ok(Some((spec, opened.stored(IMAGE_ENCODER, str::to_owned)?)))
}

/// What is missing beside a file that was named alone.
pub(super) fn alone(path: &Path, folder: &Folder) -> Error {
    let opened = match OpenedFile::open(folder, path) {
        Ok(opened) => opened,
        Err(error) => return error,
    };
    let places = "ComfyUI has them in models/diffusion_models, models/text_encoders and models/vae";
    let all = "--transformer F --text-encoder F --vae F";
    let content = opened.content;
    let what = match content {
        Content::Transformer { .. } => match opened.model_name(folder) {
            Ok(model) => format!(
                "it is a transformer alone, of {model}: text encoder and VAE are missing. Name all three, {all} (of Wan2.2 A14B --low-noise-transformer F too); {places}"
            ),
            Err(error) => return error,
        },
        Content::TextEncoder { .. } | Content::Vae { .. } | Content::ImageEncoder => {
            format!("it is {} alone: the transformer is missing. Name all files, {all}; {places}", content.name())
        }
        Content::Lora => format!("it is {}. Name it with --lora, beside the model that it is for", content.name()),
        Content::Other => format!("it is {}: name Wan's files, {all}; {places}", content.name()),
    };
    Error::at(path, &what)
}

/// The transformer whose tensors `store` has, under the model's names. What shapes do not say stands in a `config.json` beside the file, where there is one.
pub(super) fn transformer_spec(store: &TensorStore, path: &Path, folder: &Folder) -> Result<TransformerSpec> {
    let config = path.with_file_name("config.json");
    let config = untrusted::is_there(&config).then(|| Json::read(&config, folder)).transpose()?;
    let heads = match &config {
        Some(config) => config.find("num_heads")?.or(config.find("num_attention_heads")?),
        None => None,
    };
    original_shapes::transformer(store, heads).map_err(|what| Error::at(path, &what))
}
