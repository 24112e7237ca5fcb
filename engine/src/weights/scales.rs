//! Scales of a file's weights: what `fp8_scaled` files have beside each linear layer. A weight is its number in the file times its scale, so a scale is part of
//! the weight from here on.
//!
//! Facts from ComfyUI `comfy/utils.py` (`convert_old_quants`), `comfy/ops.py` and its `QUANTIZATION.md`: `LAYER.scale_weight` or `LAYER.weight_scale`, and an empty tensor
//! `scaled_fp8` that says so; newer files have `LAYER.comfy_quant`, a JSON text as bytes. Where `scaled_fp8` is there, a layer without a scale has that of 1.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::Kind;

use super::mapped::StoredTensor;
use crate::error::Result;

/// The scale of `LAYER.weight`: one for all of it, or one a row.
const OF_WEIGHTS: [&str; 2] = [".scale_weight", ".weight_scale"];

/// The scale of a layer's input, for products in 8 bits. Ours have one for each token instead, so no value depends on it.
const OF_INPUTS: [&str; 2] = [".scale_input", ".input_scale"];

/// Says that weights have scales.
const MARKER: &str = "scaled_fp8";

/// Says how one layer is stored.
const FORMAT: &str = ".comfy_quant";

/// The longest text that says how a layer is stored: some 60 bytes.
const FORMAT_BYTES: u64 = 4096;

/// What a [`FORMAT`] says. That a product is to be exact makes no difference: it is, unless `linear_dtype` asks for another one by hand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    format: String,
    #[serde(default, rename = "full_precision_matrix_mult")]
    _exact: bool,
}

/// The weights of a file, each with its scale; the scales are no tensors of their own any more, and neither is what speaks of them.
///
/// # Errors
/// A scale of nothing or of another size than its weight, one that is no finite number, a marker without scales, and a format that is not known.
pub(super) fn joined(mut tensors: BTreeMap<String, StoredTensor>) -> Result<BTreeMap<String, StoredTensor>> {
    let end = |name: &str, ends: &[&str]| ends.iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned);
    let is_marker = |name: &str| name == MARKER || name.ends_with(&format!(".{MARKER}"));
    let (mut markers, mut count) = (Vec::new(), 0);
    for name in tensors.keys().cloned().collect::<Vec<_>>() {
        if let Some(layer) = end(&name, &OF_WEIGHTS) {
            let Some(scale) = tensors.remove(&name) else { continue };
            let weight = format!("{layer}.weight");
            let Some(stored) = tensors.remove(&weight) else {
                return Err(scale.error("it is the scale of a weight that is not in this file: fetch it again"));
            };
            tensors.insert(weight, stored.scaled(&scale)?);
            count += 1;
        } else if let Some(layer) = end(&name, &[FORMAT]) {
            let Some(format) = tensors.remove(&name) else { continue };
            check_format(&format, tensors.get(&format!("{layer}.weight")))?;
        } else if end(&name, &OF_INPUTS).is_some() {
            tensors.remove(&name);
        } else if is_marker(&name) {
            markers.extend(tensors.remove(&name));
        }
    }
    match markers.first() {
        Some(marker) if count == 0 => Err(marker.error("it says that weights have scales, and no scale is in this file: fetch it again")),
        _ => Ok(tensors),
    }
}

