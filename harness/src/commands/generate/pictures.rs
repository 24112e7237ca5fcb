//! The pictures that a video begins and ends with: that they are pictures, and the video's size where nobody said one.

use std::path::Path;

use engine_protocol::{Config, ImageInput, ModelSpec};
use picture::{Size, size_of};
use serde_json::json;

use crate::error::Error;
use crate::sweep::Definition;

/// How far a picture's proportions may be from the video's before it is said.
const SQUEEZED: f64 = 0.05;

/// Looks at the pictures that `definition` names for a video of `model`, and gives the video the proportions of the first where no resolution is said.
pub(super) fn look(definition: &mut Definition, model: &ModelSpec) -> Result<(), Error> {
    let size = |path: &String| size_of(Path::new(path)).map_err(|error| Error::input(error.to_string()));
    let (image, last) = (definition.fixed_text("image"), definition.fixed_text("last_image"));
    let first = image.as_ref().map(size).transpose()?;
    last.as_ref().map(size).transpose()?;
    let is_free = definition.fixed_value("resolution").is_none();
    if let (Some(size), true, Some(_)) = (first, is_free, model.image) {
        let [width, height] = fitted(size, model);
        tell!("The video is {width}x{height}: it has the picture's proportions (resolution=WIDTHxHEIGHT sets another size).");
        definition.fix("resolution".into(), json!(format!("{width}x{height}")));
    }
    Ok(())
}

/// Refuses a video that lacks its picture, and says where a picture is squeezed.
pub(super) fn check(config: &Config, model: &ModelSpec) -> Result<(), Error> {
    let Some(path) = &config.image else {
        if model.image != Some(ImageInput::Channels) {
            return Ok(());
        }
        return Err(Error::input(format!("--image is missing: {} makes a video from a picture, --image cat.png", model.title)));
    };
    let size = size_of(Path::new(path)).map_err(|error| Error::input(error.to_string()))?;
    let proportions = |width: u32, height: u32| f64::from(width) / f64::from(height.max(1));
    let stretch = proportions(config.resolution.width, config.resolution.height) / proportions(size.width, size.height);
    if (stretch.max(1.0 / stretch) - 1.0) > SQUEEZED {
        tell!(
            "warning: the picture is {}x{} and the video {}: it is squeezed to that. Leave the resolution out, and the video has the picture's proportions",
            size.width,
            size.height,
            config.resolution
        );
    }
    Ok(())
}

/// A size with a picture's proportions and about as many pixels as the model's own, as diffusers' guide to Wan computes it.
fn fitted(picture: Size, model: &ModelSpec) -> [u32; 2] {
    let [width, height] = model.sampling.resolution.map(f64::from);
    let [_, rows, columns] = model.transformer.patch_size.map(|side| (side * model.vae.spatial_compression()) as f64);
    let (area, aspect) = (width * height, f64::from(picture.height) / f64::from(picture.width.max(1)));
    let whole = |side: f64, of: f64| ((side.round() / of).floor().max(1.0) * of) as u32;
    [whole((area / aspect).sqrt(), columns), whole((area * aspect).sqrt(), rows)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Models;

    #[test]
    fn a_video_has_its_pictures_proportions() {
        let models = Models::load().expect("models");
        let model = models.get("wan2.2-i2v-a14b").expect("a model");
        for (width, height, wanted) in [
            (1280, 720, [1280, 720]),
            (1920, 1080, [1280, 720]),
            (500, 500, [960, 960]),
            (3000, 4000, [816, 1104]),
            (10_000, 1, [96_000, 16]),
        ] {
            assert_eq!(fitted(Size { width, height }, model), wanted, "{width}x{height}");
        }
    }
}
