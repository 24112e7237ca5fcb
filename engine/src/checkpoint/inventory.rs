//! A checkpoint's tensors held against what its model needs.

use std::collections::{BTreeMap, BTreeSet};

use engine_protocol::{ComponentInventory, Inventory, ModelSpec};

use super::{Checkpoint, Component, Part, diffusers};
use crate::error::{Error, Result};
use crate::text_encoder::TextEncoder;
use crate::transformer::Transformer;
use crate::vae;
use crate::weights::{Group, Param, check_stored};

/// What all components hold.
pub(super) fn take(checkpoint: &Checkpoint) -> Inventory {
    let relative = |path: &std::path::Path| path.strip_prefix(&checkpoint.root).unwrap_or(path).display().to_string();
    let component = |component: &Component| {
        let mut types: BTreeMap<String, u64> = BTreeMap::new();
        let (mut tensors, mut parameters, mut bytes) = (0, 0, 0);
        for (_, tensor) in component.tensors.iter() {
            *types.entry(type_name(tensor.kind())).or_default() += tensor.bytes();
            (tensors, parameters, bytes) = (tensors + 1, parameters + tensor.parameters(), bytes + tensor.bytes());
        }
        let params = needed(component, &checkpoint.model).chain(optional(component, &checkpoint.model)).collect::<Vec<_>>();
        let names: BTreeSet<&str> = params.iter().map(|(name, _)| name.as_str()).collect();
        let unexpected = component.tensors.iter().filter(|(name, _)| !names.contains(name) && !is_tied(component, name));
        ComponentInventory {
            name: component.name.clone(),
            files: component.tensors.files().iter().map(|path| relative(path)).collect(),
            tensors,
            parameters,
            bytes,
            types,
            faults: params.iter().filter_map(|(name, param)| fault(component, name, param)).map(|error| error.to_string()).collect(),
            missing: names.iter().filter(|name| component.tensors.get(name).is_none()).map(|&name| name.to_owned()).collect(),
            unexpected: unexpected.map(|(name, _)| name.to_owned()).collect(),
        }
    };
    Inventory {
        layout: checkpoint.layout.to_owned(),
        model: checkpoint.model.clone(),
        tokenizer: checkpoint.tokenizer.is_file().then(|| relative(&checkpoint.tokenizer)),
        components: checkpoint.components.iter().map(component).collect(),
        refusal: checkpoint.sources().err().or_else(|| checkpoint.open_tokenizer().err()).map(|error| error.to_string()),
    }
}

/// Refuses a component that lacks what making a video needs, or has it in another shape or type.
pub(super) fn check(component: &Component, model: &ModelSpec) -> Result<()> {
    for (name, param) in needed(component, model) {
        if component.tensors.get(&name).is_none() {
            let files = component.tensors.files();
            let file = files.first().map(|path| format!("{}: ", path.display())).unwrap_or_default();
            return Err(Error::Input(format!("{file}{name}: no such tensor in {}: fetch the checkpoint again", component.name)));
        }
        if let Some(error) = fault(component, &name, &param) {
            return Err(error);
        }
    }
    Ok(())
}

/// What is wrong with a tensor that is there.
fn fault(component: &Component, name: &str, param: &Param) -> Option<Error> {
    check_stored(param, component.tensors.get(name)?).err()
}

/// The tensors that making a video needs, with their full names.
fn needed(component: &Component, model: &ModelSpec) -> impl Iterator<Item = (String, Param)> {
    named(match component.part {
        Part::TextEncoder => TextEncoder::groups(&model.text_encoder),
        Part::Transformer | Part::LowNoiseTransformer => Transformer::groups(&model.transformer),
        Part::Vae => vae::groups(&model.vae),
    })
}

/// The tensors that only the way back needs, from a video to latents.
fn optional(component: &Component, model: &ModelSpec) -> impl Iterator<Item = (String, Param)> {
    named(match component.part {
        Part::Vae => vae::encoder_groups(&model.vae),
        _ => Vec::new(),
    })
}

fn named(groups: Vec<Group>) -> impl Iterator<Item = (String, Param)> {
    groups.into_iter().flat_map(|group| {
        let prefix = group.prefix;
        group.params.into_iter().map(move |param| (format!("{prefix}{}", param.name), param))
    })
}

fn is_tied(component: &Component, name: &str) -> bool {
    component.part == Part::TextEncoder && name == diffusers::TIED_TABLE
}

/// The name of a type as people write it.
fn type_name(kind: tch::Kind) -> String {
    use tch::Kind;
    match kind {
        Kind::Double => "fp64".into(),
        Kind::Float => "fp32".into(),
        Kind::Half => "fp16".into(),
        Kind::BFloat16 => "bf16".into(),
        Kind::Float8e4m3fn => "fp8_e4m3".into(),
        Kind::Float8e5m2 => "fp8_e5m2".into(),
        other => format!("{other:?}").to_ascii_lowercase(),
    }
}
