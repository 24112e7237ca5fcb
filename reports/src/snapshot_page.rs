//! The page of a memory snapshot: how memory went, who held the peak, and the segments at the end. All of it is summed up before, so that the page is small however large
//! the snapshot is.

use std::collections::BTreeMap;

use askama::Template;
use engine_protocol::gib;

use crate::error::Error;
use crate::html::lone_timeline::{LoneTimeline, TimelineBand, TimelineCase, TimelineCourse};

/// Modules that have a colour of their own; the others are one.
const COLOURED: usize = 7;

/// What stands on it.
#[derive(Debug)]
pub struct SnapshotPage {
    /// The snapshot's file.
    pub file: String,
    /// Each GPU that it tells of.
    pub gpus: Vec<SnapshotGpu>,
}

/// A GPU.
#[derive(Debug)]
pub struct SnapshotGpu {
    /// Its number in the program.
    pub device: usize,
    /// What is to be said of it, a sentence each.
    pub sentences: Vec<String>,
    /// What was live at the peak.
    pub live_bytes: u64,
    /// Events of its history, and after how many of them each moment was.
    pub events: u64,
    /// See `events`.
    pub at: Vec<u64>,
    /// What was held from the driver at each moment.
    pub reserved_bytes: Vec<u64>,
    /// What each module held at each moment.
    pub module_bytes: Vec<(String, Vec<u64>)>,
    /// Who held the peak by modules, the largest first.
    pub modules: Vec<SnapshotHolder>,
    /// The same by stacks; those that are not told of are left out.
    pub stacks: Vec<SnapshotHolder>,
    /// How many stacks there are.
    pub stack_count: u64,
    /// The largest segments at the end.
    pub segments: Vec<SnapshotSegment>,
    /// How many segments there are.
    pub segment_count: u64,
}

/// Who held memory.
#[derive(Debug)]
pub struct SnapshotHolder {
    /// A label, or a line of a program.
    pub name: String,
    /// Its stack, the innermost frame first; none where there is a label.
    pub frames: Vec<String>,
    /// What it held.
    pub bytes: u64,
    /// In how many blocks.
    pub blocks: u64,
}

/// Memory that the allocator holds from the driver in one piece.
#[derive(Debug)]
pub struct SnapshotSegment {
    /// Its number.
    pub number: u64,
    /// Its size.
    pub bytes: u64,
    /// What is in use of it.
    pub used_bytes: u64,
    /// How many blocks are not.
    pub unused_blocks: u64,
    /// The largest of those.
    pub largest_unused_bytes: u64,
    /// Of parts of equal length, how much of each is in use, in percent.
    pub cells: Vec<u8>,
}

impl SnapshotHolder {
    fn gib(&self) -> String {
        in_gib(self.bytes)
    }
}

impl SnapshotSegment {
    fn gib(&self, bytes: &u64) -> String {
        in_gib(*bytes)
    }

    fn said(&self) -> String {
        format!("segment {}: {} of {} GiB in use", self.number, in_gib(self.used_bytes), in_gib(self.bytes))
    }
}

fn in_gib(bytes: u64) -> String {
    format!("{:.3}", gib(bytes))
}

#[derive(Template)]
#[template(path = "snapshot.html")]
struct Page<'a> {
    page: &'a SnapshotPage,
    timeline: LoneTimeline,
}

/// The page as HTML, with nothing outside it.
///
/// # Errors
/// None that a healthy machine has: it is made in memory.
pub fn snapshot_page(page: &SnapshotPage) -> Result<String, Error> {
    Ok(Page { page, timeline: LoneTimeline::new(page.gpus.iter().map(case).collect(), None)? }.render()?)
}

/// A GPU with its modules as parts.
fn case(gpu: &SnapshotGpu) -> TimelineCase<'_> {
    let mut largest: Vec<&(String, Vec<u64>)> = gpu.module_bytes.iter().collect();
    largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.iter().max().copied()));
    let (own, others) = largest.split_at(largest.len().min(COLOURED));
    let mut parts: BTreeMap<usize, Vec<u64>> = own.iter().map(|(_, bytes)| bytes.clone()).enumerate().collect();
    let sum = |moment: usize| others.iter().filter_map(|(_, bytes)| bytes.get(moment)).fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    if !others.is_empty() {
        parts.insert(COLOURED, (0..gpu.at.len()).map(sum).collect());
    }
    let mut names: Vec<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
    names.resize(COLOURED, "");
    names.extend(["others", "slack"]);
    let largest = gpu.stacks.iter().take(6).map(|holder| (holder.bytes, holder.name.as_str())).collect();
    let course = TimelineCourse { events: gpu.events, at: &gpu.at, reserved: &gpu.reserved_bytes, parts, largest };
    TimelineCase {
        name: format!("GPU {}", gpu.device),
        said: gpu.sentences.first().map(String::as_str).unwrap_or_default(),
        parts: names,
        bands: [TimelineBand::new("events", 0, gpu.live_bytes, (gpu.events > 0).then_some(course))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let hostile = "</script><script>alert(1)</script><!--";
        let holder = |name: &str, bytes| SnapshotHolder { name: name.into(), frames: vec![hostile.into()], bytes, blocks: 2 };
        let page = SnapshotPage {
            file: hostile.into(),
            gpus: vec![SnapshotGpu {
                device: 0,
                sentences: vec!["GPU 0: the peak is 3.00 GiB.".into()],
                live_bytes: 3 << 30,
                events: 7,
                at: vec![1, 7],
                reserved_bytes: vec![1 << 30, 3 << 30],
                module_bytes: (0..9).map(|number| (format!("{number}{hostile}"), vec![number, 2 * number])).collect(),
                modules: vec![holder("module", 3 << 30)],
                stacks: vec![holder(hostile, 3 << 30)],
                stack_count: 9,
                segments: vec![SnapshotSegment {
                    number: 4,
                    bytes: 3 << 30,
                    used_bytes: 1 << 30,
                    unused_blocks: 1,
                    largest_unused_bytes: 2 << 30,
                    cells: vec![100, 0],
                }],
                segment_count: 5,
            }],
        };
        let html = snapshot_page(&page).expect("a page");
        assert!(!html.contains("<script>alert") && !html.contains("<!--"));
        let block = html.split_once("id=\"data\">").and_then(|(_, rest)| rest.split_once("</script>")).expect("data").0;
        let data: serde_json::Value = serde_json::from_str(block).expect("JSON");
        let course = &data["cases"][0]["bands"][0]["course"];
        // The largest seven have their own colour: of nine, those of 1 and of nothing are the others.
        assert_eq!((&course["parts"]["0"][1], &course["parts"]["7"][1]), (&16.into(), &2.into()));
        for part in ["3.000", "the largest 1 of 5", "The largest 1 of 9", "module", "width=\"1\""] {
            assert!(html.contains(part), "{part}");
        }
        for outside in ["<link", "<img", " src=", "@import", "http:", "https:"] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}
