//! A checkpoint's tensors held against what its model's components need. How a layout names its files is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine_protocol::{ComponentInventory, Inventory};
use tch::Kind;
use untrusted::shown;

use super::opened::{Checkpoint, StoredComponent};
use crate::components::{self, Component, Sources, TEXT_ENCODER};
use crate::error::{Error, Result};
use crate::weights::{Group, Param, Source, StoredTensor, check_stored};

impl Checkpoint {
    /// What its files hold, held against what the model needs.
    pub fn inventory(&self) -> Inventory {
        let own = components::of(&self.model).into_iter().filter(|component| component.stored_with() == component.key());
        let stored = own.filter_map(|component| Some((self.stored(component.as_ref())?, component)));
        Inventory {
            layout: self.layout.to_owned(),
            model: self.model.clone(),
            tokenizer: self.tokenizer.path().map(|path| self.relative(path)),
            components: stored.map(|(stored, component)| self.component_inventory(stored, component.as_ref())).collect(),
            refusal: self.sources().err().or_else(|| self.open_tokenizer().err()).map(|error| error.to_string()),
        }
    }

    /// The weights, all of them found to be what the model needs.
    ///
    /// # Errors
    /// The first tensor that is missing, has another shape or type than the model needs, or has no use here, with its file.
    pub fn sources(&self) -> Result<Sources> {
        let mut sources = Vec::new();
        for component in components::of(&self.model) {
            let stored = self.stored(component.as_ref());
            let stored = stored.ok_or_else(|| Error::at(&self.root, &format!("it has no {}", component.name())))?;
            check(stored, component.as_ref())?;
            sources.push((component.key(), Source::Stored(Arc::new(stored.tensors.clone()))));
        }
        Ok(Sources::new(sources))
    }

    /// The same, its model told which of its weights are packed, of those that may wait so.
    pub(super) fn with_packed(mut self) -> Self {
        let mut all = BTreeMap::new();
        for component in components::of(&self.model) {
            let Some(stored) = self.stored(component.as_ref()) else { continue };
            let may = named(component.groups()).filter(|(_, param)| param.precision.may_wait_packed());
            let packed: BTreeMap<_, _> =
                may.filter_map(|(name, _)| stored.tensors.get(&name)?.packed().map(|dtype| (name, dtype))).collect();
            if !packed.is_empty() {
                all.insert(component.key().to_owned(), packed);
            }
        }
        self.model.text_encoder.packed = all.remove(TEXT_ENCODER).unwrap_or_default();
        self.model.packed = all;
        self
    }

    fn stored(&self, component: &dyn Component) -> Option<&StoredComponent> {
        self.components.iter().find(|stored| stored.key == component.stored_with())
    }

