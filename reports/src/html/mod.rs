//! `report.html`: one page with nothing outside it. It shows a summary and judges nothing.
//!
//! All that it says stands in its HTML, and can be read without scripts. Its scripts, one file a job, draw plots and sort tables from one block of JSON in the page.

mod answer;
mod bands;
mod beside;
mod cases;
mod course;
mod data;
mod failures;
mod figure;
mod glossary;
mod grid;
mod levels;
pub(crate) mod lone_timeline;
mod peak;
mod ranks;

use askama::Template;
use engine_protocol::{RunRecord, gib};

use crate::error::Error;
use crate::peak_parts;
use crate::summary::Summary;
use crate::table::all_notes;
use crate::{forecast, ram};
use answer::{Answer, about};
use beside::BesideRow;
use cases::{CaseColumn, CaseRow};
use data::{Data, inert_json};
use failures::Failure;
use grid::Grid;
use levels::{HeatRow, LevelRow};
use peak::PartsTable;

/// The scripts, in the order in which they need each other.
const SCRIPTS: [&str; 6] = [
    include_str!("words.js"),
    include_str!("scatter.js"),
    include_str!("timeline.js"),
    include_str!("parts.js"),
    include_str!("cases.js"),
    include_str!("page.js"),
];
/// The one that the page has beside them while cases run.
const LIVE: &str = include_str!("live.js");

/// What the page has beside the rest while it is served.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// Which of the pages of the run it is: the next one has a higher number.
    pub version: u64,
    /// Whether it can ask to stop.
    pub may_stop: bool,
}

/// The page and what fills it.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    summary: &'a Summary<'a>,
    answer: Answer<'a>,
    capacity: String,
    loss_percent: f64,
    videos: Vec<VideoRow<'a>>,
    finding: Option<String>,
    about: String,
    levels: Vec<LevelRow<'a>>,
    heat: Vec<HeatRow<'a>>,
    parts: Option<PartsTable<'a>>,
    part_note: &'static str,
    columns: Vec<CaseColumn>,
    rows: Vec<CaseRow<'a>>,
    notes: Vec<String>,
    beside: Vec<BesideRow<'a>>,
    beside_note: String,
    details: Vec<Details>,
    failures: Vec<Failure<'a>>,
    again: Option<String>,
    glossary: Vec<(String, String)>,
    data: String,
    scripts: String,
    live: Option<Live>,
}

/// A table that is opened to be seen: two columns of text, and then figures.
struct Details {
    name: &'static str,
    titles: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

/// A video and what to use for it.
struct VideoRow<'a> {
    name: String,
    case: Option<&'a str>,
    how: String,
    gpu: figure::Figure,
    ram: figure::Figure,
    total: figure::Figure,
}

/// The page of a run.
///
/// # Errors
/// None that a healthy machine has: the page is made in memory.
pub(crate) fn page(summary: &Summary<'_>) -> Result<String, Error> {
    made(summary, None)
}

/// The same as it is served while cases run.
///
/// # Errors
/// None that a healthy machine has: the page is made in memory.
pub fn live_page(summary: &Summary<'_>, live: Live) -> Result<String, Error> {
    made(summary, Some(live))
}

fn made(summary: &Summary<'_>, live: Option<Live>) -> Result<String, Error> {
    let run = summary.run;
    let grid = Grid::of(summary);
    let columns = cases::columns(&grid);
    let verdict = about(summary);
    let told = summary.told_cases();
    let shown = verdict.and_then(|verdict| verdict.best.or(verdict.short_of_ram).or(verdict.nearest.map(|miss| miss.record)));
    let page = Page {
        summary,
        answer: Answer::of(summary),
        capacity: run.manifest.capacity_bytes.map(|bytes| format!("{:.2} GiB", gib(bytes))).unwrap_or_default(),
        loss_percent: (crate::choices::LOSS * 100.0).round(),
        videos: summary.verdicts.iter().map(|verdict| video(summary, verdict)).collect(),
        finding: verdict.and_then(|verdict| levels::finding(run, verdict)),
        about: verdict.map(crate::verdict::Verdict::subject).unwrap_or_default(),
        levels: verdict.map(|verdict| levels::rows(run, verdict)).unwrap_or_default(),
        heat: levels::heat(summary),
        parts: shown.and_then(peak::table),
        part_note: peak_parts::NOTE,
        rows: cases::rows(summary, &grid, &columns),
        columns,
        notes: all_notes(summary),
        beside: beside::rows(&told),
        beside_note: forecast::NOTE.replace('`', ""),
        details: details(&told),
        failures: failures::groups(run),
        again: failures::again(run),
        glossary: glossary::words(),
        data: inert_json(&Data::of(summary, &grid, shown))?,
        scripts: SCRIPTS.into_iter().chain(live.map(|_| LIVE)).collect::<Vec<_>>().join("\n"),
        live,
    };
    Ok(page.render()?)
}

fn details(told: &[&RunRecord]) -> Vec<Details> {
    let of_ram = ram::rows(told).into_iter().map(Vec::from).collect();
    let all = [
        Details { name: "RAM by stage", titles: &ram::TITLES, rows: of_ram },
        Details { name: "GPU by GPU", titles: &ranks::TITLES, rows: ranks::rows(told) },
    ];
    all.into_iter().filter(|details| !details.rows.is_empty()).collect()
}

