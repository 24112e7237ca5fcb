//! The published models, which say how to sample from a checkpoint of their shapes, and what shapes are possible at all.

use std::collections::BTreeMap;
use std::path::Path;

use engine_protocol::{ImageEncoderSpec, ImageInput, ModelSpec, PoolSpec, Sampler, Sampling, TextEncoderSpec, TransformerSpec, VaeSpec};
use untrusted::shown;

/// The model definitions that people see in `sweeps/models/`.
const DEFINITIONS: [&str; 6] = [
    include_str!("../../../sweeps/models/wan2.1-t2v-1.3b.yaml"),
    include_str!("../../../sweeps/models/wan2.1-t2v-14b.yaml"),
    include_str!("../../../sweeps/models/wan2.1-i2v-14b.yaml"),
    include_str!("../../../sweeps/models/wan2.2-t2v-a14b.yaml"),
    include_str!("../../../sweeps/models/wan2.2-i2v-a14b.yaml"),
    include_str!("../../../sweeps/models/wan2.2-ti2v-5b.yaml"),
];

/// From which share of all timesteps on the high-noise transformer of a pool predicts, which no file says: that of the published model of the same shapes, else of text to
/// video (`boundary` in `wan_t2v_A14B.py`).
pub(super) fn boundary(transformer: &TransformerSpec) -> f64 {
    let published = all().filter(|model| model.transformer == *transformer).find_map(|model| model.pool);
    published.map_or(0.875, |pool| pool.boundary)
}

/// How a transformer takes a picture, as its channels say; nothing where that is to be known otherwise.
pub(super) fn image_channels(transformer: &TransformerSpec, vae: &VaeSpec) -> Result<Option<ImageInput>, String> {
    let TransformerSpec { in_channels, out_channels, .. } = *transformer;
    if out_channels != vae.z_dim {
        return Err(format!("it makes {out_channels} channels, and the VAE's latents have {}: the two are not of one model", vae.z_dim));
    }
    // A mask of each frame that a latent frame stands for, and the picture's latents.
    let beside = vae.temporal_compression() + vae.z_dim;
    match in_channels - out_channels {
        0 => Ok(None),
        channels if channels == beside => Ok(Some(ImageInput::Channels)),
        _ => Err(format!(
            "it takes {in_channels} channels and makes {out_channels}: text to video has as many of both, image to video {beside} more, and others are not supported"
        )),
    }
}

/// Most layers, resolutions and blocks of a resolution that a model may have: far above any, and few enough to list.
const MOST_LAYERS: i64 = 1024;

/// The largest mean and deviation of latents: they are about 3 in all published models, and beyond this latents would soon be no numbers.
const MOST_LATENT: f64 = 1000.0;

/// What a checkpoint's configs say.
pub(super) struct Shapes {
    pub(super) text_encoder: TextEncoderSpec,
    pub(super) transformer: TransformerSpec,
    pub(super) pool: Option<PoolSpec>,
    pub(super) vae: VaeSpec,
    /// How it takes a picture, as far as its files say.
    pub(super) image: Option<ImageInput>,
    pub(super) image_encoder: Option<ImageEncoderSpec>,
}

/// All published models.
pub(super) fn all() -> impl Iterator<Item = ModelSpec> {
    DEFINITIONS.into_iter().map(|text| serde_yaml::from_str(text).expect("a test reads all definitions"))
}

/// The model of these shapes: sampled from as the published one of the same transformer is, where there is one. Otherwise it is named after its folder.
pub(super) fn complete(root: &Path, shapes: Shapes, layout: &str) -> ModelSpec {
    let Shapes { text_encoder, transformer, pool, vae, image, image_encoder } = shapes;
    let published = all().find(|model| model.transformer == transformer && model.pool.is_some() == pool.is_some());
    let folder = root.canonicalize().ok().and_then(|path| Some(shown(&path.file_name()?.to_string_lossy())));
    let folder = folder.unwrap_or_else(|| "checkpoint".into());
    let source = format!("a checkpoint in {layout}");
    let guidance = published.as_ref().and_then(|model| model.pool.as_ref()).and_then(|pool| pool.low_noise_guidance_scale);
    let pool = pool.map(|pool| PoolSpec { low_noise_guidance_scale: pool.low_noise_guidance_scale.or(guidance), ..pool });
    let image = image.or(published.as_ref().and_then(|model| model.image));
    let (name, title, sampling) = match published {
        Some(model) => (model.name, model.title, model.sampling),
        None => (
            folder.clone(),
            folder,
            Sampling {
                steps: 50,
                guidance_scale: 5.0,
                flow_shift: 3.0,
                sampler: Sampler::Unipc,
                resolution: [832, 480],
                frames: 81,
                fps: 16,
            },
        ),
    };
    ModelSpec {
        name,
        title,
        source,
        text_encoder,
        transformer,
        pool,
        vae,
        image,
        image_encoder,
        sampling,
        files: None,
        packed: BTreeMap::new(),
        lora_ranks: BTreeMap::new(),
    }
}

