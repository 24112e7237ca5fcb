//! A case as another one is, but for some keys.

use engine_protocol::{Config, Settings};
use serde_json::Value;

use crate::error::Error;
use crate::model::Models;
use crate::sweep::{Case, Rules, resolve};

/// The configuration with other values of these keys, as a case of that name; none where that is not legal.
pub(super) fn variant(name: String, config: &Config, others: &[(&str, Value)], models: &Models, rules: Rules) -> Option<Case> {
    let is_other = |key: &str| others.iter().any(|(other, _)| *other == key);
    let kept = reports::settings(config).into_iter().filter(|(key, _)| !is_other(key)).map(|(key, value)| (key.to_owned(), value));
    let pairs = kept.chain(others.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let (config, _) = resolve(&Settings::from_pairs(pairs).ok()?, models, rules, |error| Error::from(error.clone())).ok()?;
    Some(Case { name, config, gpu: None })
}
