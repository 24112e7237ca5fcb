//! A drawing as files: SVG and PNG.

use plotters::prelude::*;

use super::frame::{Drawing, SIZE};
use super::png::{know_font, png};

/// A drawing as files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Files {
    /// For pages, and whatever else shows it: it has no background of its own.
    pub svg: String,
    /// For documents that take no SVG, on white.
    pub png: Vec<u8>,
}

/// A drawing as both kinds of file.
pub(super) fn files(drawing: &impl Drawing) -> Result<Files, String> {
    Ok(Files { svg: svg(drawing)?, png: png(drawing).map_err(|error| error.to_string())? })
}

/// A drawing as SVG.
pub(super) fn svg(drawing: &impl Drawing) -> Result<String, String> {
    know_font();
    let mut svg = String::new();
    let picture = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    drawing.draw(&picture).and_then(|()| Ok(picture.present()?)).map_err(|error| error.to_string())?;
    drop(picture);
    Ok(svg)
}
