//! The model whose weights somebody named: what their files hold, and what a definition then means.

use std::path::Path;

use engine_protocol::{CheckpointFiles, ModelSpec, WeightDtype};
use serde_json::json;

use crate::error::Error;
use crate::model::Models;
use crate::sweep::Definition;
use crate::worker;

/// All models, and that of `files`, which `definition` then means, in its weights' own types. A definition may name a checkpoint in the place of a model.
pub(super) fn models(files: Option<&CheckpointFiles>, definition: &mut Definition) -> Result<Models, Error> {
    let models = Models::load()?;
    let path = definition.fixed_text("model").filter(|model| models.get(model).is_err() && is_path(model));
    let files = match (files, path) {
        (None, None) => return Ok(models),
        (Some(files), None) => files.clone(),
        (Some(_), Some(path)) => {
            return Err(Error::input(format!("model={path} names weights, and so do files or --checkpoint: leave one of them out")));
        }
        (None, Some(path)) => {
            definition.forget("model");
            CheckpointFiles::folder(path)
        }
    };
    Ok(models.with(ModelSpec { files: Some(files.clone()), ..model_of(&files, definition)? }))
}

/// Whether a word is the path of something, or can be nothing else.
fn is_path(word: &str) -> bool {
    word.contains('/') || Path::new(word).exists()
}

/// The model of a checkpoint, which the definition then means. One from which no video can be made is refused.
fn model_of(files: &CheckpointFiles, definition: &mut Definition) -> Result<ModelSpec, Error> {
    let option = if files.folder.is_some() { "--checkpoint " } else { "" };
    let named = files.main().map(|path| format!("{option}{}: ", path.display())).unwrap_or_default();
    let inventory = worker::inspect(files).map_err(|error| match error {
        Error::BadInput(what) => Error::input(format!("{option}{what}")),
        other => other,
    })?;
    if let Some(refusal) = inventory.refusal {
        return Err(Error::input(format!("{named}no video can be made from it: {refusal}")));
    }
    let model = inventory.model;
    let is_open = !definition.is_varied("weight_dtype") && definition.fixed_value("weight_dtype").is_none();
    if let Some(name) = definition.fixed_value("model").filter(|name| *name != *model.name) {
        return Err(Error::input(format!("{named}that is {}, not {}: leave the model out", model.name, name.as_str().unwrap_or_default())));
    }
    // What is in 8 bits or in blocks stays so, with nothing lost.
    let packed = model.packed_dtype().filter(|_| is_open);
    definition.fix("model".into(), json!(model.name));
    if let Some(dtype) = packed.map(WeightDtype::name) {
        tell!("The blocks of this transformer are packed and stay so until they are used (weight_dtype={dtype}).");
        definition.fix("weight_dtype".into(), json!(dtype));
    }
    Ok(model)
}
