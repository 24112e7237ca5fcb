//! LoRAs: files of changes to a transformer's weights. Each layer has two narrow matrices whose product is added, and a number (alpha) that says how many times.
//!
//! Names, as facts from ComfyUI `comfy/lora.py` and `comfy/weight_adapter/lora.py`, diffusers `loaders/lora_conversion_utils.py` (Wan) and kohya's `musubi-tuner`: layers under Wan's own
//! names or diffusers', with `diffusion_model.` or `transformer.` before them, or written in one with `lora_unet_`; matrices `lora_down` and `lora_up`, or `lora_A` and `lora_B`. `diff` and `diff_b`
//! are whole differences, of norms and biases.

use std::collections::BTreeMap;
use std::path::Path;

use engine_protocol::{LoraFile, Noise};

use super::inventory::named;
use super::opened::Checkpoint;
use super::original_names;
use crate::components::{self, Component, LOW_NOISE_TRANSFORMER, TRANSFORMER};
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::finite;
use crate::weights::{Change, Difference, Param, Precision, StoredTensor, TensorStore};

/// What may stand before a layer's name.
const PREFIXES: [&str; 5] = ["model.diffusion_model.", "diffusion_model.", "base_model.model.", "transformer.", ""];
/// What stands before a layer's name that is written in one.
const IN_ONE: [&str; 2] = ["lora_unet_", "lora_transformer_"];

/// What one tensor of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Up,
    Down,
    Alpha,
    Difference,
    DifferenceOfBias,
}

const PARTS: [(&str, Part); 13] = [
    (".lora_up.weight", Part::Up),
    (".lora_down.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora_B", Part::Up),
    (".lora_A", Part::Down),
    (".alpha", Part::Alpha),
    (".diff", Part::Difference),
    (".diff_b", Part::DifferenceOfBias),
];

/// What a file has for one layer.
#[derive(Debug, Default)]
struct Layer {
    up: Option<StoredTensor>,
    down: Option<StoredTensor>,
    alpha: Option<f64>,
}

impl Checkpoint {
    /// The same with `loras` added to its transformers, and its model told of their ranks.
    ///
    /// # Errors
    /// A file that cannot be read, one with tensors that are not known, and one that is for another model.
    pub(super) fn with_loras(mut self, loras: &[LoraFile]) -> Result<Self> {
        for lora in loras {
            let keys: &[&str] = match (lora.noise, self.model.pool.is_some()) {
                (None, true) => &[TRANSFORMER, LOW_NOISE_TRANSFORMER],
                (None | Some(Noise::High), _) => &[TRANSFORMER],
                (Some(Noise::Low), _) => &[LOW_NOISE_TRANSFORMER],
            };
            if lora.noise.is_some() && self.model.pool.is_none() {
                return Err(Error::at(&lora.path, "this model has one transformer, and none for high or low noise: leave that out"));
            }
            let store = TensorStore::open_in(&Folder::anywhere(), &lora.path)?;
            let model = self.model.clone();
            for component in components::of(&model).iter().filter(|component| keys.contains(&component.key())) {
                let changes = changes(&lora.path, &store, component.as_ref(), lora.strength)?;
                let ranks = self.model.lora_ranks.entry(component.key().to_owned()).or_default();
                let stored = self.components.iter_mut().find(|stored| stored.key == component.key());
                let Some(stored) = stored else { continue };
                for (name, change) in changes {
                    if let Difference::Product { down, .. } = &change.difference {
                        *ranks.entry(name.clone()).or_default() += down.shape().first().copied().unwrap_or(0);
                    }
                    stored.tensors.change(name, change);
                }
            }
        }
        Ok(self)
    }
}

