//! How memory went in a band, as the page draws it.

use std::collections::BTreeMap;

use engine_protocol::{MemoryCourse, Purpose};
use serde::Serialize;

use crate::timeline::said;

/// The moments of a band: of each list, a figure a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Course {
    /// Where in the band each moment is: after how many of so many events.
    events: u64,
    at: Vec<u64>,
    reserved: Vec<u64>,
    /// By the place of the part among [`engine_protocol::PeakParts::NAMES`].
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
