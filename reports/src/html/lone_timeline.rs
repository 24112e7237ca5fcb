//! A timeline on a page of its own, beside tables: of a memory snapshot, or of one program. What is a case in a run's report is a GPU here, or a process on one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::data::inert_json;
use crate::error::Error;

/// The scripts of such a page, in the order in which they need each other.
const SCRIPTS: [&str; 4] =
    [include_str!("words.js"), include_str!("timeline.js"), include_str!("cases.js"), include_str!("lone_timeline.js")];

/// What a page needs for it.
#[derive(Debug)]
pub(crate) struct LoneTimeline {
    /// The block of JSON that the scripts draw from.
    pub(crate) data: String,
    /// The scripts.
    pub(crate) scripts: String,
}

impl LoneTimeline {
    /// Of these cases, on a GPU that holds so much.
    pub(crate) fn new(cases: Vec<TimelineCase<'_>>, capacity_bytes: Option<u64>) -> Result<Self, Error> {
        Ok(Self { data: inert_json(&Data { capacity_bytes, cases })?, scripts: SCRIPTS.join("\n") })
    }
}

#[derive(Serialize)]
struct Data<'a> {
    capacity_bytes: Option<u64>,
    cases: Vec<TimelineCase<'a>>,
}

/// One choice of the timeline.
#[derive(Serialize)]
pub(crate) struct TimelineCase<'a> {
    /// By this it is chosen.
    pub(crate) name: String,
    /// What is said of it.
    pub(crate) said: &'a str,
    /// What the layers are called, from the ground up.
    pub(crate) parts: Vec<&'a str>,
    /// All of it is one band.
    pub(crate) bands: [TimelineBand<'a>; 1],
}

/// All that happened.
#[derive(Serialize)]
pub(crate) struct TimelineBand<'a> {
    name: &'static str,
    stage: &'static str,
    /// What was held beside what the allocator held.
    beside: u64,
    /// What the mark of the peak says.
    peak: u64,
    /// Nothing where there is no history.
    course: Option<TimelineCourse<'a>>,
}

impl<'a> TimelineBand<'a> {
    /// A band of a course.
    pub(crate) fn new(name: &'static str, beside: u64, peak: u64, course: Option<TimelineCourse<'a>>) -> Self {
        Self { name, stage: "", beside, peak, course }
    }
}

/// The moments: of each list, a figure a moment.
#[derive(Serialize)]
pub(crate) struct TimelineCourse<'a> {
    /// Of so many events.
    pub(crate) events: u64,
    /// After how many of them each moment was.
    pub(crate) at: &'a [u64],
    /// What the allocator held from the driver.
    pub(crate) reserved: &'a [u64],
    /// What was allocated, by the place of the part among the case's.
    pub(crate) parts: BTreeMap<usize, Vec<u64>>,
    /// What lived at the peak: bytes, and what it was.
    pub(crate) largest: Vec<(u64, &'a str)>,
}