fn video<'a>(summary: &Summary<'a>, verdict: &crate::verdict::Verdict<'a>) -> VideoRow<'a> {
    let best = verdict.best;
    let none = if summary.run.missing() > 0 { "none that ran fits" } else { "does not fit" };
    let shown = best.or(verdict.short_of_ram).or(verdict.nearest.map(|miss| miss.record));
    VideoRow {
        name: verdict.subject(),
        case: shown.map(|record| record.case.as_str()),
        how: best.map_or_else(|| none.to_owned(), |best| crate::advice::level_and_flags(summary.run, &best.config)),
        gpu: shown.map(figure::gpu).unwrap_or_default(),
        ram: shown.map(figure::ram).unwrap_or_default(),
        total: shown.map(figure::total).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use engine_protocol::{MemoryCourse, Purpose};

    use super::*;
    use crate::samples;

    fn page_of(records: Vec<RunRecord>) -> String {
        let run = samples::run(records);
        page(&Summary::of(&run)).expect("a page")
    }

    #[test]
    fn the_page_stands_alone_and_says_what_is_missing() {
        let page = page_of(vec![samples::ok("level1", 1, 10), samples::oom("level0", 0, 20)]);
        assert!(
            page.contains("oom in denoise")
                && page.contains("≥ <b data-column=\"needed_bytes\">31.00</b>")
                && page.contains("7.00 missing")
        );
        for outside in ["<link", "<img", "<iframe", " src=", "@import", "http:", "https:"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn text_of_records_is_inert() {
        let hostile = "</script><script>alert(1)</script>\u{2028}<!--<img src=x onerror=alert(1)>\"'&amp;";
        let mut record = samples::oom(hostile, 0, 20);
        record.error = Some(hostile.into());
        record.config.prompt = hostile.into();
        let mut run = samples::run(vec![samples::ok(&format!("ok {hostile}"), 1, 10), record]);
        run.manifest.sweep = hostile.into();
        run.manifest.choice = hostile.into();
        run.manifest.definition = hostile.into();
        run.manifest.command_line.push(hostile.into());
        let text = page(&Summary::of(&run)).expect("a page");
        for raw in ["<script>alert", "<img", "onerror=alert(1)>", "<!--"] {
            assert!(!text.contains(raw), "{raw}");
        }
        assert_eq!(text.matches("</script>").count(), 3, "the page's own");
        let block = text.split_once("id=\"data\">").and_then(|(_, rest)| rest.split_once("</script>")).expect("data").0;
        assert!(!block.contains(['<', '>', '&', '\u{2028}']));
        let data: serde_json::Value = serde_json::from_str(block).expect("JSON");
        assert_eq!(data["cases"][1]["name"], hostile, "and it is the text all the same");
    }

    #[test]
    fn the_first_screen_has_the_answer_and_what_copies_it() {
        let page = page_of(vec![samples::ok("level1", 1, 10), samples::ok("level3", 3, 4), samples::oom("level0", 0, 20)]);
        let answer =
            page.split_once("<section id=\"answer\"").and_then(|(_, rest)| rest.split_once("<section id=\"plot\"")).expect("an answer").0;
        for part in [
            "<h1>Fits</h1>",
            "<b>Level 1</b>",
            "width:41.7%",
            "GPU memory: <b>virtual</b>",
            "lowmem generate --model wan-tiny",
            "low_mem_level: 1",
            "<h2>Smallest</h2>",
        ] {
            assert!(answer.contains(part), "{part}: {answer}");
        }
        let misses = page_of(vec![samples::oom("level0", 0, 20)]);
        for part in ["<h1>Does not fit</h1>", ": at least 7.00 GiB are missing.", "bar over"] {
            assert!(misses.contains(part), "{part}: {misses}");
        }
        assert!(!misses.contains("data-copy=\"yaml\""));
    }

    #[test]
    fn a_thousand_cases_are_a_page_of_less_than_5_megabytes() {
        let figures: Vec<u64> = (0..64).map(|moment| 10_000_000_000 + moment * 512).collect();
        let course = MemoryCourse {
            events: 1_000_000,
            at: figures.clone(),
            reserved_bytes: figures.clone(),
            allocated_bytes: Purpose::ALL.iter().map(|purpose| (purpose.name().to_owned(), figures.clone())).collect(),
            ..MemoryCourse::default()
        };
        let with_courses = |mut record: RunRecord| {
            record.stages.iter_mut().for_each(|stage| stage.courses = vec![course.clone()]);
            record
        };
        let case = |number: u64| samples::ok(&format!("a-case-of-a-long-name-{number}"), (number % 4) as u8, 5 + number % 15);
        let page = page_of((0..1000).map(case).map(with_courses).collect());
        assert!(page.len() < 5_000_000, "{}", page.len());
        assert_eq!(page.matches("\"course\":").count(), 4 * 60, "of those that are chosen, and some more");
    }

    #[test]
    fn of_too_many_cases_those_that_are_told_of_are_there() {
        let mut records: Vec<_> = (0..2100).map(|number| samples::ok(&format!("case{number}"), 2, 9)).collect();
        records.push(samples::ok("the-best", 1, 20));
        let page = page_of(records);
        assert!(page.contains("Shown are 2000 of 2101 cases"));
        assert!(page.contains("<tr class=\"recommended\" data-case=\"the-best\" data-row=\"1999\">"));
        assert_eq!(page.matches("data-row=").count(), 2000);
    }

    #[test]
    fn columns_of_flags_are_those_that_differ_within_a_level() {
        let mut other = samples::ok("other", 2, 9);
        other.config.seed = 7;
        let run = samples::run(vec![samples::ok("level1", 1, 10), samples::ok("level2", 2, 9), other]);
        let grid = Grid::of(&Summary::of(&run));
        let titles: Vec<_> = cases::columns(&grid).iter().map(|column| column.title).collect();
        // The text encoder's place differs too, but follows from the level.
        assert_eq!(titles[..3], ["level", "seed", "outcome"]);
    }
}