/// What the file's tensors change of `component`, by the model's names.
fn changes(path: &Path, store: &TensorStore, component: &dyn Component, strength: f64) -> Result<Vec<(String, Change)>> {
    let names = Names::of(component);
    let mut layers: BTreeMap<String, Layer> = BTreeMap::new();
    let mut changes = Vec::new();
    for (key, stored) in store.iter() {
        if key.ends_with(".dora_scale") {
            return Err(stored.error("DoRA is not read, which scales whole weights: use a LoRA without it, or merge it into the model"));
        }
        let Some((layer, part)) = PARTS.iter().find_map(|&(end, part)| Some((key.strip_suffix(end)?, part))) else {
            return Err(stored
                .error("what it is for is not known, so this LoRA is not read: use one with lora_up and lora_down, or lora_A and lora_B"));
        };
        let end = if part == Part::DifferenceOfBias { ".bias" } else { ".weight" };
        let Some(name) = names.find(layer, end) else {
            return Err(stored.error(&format!("the {} has no such layer: this LoRA is for another model", component.name())));
        };
        match part {
            Part::Up => layers.entry(name).or_default().up = Some(stored.clone()),
            Part::Down => layers.entry(name).or_default().down = Some(stored.clone()),
            Part::Alpha => layers.entry(name).or_default().alpha = Some(number(stored)?),
            Part::Difference | Part::DifferenceOfBias => {
                let param = names.param(&name);
                if matches!(param.precision, Precision::Compressible(_)) {
                    return Err(stored.error(
                        "it changes a whole layer, which is not read: use a LoRA with two matrices a layer, or merge it into the model",
                    ));
                }
                if stored.parameters() != param.shape.iter().product::<i64>() as u64 {
                    return Err(stored.error(&format!(
                        "shape is {:?}, expected {:?}: this LoRA is for another model",
                        stored.shape(),
                        param.shape
                    )));
                }
                changes.push((name, Change { times: strength, difference: Difference::Whole(stored.clone()) }));
            }
        }
    }
    for (name, layer) in layers {
        let (Some(up), Some(down)) = (layer.up, layer.down) else {
            return Err(Error::at(path, &format!("{name}: one of its two matrices is missing: fetch the file again")));
        };
        let shape = &names.param(&name).shape;
        let rank = down.shape().first().copied().unwrap_or(0);
        let (outputs, inputs) = (shape[0], shape[1..].iter().product::<i64>());
        let fits = |stored: &StoredTensor, first: i64, rest: i64| {
            stored.shape().first() == Some(&first) && stored.shape()[1..].iter().product::<i64>() == rest && stored.is_float()
        };
        if shape.len() < 2 || rank < 1 || !fits(&down, rank, inputs) || !fits(&up, outputs, rank) {
            return Err(up.error(&format!(
                "its matrices are {:?} and {:?}, and the layer is {shape:?}: this LoRA is for another model",
                up.shape(),
                down.shape()
            )));
        }
        let times = strength * layer.alpha.unwrap_or(rank as f64) / rank as f64;
        changes.push((name, Change { times, difference: Difference::Product { up, down } }));
    }
    if changes.is_empty() {
        return Err(Error::at(path, "it holds no LoRA: --lora is for a file of changes to the transformer's weights"));
    }
    Ok(changes)
}

/// The one number in `stored`.
fn number(stored: &StoredTensor) -> Result<f64> {
    if stored.parameters() != 1 {
        return Err(stored.error("it is no number: fetch the file again"));
    }
    let mut value = tch::Tensor::f_empty(stored.shape(), (tch::Kind::Double, tch::Device::Cpu))?;
    stored.copy_to(&mut value)?;
    match finite::not_finite(&value)? {
        Some(what) => Err(stored.error(&format!("it holds {what}: fetch the file again"))),
        None => Ok(value.f_double_value(&vec![0; stored.shape().len()])?),
    }
}

/// The tensors of a transformer, by the names that files may have for them.
struct Names {
    params: BTreeMap<String, Param>,
    /// Names written in one, and the model's own.
    in_one: BTreeMap<String, String>,
}

impl Names {
    fn of(component: &dyn Component) -> Self {
        let params: BTreeMap<String, Param> = named(component.groups()).collect();
        let layers = params.keys().filter_map(|name| name.strip_suffix(".weight"));
        let in_one = layers.flat_map(|layer| {
            let names = [Some(layer.to_owned()), original_names::transformer_layer(layer)];
            names.into_iter().flatten().map(move |name| (name.replace('.', "_"), layer.to_owned()))
        });
        Self { in_one: in_one.collect(), params }
    }

    /// The model's name of a file's layer, of its weight or its bias.
    fn find(&self, layer: &str, end: &str) -> Option<String> {
        if let Some(layer) = IN_ONE.iter().find_map(|prefix| self.in_one.get(layer.strip_prefix(prefix)?)) {
            return Some(format!("{layer}{end}")).filter(|name| self.params.contains_key(name));
        }
        let layers = PREFIXES.iter().filter_map(|prefix| layer.strip_prefix(prefix));
        let names = layers.flat_map(|layer| [original_names::transformer(&format!("{layer}{end}")), original_names::transformer(layer)]);
        names.into_iter().find(|name| self.params.contains_key(name))
    }

    fn param(&self, name: &str) -> &Param {
        &self.params[name]
    }
}
