//! What gives up quality for time and is tried upon the fastest case, where that is allowed: attention in 8 bits, a cache of sampler steps, and both. Weights in 8 bits are
//! tried with each placement: they take less, so they decide what fits.

use serde_json::{Value, json};

use super::predicted::{Budget, needs};
use super::variant::variant;
use crate::error::Error;
use crate::model::Models;
use crate::sweep::{Case, Rules};
use crate::testbed::Testbed;

/// What is tried, each by itself and all together.
const WAYS: [(&str, &str); 2] = [("attn_type", "sage"), ("flexcache", "magcache")];

/// `fastest` with each of them that is not `fixed`, where that is legal for the model and the card, and may fit.
pub(crate) fn faster_and_lossy(
    fastest: &Case,
    fixed: &[(String, Value)],
    testbed: &Testbed,
    models: &Models,
    rules: Rules,
) -> Result<Vec<Case>, Error> {
    let is_open = |(key, _): &(&str, &str)| fixed.iter().all(|(fixed, _)| fixed != key);
    let open: Vec<(&str, &str)> = WAYS.into_iter().filter(is_open).collect();
    let mut found = Vec::new();
    let mut legal = Vec::new();
    for way in &open {
        if let Some(case) = with(fastest, &[*way], testbed, models, rules)? {
            found.push(case);
            legal.push(*way);
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
    let budget = Budget::of(testbed);
    Ok(need.filter(|need| budget.holds(&case, *need)).map(|_| case))
}
