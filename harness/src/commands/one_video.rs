//! The one video that a command is about: what its `--config` says, then the options that stand for keys, then `key=value` words. What comes later counts.

use engine_protocol::Settings;
use serde_json::Value;

use crate::cli::{self, VideoArguments};
use crate::error::Error;
use crate::sweep::Definition;

/// The model where none is named.
const MODEL: &str = "wan2.1-t2v-14b";

/// A key that an option gives: the key, the option's name, and its value.
pub(super) type Given<'a> = (&'a str, &'a str, Value);

/// The definition that they make, which goes by `name`. A key that is given both by an option and by a word is refused.
pub(super) fn definition(name: &str, video: &VideoArguments, options: &[Given<'_>], words: &[String]) -> Result<Definition, Error> {
    let mut definition = match &video.config {
        Some(path) => Definition::load(&path.to_string_lossy())?,
        None => Definition::empty(name),
    };
    if let Some(gpu) = definition.gpus().first() {
        return Err(definition.refuse_gpu(gpu, "gpu is for lowmem sweep: everything else takes --gpu"));
    }
    if let Some(key) = definition.swept() {
        return Err(Error::input(format!("--config {}: it is a sweep over {key}; a video has one value for each key", definition.name)));
    }
    let words = cli::settings(words)?;
    let of_video = video.keys().into_iter().map(|(key, value)| (key, key, value));
    for (key, option, value) in of_video.chain(options.iter().cloned()) {
        if let Some((_, word)) = words.iter().find(|(other, _)| other == key) {
            return Err(Error::input(format!("{key} is given twice, as --{option} {value} and as {key}={word}: leave one out")));
        }
        definition.fix(key.into(), value);
    }
    words.into_iter().for_each(|(key, value)| definition.fix(key, value));
    Ok(definition)
}

/// The same as settings.
pub(super) fn settings(definition: &Definition) -> Result<Settings, Error> {
    Settings::from_pairs(pairs(definition)).map_err(|error| definition.refuse(&error))
}

/// What a search takes as given: all that a definition fixes, and a model in any case.
pub(super) fn with_model(definition: &Definition) -> Vec<(String, Value)> {
    let mut fixed: Vec<_> = pairs(definition).collect();
    if fixed.iter().all(|(key, _)| key != "model") {
        fixed.push(("model".to_owned(), MODEL.into()));
    }
    fixed
}

fn pairs(definition: &Definition) -> impl Iterator<Item = (String, Value)> {
    definition.fixed().into_iter().map(|(key, value)| (key.to_owned(), value.clone()))
}