/// What is wrong with a shape: its key, and what.
type Fault = (&'static str, String);

/// Refuses a transformer that cannot be.
pub(super) fn check_transformer(spec: &TransformerSpec) -> Result<(), Fault> {
    at_most("num_layers", spec.num_layers, MOST_LAYERS)?;
    at_most("num_attention_heads", spec.num_attention_heads, MOST_LAYERS)?;
    if spec.attention_head_dim % 2 != 0 || !(6..=4096).contains(&spec.attention_head_dim) {
        return Err((
            "attention_head_dim",
            format!("{} cannot be split over three axes in pairs: 6 to 4096, even", spec.attention_head_dim),
        ));
    }
    if spec.freq_dim % 2 != 0 {
        return Err(("freq_dim", format!("{} is odd: half of it is cosines", spec.freq_dim)));
    }
    Ok(())
}

/// Refuses an image encoder that cannot be.
pub(super) fn check_image_encoder(spec: &ImageEncoderSpec) -> Result<(), Fault> {
    at_most("num_hidden_layers", spec.num_hidden_layers, MOST_LAYERS)?;
    at_most("num_attention_heads", spec.num_attention_heads, MOST_LAYERS)?;
    at_most("hidden_size", spec.hidden_size, 1 << 16)?;
    at_most("intermediate_size", spec.intermediate_size, 1 << 18)?;
    at_most("image_size", spec.image_size, 1 << 12)?;
    at_most("patch_size", spec.patch_size, spec.image_size)?;
    if spec.hidden_size % spec.num_attention_heads != 0 {
        return Err(("hidden_size", format!("{} cannot be split over {} heads", spec.hidden_size, spec.num_attention_heads)));
    }
    if spec.image_size % spec.patch_size != 0 {
        return Err(("image_size", format!("{} is no multiple of the patch's {}", spec.image_size, spec.patch_size)));
    }
    Ok(())
}

/// Refuses an image encoder that does not belong to a transformer, or is missing.
pub(super) fn check_image_width(transformer: &TransformerSpec, image_encoder: Option<&ImageEncoderSpec>) -> Result<(), String> {
    match (transformer.image_dim, image_encoder) {
        (Some(width), Some(spec)) if spec.hidden_size != width => {
            Err(format!("it takes what is {width} wide of a picture, and the image encoder gives {}", spec.hidden_size))
        }
        (Some(_), None) => Err("it sees a picture by CLIP, and the image encoder is missing".into()),
        _ => Ok(()),
    }
}

/// Refuses a text encoder that cannot be.
pub(super) fn check_text_encoder(spec: &TextEncoderSpec) -> Result<(), Fault> {
    at_most("num_layers", spec.num_layers, MOST_LAYERS)?;
    at_most("num_heads", spec.num_heads, MOST_LAYERS)?;
    if spec.relative_attention_num_buckets % 4 != 0 || spec.relative_attention_max_distance <= spec.relative_attention_num_buckets / 4 {
        return Err(("relative_attention_num_buckets", format!("{} cannot be split in four", spec.relative_attention_num_buckets)));
    }
    Ok(())
}

/// Refuses a VAE that cannot be.
pub(super) fn check_vae(spec: &VaeSpec) -> Result<(), Fault> {
    let levels = spec.dim_mult.len();
    at_most("num_res_blocks", spec.num_res_blocks, 64)?;
    at_most("z_dim", spec.z_dim, 4096)?;
    at_most("base_dim", spec.base_dim, 1 << 14)?;
    at_most("decoder_base_dim", spec.decoder_base_dim.unwrap_or(1), 1 << 14)?;
    at_most("patch_size", spec.patch_size, 64)?;
    if !(1..=8).contains(&levels) || spec.dim_mult.iter().any(|multiple| !(1..=64).contains(multiple)) {
        return Err(("dim_mult", format!("{} are not one to eight multiples", shown(&format!("{:?}", spec.dim_mult)))));
    }
    if spec.temporal_downsample.len() + 1 != levels {
        return Err((
            "temperal_downsample",
            format!("has {} entries for {levels} resolutions: one fewer is needed", spec.temporal_downsample.len()),
        ));
    }
    for (key, values) in [("latents_mean", &spec.latents_mean), ("latents_std", &spec.latents_std)] {
        if values.len() as i64 != spec.z_dim {
            return Err((key, format!("has {} values for {} channels", values.len(), spec.z_dim)));
        }
    }
    let is_out_of_range = |value: &&f64| !(-MOST_LATENT..=MOST_LATENT).contains(*value);
    if let Some(value) = spec.latents_mean.iter().find(is_out_of_range) {
        return Err(("latents_mean", format!("{value:?} is out of range: -{MOST_LATENT} to {MOST_LATENT}")));
    }
    if let Some(value) = spec.latents_std.iter().find(|value| **value <= 0.0 || is_out_of_range(value)) {
        return Err(("latents_std", format!("{value:?} is out of range: above 0, to {MOST_LATENT}")));
    }
    Ok(())
}

fn at_most(key: &'static str, value: i64, most: i64) -> Result<(), Fault> {
    if (1..=most).contains(&value) { Ok(()) } else { Err((key, format!("{value} is out of range: 1 to {most}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_read_and_possible() {
        for model in all() {
            check_transformer(&model.transformer).unwrap();
            check_text_encoder(&model.text_encoder).unwrap();
            check_vae(&model.vae).unwrap();
            model.image_encoder.iter().for_each(|spec| check_image_encoder(spec).unwrap());
            check_image_width(&model.transformer, model.image_encoder.as_ref()).unwrap();
        }
        assert_eq!(all().count(), DEFINITIONS.len());
    }
}
