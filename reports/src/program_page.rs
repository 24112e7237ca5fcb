//! The page of one program on a virtual GPU: what it needed, and of what its peak was made. It judges nothing.

use std::collections::BTreeMap;

use askama::Template;
use engine_protocol::gib;

use crate::error::Error;
use crate::html::lone_timeline::{LoneTimeline, TimelineBand, TimelineCase, TimelineCourse};
use crate::plot::peak_of_processes;

/// What stands on it.
#[derive(Debug)]
pub struct ProgramPage {
    /// The program as it was called.
    pub program: String,
    /// What was said of it, a sentence each, the verdict first.
    pub sentences: Vec<String>,
    /// What the table's columns are called.
    pub titles: Vec<&'static str>,
    /// A row for each process and device.
    pub rows: Vec<Vec<String>>,
    /// What the peak of each was made of, in bytes, where that is known.
    pub peaks: Vec<(String, Vec<(&'static str, u64)>)>,
    /// What is known of each kind of GPU, and which those are.
    pub gpus: Vec<(&'static str, String)>,
    /// How memory went on each device, where that is known.
    pub courses: Vec<ProgramCourse>,
    /// What the GPU holds.
    pub capacity_bytes: u64,
}

/// How a process's memory of a device went: of each list, a figure a moment.
#[derive(Debug)]
pub struct ProgramCourse {
    /// Which process, which device.
    pub of: String,
    /// What of the device it held beside PyTorch's memory.
    pub beside_bytes: u64,
    /// The most of the device that it held.
    pub peak_device_bytes: u64,
    /// How often PyTorch gave memory out or took it back.
    pub events: u64,
    /// After how many of those events each moment was.
    pub at: Vec<u64>,
    /// What PyTorch held from the driver.
    pub reserved_bytes: Vec<u64>,
    /// What it had given out, by what that was for; what stands first lies lowest.
    pub parts: Vec<(&'static str, Vec<u64>)>,
}

#[derive(Template)]
#[template(path = "program.html")]
struct Page<'a> {
    page: &'a ProgramPage,
    plot: Option<String>,
    parts: Vec<(&'a str, &'a str, String)>,
    timeline: Option<LoneTimeline>,
}

/// The page as HTML, with nothing outside it.
///
/// # Errors
/// A plot that cannot be drawn.
pub fn program_page(page: &ProgramPage) -> Result<String, Error> {
    let plot = if page.peaks.is_empty() { None } else { Some(peak_of_processes(&page.peaks)?) };
    let parts =
        page.peaks.iter().flat_map(|(of, parts)| parts.iter().map(|(name, bytes)| (of.as_str(), *name, format!("{:.2}", gib(*bytes)))));
    let cases: Vec<_> = page.courses.iter().map(case).collect();
    let timeline = if cases.is_empty() { None } else { Some(LoneTimeline::new(cases, Some(page.capacity_bytes))?) };
    Ok(Page { page, plot, parts: parts.collect(), timeline }.render()?)
}

/// Layers that the timeline has colours for, beside what was reserved and not used.
const LAYERS: usize = 8;

/// A process on a device.
fn case(course: &ProgramCourse) -> TimelineCase<'_> {
    let mut names: Vec<&str> = course.parts.iter().map(|(name, _)| *name).collect();
    names.resize(LAYERS, "");
    names.push("reserved, not used");
    let parts: BTreeMap<usize, Vec<u64>> = course.parts.iter().map(|(_, bytes)| bytes.clone()).enumerate().collect();
    let moments = TimelineCourse { events: course.events, at: &course.at, reserved: &course.reserved_bytes, parts, largest: Vec::new() };
    TimelineCase {
        name: course.of.clone(),
        said: "",
        parts: names,
        bands: [TimelineBand::new("allocations and frees", course.beside_bytes, course.peak_device_bytes, Some(moments))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let page = ProgramPage {
            program: "python <b>.py".into(),
            sentences: vec!["Fits: 1 of 2 GiB.".into()],
            titles: vec!["process", "peak"],
            rows: vec![vec!["7".into(), "1.00".into()]],
            peaks: vec![("process 7".into(), vec![("weights", 3 << 30), ("cached and unused", 1 << 29)])],
            gpus: vec![("Fits on", "rtx-4090".into())],
            courses: vec![ProgramCourse {
                of: "process 7</script>".into(),
                beside_bytes: 1 << 29,
                peak_device_bytes: 4 << 30,
                events: 9,
                at: vec![0, 8],
                reserved_bytes: vec![1 << 30, 7 << 29],
                parts: vec![("weights", vec![1 << 30, 3 << 30])],
            }],
            capacity_bytes: 24 << 30,
        };
        let html = program_page(&page).expect("a page");
        for part in ["python &#60;b&#62;.py", "Fits: 1 of 2 GiB.", "<svg", "3.00", "0.50", "rtx-4090"] {
            assert!(html.contains(part), "{part}");
        }
        for outside in ["<link", "<img", " src=", "@import", "https:"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.contains("Memory over the run") && !html.contains("7</script>"));
        let block = html.split_once("id=\"data\">").and_then(|(_, rest)| rest.split_once("</script>")).expect("data").0;
        let data: serde_json::Value = serde_json::from_str(block).expect("JSON");
        assert_eq!(data["cases"][0]["bands"][0]["course"]["parts"]["0"][1], 3_u64 << 30);
        assert_eq!(data["capacity_bytes"], 24_u64 << 30);
        let without = program_page(&ProgramPage { peaks: Vec::new(), courses: Vec::new(), ..page }).expect("a page");
        assert!(!without.contains("<svg") && !without.contains("<script"));
    }
}
