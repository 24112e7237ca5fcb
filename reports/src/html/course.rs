//! How memory went in a band, as the page draws it.

use std::collections::BTreeMap;

use engine_protocol::{LiveAllocation, MemoryCourse, PeakParts, Purpose, Stage};
use serde::Serialize;

use crate::breakdown::model_in;

/// The moments of a band: of each list, a figure a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Course {
    /// Where in the band each moment is: after how many of so many events.
    events: u64,
    at: Vec<u64>,
    reserved: Vec<u64>,
    /// By the place of the part among [`PeakParts::NAMES`].
    parts: BTreeMap<usize, Vec<u64>>,
    /// What lived at the peak: bytes, and what it was.
    largest: Vec<(u64, String)>,
}

impl Course {
    pub(super) fn of(course: &MemoryCourse) -> Self {
        let place = |name: &str| Purpose::ALL.iter().position(|purpose| purpose.name() == name);
        Self {
            events: course.events,
            at: course.at.clone(),
            reserved: course.reserved_bytes.clone(),
            parts: course.allocated_bytes.iter().filter_map(|(name, bytes)| Some((place(name)?, bytes.clone()))).collect(),
            largest: course.largest.iter().map(|block| (block.bytes, said(block))).collect(),
        }
    }
}

/// An allocation in words: what it is for, its component, its group of weights, the operation that made it, and its shape.
fn said(block: &LiveAllocation) -> String {
    let purpose = Purpose::ALL.iter().position(|purpose| purpose.name() == block.purpose).and_then(|place| PeakParts::NAMES.get(place));
    // Weights that are loaded are named by their component.
    let (component, group) = match Stage::ALL.into_iter().find(|stage| stage.name() == block.stage) {
        Some(Stage::Load) => (block.group.replace('_', " "), ""),
        Some(stage) => (model_in(stage).to_owned(), block.group.as_str()),
        None => (String::new(), block.group.as_str()),
    };
    let shape = block.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
    let parts = [component.as_str(), group, &block.operation, &shape];
    let made = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    format!("{}{}{made}", purpose.copied().unwrap_or(&block.purpose), if made.is_empty() { "" } else { ": " })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_says_what_is_known_of_it() {
        let block = LiveAllocation {
            bytes: 8,
            purpose: "feature_cache".into(),
            stage: "decode".into(),
            group: "decoder".into(),
            operation: "fill_".into(),
            shape: vec![1, 2],
        };
        assert_eq!(said(&block), "feature cache: VAE, decoder, fill_, 1 x 2");
        let weights =
            LiveAllocation { purpose: "weights".into(), stage: "load".into(), group: "text_encoder".into(), ..LiveAllocation::default() };
        assert_eq!(said(&weights), "weights: text encoder");
        assert_eq!(said(&LiveAllocation { purpose: "of later versions".into(), ..LiveAllocation::default() }), "of later versions");
    }
}
