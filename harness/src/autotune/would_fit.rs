//! Where nothing fits: what would, by prediction. Fewer frames, a smaller size, or a larger card, each for what takes least memory.

use engine_protocol::{Config, Resolution};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::predicted::needs;
use super::variant::variant;
use crate::error::Error;
use crate::gpu_profile::GpuProfiles;
use crate::model::Models;
use crate::sweep::{Case, Rules};
use crate::testbed::Testbed;
use crate::usual_sizes::USUAL_SIZES;

/// What fits where `smallest` does not, each by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub(crate) struct WouldFit {
    /// The most frames at this size.
    pub(crate) frames: Option<u32>,
    /// The largest usual size with as many frames.
    pub(crate) resolution: Option<Resolution>,
    /// The card with the least memory that holds it as it is.
    pub(crate) card: Option<String>,
}

impl WouldFit {
    /// In words, by prediction; none where nothing helps.
    pub(crate) fn in_words(&self) -> Option<String> {
        let frames = self.frames.map(|frames| format!("{frames} frames at this size"));
        let size = self.resolution.map(|size| format!("{size} with as many frames"));
        let card = self.card.as_ref().map(|card| format!("a larger GPU: {card} is the smallest that holds it"));
        let all: Vec<_> = [frames, size, card].into_iter().flatten().collect();
        (!all.is_empty()).then(|| format!("What would fit, by prediction: {}.", all.join("; or ")))
    }
}

/// What would fit in place of `smallest`, which takes least of all cases.
pub(crate) fn would_fit(smallest: &Case, testbed: &Testbed, models: &Models, rules: Rules) -> Result<WouldFit, Error> {
    let config = &smallest.config;
    let first_that_fits = |cases: Vec<Case>| -> Result<Option<Config>, Error> {
        let needs = needs(cases.iter(), testbed, models)?;
        Ok(cases.into_iter().zip(&needs).find(|(_, need)| need.fits()).map(|(case, _)| case.config))
    };
    let with = |key: &str, value: Value| variant(key.to_owned(), config, &[(key, value)], models, rules);
    // What is not legal is left out.
    let fewer = (1..config.frames).rev().filter_map(|frames| with("frames", frames.into()));
    let smaller = USUAL_SIZES[2..].iter().filter_map(|names| names.iter().find_map(|name| with("resolution", json!(name))));
    let smaller = smaller.filter(|case| case.config.resolution.pixels() < config.resolution.pixels());
    Ok(WouldFit {
        frames: first_that_fits(fewer.collect())?.map(|config| config.frames),
        resolution: first_that_fits(smaller.collect())?.map(|config| config.resolution),
        card: smallest_card(smallest, testbed, models)?,
    })
}

/// The card with the least memory that holds the case.
fn smallest_card(case: &Case, testbed: &Testbed, models: &Models) -> Result<Option<String>, Error> {
    if !testbed.others.is_empty() {
        // Of cards of several kinds nobody knows which one is to be larger.
        return Ok(None);
    }
    let profiles = GpuProfiles::load()?;
    let mut cards: Vec<_> = profiles.iter().filter(|card| Some(card.memory_bytes.value) > testbed.capacity_bytes).collect();
    cards.sort_by_key(|card| card.memory_bytes.value);
    for card in cards {
        let on = Testbed {
            profile: Some(card.clone()),
            capacity_bytes: Some(card.memory_bytes.value),
            memory_limit_bytes: None,
            ..testbed.clone()
        };
        let need = needs([case].into_iter(), &on, models)?;
        if need.first().is_some_and(|need| !need.is_over_gpu) {
            return Ok(Some(card.name.clone()));
        }
    }
    Ok(None)
}