/// Refuses a layer that is stored in another way than in 8 bits with a scale.
fn check_format(format: &StoredTensor, weight: Option<&StoredTensor>) -> Result<()> {
    if format.kind() != Kind::Uint8 || format.bytes() > FORMAT_BYTES {
        return Err(format.error("it is no text that says how a layer is stored: fetch the file again"));
    }
    let told: Option<Format> = serde_json::from_slice(&format.text()?).ok();
    let kind = told.and_then(|told| match told.format.as_str() {
        "float8_e4m3fn" => Some(Kind::Float8e4m3fn),
        "float8_e5m2" => Some(Kind::Float8e5m2),
        // Turned weights (`convrot`) have a key more, which is not known.
        "int8_tensorwise" => Some(Kind::Int8),
        _ => None,
    });
    match (kind, weight) {
        (Some(kind), Some(weight)) if weight.kind() == kind => Ok(()),
        _ => Err(format.error("its layer is stored in a way that is not read: use the file in fp8_scaled, fp16 or bf16")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    use tch::{Device, Tensor};

    use super::*;
    use crate::weights::TensorStore;

    /// Opens a file of a weight of 2 rows in 8 bits, and these tensors beside it.
    fn opened(folder: &Path, more: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> std::result::Result<TensorStore, String> {
        // 1, 1.5, -2 and 448 in e4m3.
        let weight = vec![0x38, 0x3C, 0xC0, 0x7E];
        let path = folder.join("file.safetensors");
        let all = [("a.weight", Dtype::F8_E4M3, vec![2, 2], weight)];
        let views = all.iter().chain(more).map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &path).unwrap();
        TensorStore::open(&path).map_err(|error| error.to_string())
    }

    fn scale(name: &'static str, values: &[f32]) -> (&'static str, Dtype, Vec<usize>, Vec<u8>) {
        let shape = if values.len() == 1 { vec![] } else { vec![values.len(), 1] };
        (name, Dtype::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    #[test]
    fn a_weight_is_its_number_times_its_scale_rounded_once() {
        let folder = tempfile::tempdir().unwrap();
        for (kind, scales) in [(Kind::Float, vec![0.1_f32]), (Kind::BFloat16, vec![0.1]), (Kind::Half, vec![0.3, 0.001])] {
            let marker = ("scaled_fp8", Dtype::F8_E4M3, vec![0], vec![]);
            let store = opened(folder.path(), &[scale("a.scale_weight", &scales), scale("a.scale_input", &[3.0]), marker]).unwrap();
            assert_eq!(store.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a.weight"]);
            let row = |at: usize| scales[at / 2 % scales.len()];
            let products: Vec<f32> = [1.0, 1.5, -2.0, 448.0].into_iter().enumerate().map(|(at, value): (_, f32)| value * row(at)).collect();
            let wanted = Tensor::from_slice(&products).to_kind(kind);
            let stored = store.get("a.weight").unwrap();
            let mut whole = Tensor::zeros([2, 2], (kind, Device::Cpu));
            stored.copy_to(&mut whole).unwrap();
            assert_eq!(whole.view(-1), wanted);
            // A part that begins within a row.
            let mut part = Tensor::zeros([2], (kind, Device::Cpu));
            stored.read(1, &mut part).unwrap();
            assert_eq!(part, wanted.narrow(0, 1, 2));
        }
    }

    #[test]
    fn what_scales_nothing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let format = |text: &str| ("a.comfy_quant", Dtype::U8, vec![text.len()], text.as_bytes().to_vec());
        for (more, said) in [
            (scale("b.weight_scale", &[1.0]), "b.weight_scale: it is the scale of a weight that is not in this file"),
            (scale("a.weight_scale", &[1.0, 2.0, 3.0]), "a.weight_scale: it has 3 values, and its weight has 2 rows"),
            (scale("a.weight_scale", &[f32::NAN]), "a.weight_scale: it holds NaN"),
            (("scaled_fp8", Dtype::F8_E4M3, vec![2], vec![0, 0]), "scaled_fp8: it says that weights have scales"),
            (format(r#"{"format": "nvfp4"}"#), "a.comfy_quant: its layer is stored in a way that is not read"),
            (format(r#"{"format": "float8_e4m3fn", "turned": true}"#), "a.comfy_quant: its layer is stored in a way that is not read"),
            (format(r#"{"format": "float8_e5m2"}"#), "a.comfy_quant: its layer is stored in a way that is not read"),
        ] {
            let error = opened(folder.path(), &[more]).expect_err(said);
            assert!(error.contains(said) && error.contains("file.safetensors"), "{error}");
        }
        let good = [format(r#"{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}"#), scale("a.weight_scale", &[2.0])];
        assert!(opened(folder.path(), &good).is_ok());
    }
}