    fn relative(&self, path: &std::path::Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    fn component_inventory(&self, stored: &StoredComponent, component: &dyn Component) -> ComponentInventory {
        let mut types: BTreeMap<String, u64> = BTreeMap::new();
        let (mut tensors, mut parameters, mut bytes) = (0, 0, 0);
        for (_, tensor) in stored.tensors.iter() {
            *types.entry(type_name(tensor)).or_default() += tensor.bytes();
            (tensors, parameters, bytes) = (tensors + 1, parameters + tensor.parameters(), bytes + tensor.bytes());
        }
        let params = params(component);
        let names: BTreeSet<&str> = params.iter().map(|(name, _)| name.as_str()).collect();
        ComponentInventory {
            name: stored.name.clone(),
            files: stored.tensors.files().iter().map(|path| self.relative(path)).collect(),
            tensors,
            parameters,
            bytes,
            types,
            faults: params.iter().filter_map(|(name, param)| fault(stored, name, param)).map(|error| error.to_string()).collect(),
            missing: names.iter().filter(|name| stored.tensors.get(name).is_none()).map(|&name| name.to_owned()).collect(),
            unexpected: unexpected(stored, component),
        }
    }
}

/// Refuses a component that lacks what making a video needs, or has it in another shape or type.
fn check(stored: &StoredComponent, component: &dyn Component) -> Result<()> {
    for (name, param) in named(component.groups()) {
        if stored.tensors.get(&name).is_none() {
            let files = stored.tensors.files();
            let file = files.first().map(|path| format!("{}: ", path.display())).unwrap_or_default();
            return Err(Error::Input(format!("{file}{name}: no such tensor in {}: fetch the checkpoint again", stored.name)));
        }
        if let Some(error) = fault(stored, &name, &param) {
            return Err(error);
        }
    }
    check_all_used(stored, component)
}

/// Refuses a component with tensors that nothing here uses: what they would do is left out, and the video is another one.
fn check_all_used(stored: &StoredComponent, component: &dyn Component) -> Result<()> {
    let mut unused = unexpected(stored, component);
    unused.retain(|name| component.needless(name).is_none());
    let [first, ..] = unused.as_slice() else { return Ok(()) };
    let (what, todo) = kind_of_file(&unused);
    let count = match unused.len() {
        1 => "it is the only tensor here that".to_owned(),
        count => format!("it is one of {count} tensors that"),
    };
    let files = stored.tensors.files();
    let file = files.first().map(|path| format!("{}: ", path.display())).unwrap_or_default();
    Err(Error::Input(format!("{file}{}: {count} the {} has no use for: {what}: {todo}", shown(first), component.name())))
}

/// What a file is that has such tensors, and what to do about it.
fn kind_of_file(unused: &[String]) -> (&'static str, &'static str) {
    const KINDS: [(&[&str], &str, &str); 4] = [
        (
            &["weight_scale", "scale_weight", "weight_scalar"],
            "its weights are to be multiplied by scales in a way that is not known",
            "use the file in fp8_scaled, bf16 or fp16",
        ),
        (
            &["lora_", "diff_b"],
            "it holds changes to weights (LoRA) beside a model's",
            "use the model without them, and name them with --lora",
        ),
        (
            &["img_emb", "k_img", "v_img", "add_k_proj", "add_v_proj", "image_embedder"],
            "it is a model that sees a picture by CLIP in a way that is not known (Wan2.1 FLF2V and its like)",
            "use image to video of Wan2.1 or Wan2.2, or text to video",
        ),
        (
            &["qweight", "qzeros", "absmax", "quant_map", "quant_state"],
            "its weights are quantised in a way that is not supported",
            "use the file in bf16 or fp16",
        ),
    ];
    let is_of = |parts: &[&str]| unused.iter().any(|name| parts.iter().any(|part| name.contains(part)));
    let known = KINDS.iter().find(|(parts, ..)| is_of(parts)).map(|&(_, what, todo)| (what, todo));
    known.unwrap_or((
        "what they are for is not known, and without them the video may be another one",
        "use a checkpoint of a supported model",
    ))
}

/// Tensors that are there, and that the model does not have.
fn unexpected(stored: &StoredComponent, component: &dyn Component) -> Vec<String> {
    let params = params(component);
    let names: BTreeSet<&str> = params.iter().map(|(name, _)| name.as_str()).collect();
    let is_alias = |name: &str| component.alias().is_some_and(|second| second.alias == name);
    let unexpected = stored.tensors.iter().filter(|(name, _)| !names.contains(name) && !is_alias(name));
    unexpected.map(|(name, _)| name.to_owned()).collect()
}

/// All that a model has, whether a video needs it or not.
fn params(component: &dyn Component) -> Vec<(String, Param)> {
    named(component.groups()).chain(named(&component.spare_groups())).collect()
}

/// What is wrong with a tensor that is there.
fn fault(stored: &StoredComponent, name: &str, param: &Param) -> Option<Error> {
    check_stored(param, stored.tensors.get(name)?).err()
}

/// Tensors with their full names.
pub(super) fn named(groups: &[Group]) -> impl Iterator<Item = (String, Param)> + use<'_> {
    groups.iter().flat_map(|group| group.params.iter().map(|param| (group.key(param), param.clone())))
}

/// The name of a type as people write it.
fn type_name(tensor: &StoredTensor) -> String {
    if let Some(blocks) = tensor.blocks() {
        return blocks.dtype.name().to_owned();
    }
    let name = match tensor.kind() {
        Kind::Double => "fp64".into(),
        Kind::Float => "fp32".into(),
        Kind::Half => "fp16".into(),
        Kind::BFloat16 => "bf16".into(),
        Kind::Float8e4m3fn => "fp8_e4m3".into(),
        Kind::Float8e5m2 => "fp8_e5m2".into(),
        other => format!("{other:?}").to_ascii_lowercase(),
    };
    if tensor.is_scaled() { format!("{name} with scales") } else { name }
}
