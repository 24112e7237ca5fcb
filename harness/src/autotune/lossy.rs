//! What gives up quality for time and is tried upon the fastest case, where that is allowed: attention in 8 bits, a cache of sampler steps, linear layers in 8 bits, and all of them. Weights in 8 bits are
//! tried with each placement: they take less, so they decide what fits.

use serde_json::{Value, json};

use super::predicted::needs;
use super::variant::variant;
use crate::error::Error;
use crate::model::Models;
use crate::sweep::{Case, Rules};
use crate::testbed::Testbed;

/// What is tried, each by itself and all together: a key, its value, and another key that follows it.
const WAYS: [(&str, &str, Option<&str>); 3] =
    [("attn_type", "sage", None), ("flexcache", "magcache", None), ("linear_dtype", "fp8", Some("weight_dtype"))];

/// `fastest` with each of them of which nothing is `fixed`, where that is legal for the model and the card, and may fit.
pub(crate) fn faster_and_lossy(
    fastest: &Case,
    fixed: &[(String, Value)],
    testbed: &Testbed,
    models: &Models,
    rules: Rules,
) -> Result<Vec<Case>, Error> {
    let is_open = |key: &str| fixed.iter().all(|(fixed, _)| fixed != key);
    let open = WAYS.into_iter().filter(|&(key, _, follows)| is_open(key) && follows.is_none_or(is_open));
    let mut found = Vec::new();
    let mut legal = Vec::new();
    for way in open.map(|(key, value, _)| (key, value)) {
        if let Some(case) = with(fastest, &[way], testbed, models, rules)? {
            found.push(case);
            legal.push(way);
        }
    }
    if legal.len() > 1 {
        found.extend(with(fastest, &legal, testbed, models, rules)?);
    }
    Ok(found)
}

fn with(fastest: &Case, ways: &[(&str, &str)], testbed: &Testbed, models: &Models, rules: Rules) -> Result<Option<Case>, Error> {
    let name = ways.iter().fold(fastest.name.clone(), |name, (key, value)| format!("{name}-{key}_{value}"));
    let others: Vec<(&str, Value)> = ways.iter().map(|(key, value)| (*key, json!(value))).collect();
    let Some(case) = variant(name, &fastest.config, &others, models, rules) else { return Ok(None) };
    // The engine knows which kernels there are for the card.
    let need = match needs([&case].into_iter(), testbed, models) {
        Ok(needs) => needs.first().copied(),
        Err(Error::BadInput(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(need.filter(|need| need.fits()).map(|_| case))
}
