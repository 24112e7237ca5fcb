//! `report.html` as people meet it, in a browser: what can be done with it, and that its figures are those of `results.csv`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::{Outcome, PeakParts, RunRecord, Stage};
use lowmem_tests::root;
use reports::{Run, Summary};
use tempfile::TempDir;

use crate::browser::Browser;

const GIB: u64 = 1 << 30;

/// Text that would run or break something where it is taken for more than text.
const HOSTILE: &str = "</script><script>window.ran=1</script><img src=x onerror=window.ran=1>'\"&\u{2028}";

/// A run's directory with a report: levels and videos as they were measured, cases that ran out, failed, and have a hostile name.
struct Report {
    dir: TempDir,
}

impl Report {
    fn new() -> Self {
        Self::of(records())
    }

    fn of(records: Vec<RunRecord>) -> Self {
        let mut manifest = reports::load_manifest(&root().join("tests/fixtures/run-schema-1")).expect("a manifest");
        manifest.capacity_bytes = Some(40 * GIB);
        manifest.cases = records.iter().map(|record| record.case.clone()).collect();
        let dir = tempfile::tempdir().expect("a folder");
        reports::write(&Summary::of(&Run::new(manifest, records)), dir.path()).expect("written");
        Self { dir }
    }

    fn page(&self) -> PathBuf {
        self.dir.path().join("report.html")
    }

    /// The cells of `results.csv`, by case and column.
    fn cells(&self) -> HashMap<(String, String), String> {
        let mut reader = csv::Reader::from_path(self.dir.path().join("results.csv")).expect("results.csv");
        let header = reader.headers().expect("a header").clone();
        let rows: Vec<_> = reader.records().collect::<Result<_, _>>().expect("rows");
        let cells = |row: &csv::StringRecord| {
            let case = row[0].to_owned();
            header.iter().zip(row).map(|(name, cell)| ((case.clone(), name.to_owned()), cell.to_owned())).collect::<Vec<_>>()
        };
        rows.iter().flat_map(cells).collect()
    }
}

fn measured(folder: &str) -> Vec<RunRecord> {
    reports::load_records(&root().join("reports/measured/h100-2026-11-27").join(folder)).expect("records").records
}

fn records() -> Vec<RunRecord> {
    let mut records = measured("14b-480p");
    let mut add = |case: &str, outcome, error: &str| {
        let mut record = records[0].clone();
        (record.case, record.outcome, record.error) = (case.to_owned(), outcome, Some(error.to_owned()));
        record.failed_stage = Some(Stage::Denoise);
        record.config.seed = records.len() as i64;
        record.stages.retain(|stage| stage.stage != Stage::Decode);
        record.requested_bytes = (outcome == Outcome::Oom).then_some(9 * GIB);
        record.parts_at_failure = (outcome == Outcome::Oom).then(|| PeakParts::new([28 * GIB, 0, 3 * GIB, 0, 0, 0, 0, 0], 32 * GIB));
        records.push(record);
    };
    add("out-of-memory", Outcome::Oom, "CUDA out of memory");
    add("failed-one", Outcome::Failed, "no kernel 12\nlast line");
    add("failed-two", Outcome::Failed, "no kernel 13\nlast line");
    add(HOSTILE, Outcome::Failed, HOSTILE);
    records.extend(measured("14b-720p").into_iter().map(|record| RunRecord { case: format!("720p-{}", record.case), ..record }));
    records
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
fn the_page_opens_without_a_complaint_and_hostile_text_does_nothing() {
    let (report, browser) = (Report::new(), Browser::start());
    browser.open(&report.page(), 1280, "light");
    assert_eq!(browser.complaints(), [""; 0]);
    assert_eq!(browser.text("typeof window.ran"), "undefined");
    assert_eq!(browser.value("document.querySelectorAll('main img').length"), 0);
    // Each place that scripts fill with texts of records, that case among them.
    browser.value("lowmem.choose(lowmem.byId('case').options.length - 3); lowmem.byId('scatter').onkeydown({ key: 'ArrowRight', preventDefault() {} })");
    let names = browser.value("[...lowmem.byId('case').options].map((option) => option.text)");
    assert!(
        names.as_array().is_some_and(|names| names.iter().any(|name| name.as_str().is_some_and(|name| name.starts_with("</script>")))),
        "{names}"
    );
    assert_eq!(browser.text("typeof window.ran"), "undefined");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
fn every_figure_is_that_of_the_csv() {
    let (report, browser) = (Report::new(), Browser::start());
    let cells = report.cells();
    browser.open(&report.page(), 1280, "light");
    let shown = browser.value(
        "[...document.querySelectorAll('[data-column]')].filter((at) => at.dataset.column && at.textContent)
            .map((at) => [at.closest('[data-case]').dataset.case, at.dataset.column, at.textContent])",
    );
    let shown = shown.as_array().expect("figures");
    for figure in shown {
        let [case, column, text] = [0, 1, 2].map(|index| figure[index].as_str().expect("text").to_owned());
        let cell = &cells[&(case.clone(), column.clone())];
        let said = match column.as_str() {
            bytes if bytes.ends_with("_bytes") => reports::in_gib(cell.parse().ok()),
            secs if secs.ends_with("_secs") => cell.parse().map(reports::time).unwrap_or_default(),
            _ => cell.clone(),
        };
        assert_eq!(text, said, "{column} of {case}");
    }
    assert!(shown.len() > 100, "{} figures", shown.len());
    let csv = fs::read_to_string(report.dir.path().join("results.csv")).expect("results.csv");
    assert_eq!(browser.text("lowmem.csv()"), csv, "what is downloaded is results.csv");
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
fn sorting_filtering_the_slider_and_copying_change_what_they_should() {
    let (report, browser) = (Report::new(), Browser::start());
    browser.open(&report.page(), 1280, "light");
    let cells = report.cells();
    let column = |name: &str| {
        let cases = browser.value("[...lowmem.byId('all').tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.dataset.case)");
        let cases = cases.as_array().expect("rows").iter().map(|case| case.as_str().expect("a name").to_owned());
        cases.map(|case| cells[&(case, name.to_owned())].clone()).collect::<Vec<_>>()
    };
    let head = "lowmem.byId('all').tHead.querySelector('[data-sort=total_secs]')";
    for falling in [false, true] {
        browser.value(&format!("{head}.querySelector('button').click()"));
        let times: Vec<f64> = column("total_secs").iter().filter_map(|cell| cell.parse().ok()).collect();
        assert!(times.len() > 5 && times.is_sorted_by(|one, other| if falling { one >= other } else { one <= other }), "{times:?}");
        assert!(column("total_secs").last().is_some_and(String::is_empty), "what is not known comes last");
        assert_eq!(browser.text(&format!("{head}.getAttribute('aria-sort')")), if falling { "descending" } else { "ascending" });
    }

    browser.value("lowmem.byId('filter').value = 'failed, level 0'; lowmem.byId('filter').oninput()");
    assert_eq!(column("outcome"), ["failed"; 3]);
    assert_eq!(
        browser.text("lowmem.byId('filter-said').textContent"),
        format!("3 of {} cases", cells.keys().filter(|(_, name)| name == "case").count())
    );
    browser.value("lowmem.byId('filter').value = ''; lowmem.byId('filter').oninput()");

    let verdict = |gib: f64| {
        browser.value(&format!("lowmem.byId('budget').value = {gib}; lowmem.byId('budget').oninput()"));
        let line = browser.text("document.querySelector('#scatter .budget').getAttribute('d')");
        (browser.text("lowmem.byId('budget-verdict').textContent"), line)
    };
    let (wide, wide_line) = verdict(40.0);
    let (narrow, narrow_line) = verdict(12.0);
    let (none, _) = verdict(1.0);
    assert!(wide.starts_with("Fits with level ") && narrow.starts_with("Fits with level 3"), "{wide} {narrow}");
    assert!(wide != narrow && wide_line != narrow_line, "{wide} {narrow}");
    assert!(none.starts_with("Does not fit: the least is "), "{none}");

    browser.value("Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => (window.copied = text) } })");
    let copied = |id: &str| {
        browser.value(&format!("lowmem.copy(document.querySelector('[data-copy={id}]'))"));
        browser.text("window.copied")
    };
    assert!(copied("command").starts_with("lowmem generate --model wan2.1-t2v-14b --prompt"));
    assert_eq!(copied("yaml"), fs::read_to_string(report.dir.path().join("recommended.yaml")).expect("written"));
    assert_eq!(browser.text("document.querySelector('[data-copy=yaml]').textContent"), "Copied");

    let more = "document.querySelector('#columns input[value=h2d_bytes]')";
    browser.value(&format!("{more}.click()"));
    assert_eq!(browser.value("lowmem.byId('all').tBodies[0].rows[0].lastElementChild.textContent"), column("h2d_bytes")[0]);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
fn a_newer_page_takes_its_place_and_what_was_chosen_stays() {
    let (report, browser) = (Report::of(measured("14b-480p")), Browser::start());
    let newer = fs::read_to_string(Report::new().page()).expect("a page");
    browser.open(&report.page(), 1280, "light");
    browser.value("lowmem.choose(2); lowmem.byId('filter').value = 'ok'; lowmem.byId('filter').oninput()");
    let chosen = browser.text("lowmem.byId('case').selectedOptions[0].text");
    browser.value(&format!("lowmem.refresh({})", serde_json::to_string(&newer).expect("JSON")));
    assert_eq!(browser.text("lowmem.byId('case').selectedOptions[0].text"), chosen);
    assert_eq!(browser.text("lowmem.byId('filter-said').textContent"), "9 of 13 cases");
    assert_eq!(browser.value("document.querySelectorAll('#failures details').length"), 3);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
fn nothing_is_clipped_at_any_width_or_theme_and_axe_finds_nothing_serious() {
    let (report, browser) = (Report::new(), Browser::start());
    let axe = axe();
    for (width, theme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
        browser.open(&report.page(), width, theme);
        holds(&browser, &axe, &format!("at {width} in {theme}"));
        keep(&browser, &format!("report-{width}-{theme}.png"));
    }
}

/// Whether the page that is open, with all its parts, fits its width, clips nothing and has nothing serious against it.
pub(crate) fn holds(browser: &Browser, axe: &str, shown: &str) {
    browser.value("document.querySelectorAll('details').forEach((part) => (part.open = true))");
    let beyond =
        browser.value("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - document.documentElement.clientWidth");
    assert_eq!(beyond, 0, "{shown}: the page scrolls sideways");
    // What is wider than its box, where that box does not scroll.
    let clipped = browser.value(
        "[...document.querySelectorAll('main *')].filter((at) => at.clientWidth && at.scrollWidth > at.clientWidth + 1
            && !['auto', 'scroll'].includes(getComputedStyle(at).overflowX) && getComputedStyle(at).display !== 'inline' && !at.closest('svg, select'))
            .map((at) => at.outerHTML.slice(0, 120))",
    );
    assert_eq!(clipped, serde_json::json!([]), "{shown}");
    // Nothing but the table of all cases is wider than a phone.
    let hidden = browser.value(
        "innerWidth > 576 ? [] : [...document.querySelectorAll('.stacked')].map((table) => table.parentElement)
            .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => [box.getAttribute('aria-label'), box.scrollWidth])",
    );
    assert_eq!(hidden, serde_json::json!([]), "{shown}");
    browser.value(axe);
    let found = browser.value(
        "axe.run(document, { resultTypes: ['violations'] }).then((found) => found.violations.filter((one) => ['serious', 'critical'].includes(one.impact))
            .map((one) => [one.id, one.nodes.slice(0, 5).map((node) => [node.target.join(' '), node.failureSummary])]))",
    );
    assert_eq!(found, serde_json::json!([]), "{shown}: {found:#}");
}

/// Keeps a picture of the page in `target/tmp`, for people to look at.
pub(crate) fn keep(browser: &Browser, name: &str) {
    browser.value("document.querySelectorAll('details').forEach((part) => (part.open = false))");
    let picture = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, browser.picture()).expect("base64");
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), picture).expect("written");
}

/// The accessibility checks of axe-core, fetched once.
pub(crate) fn axe() -> String {
    let fetched = std::process::Command::new(root().join("setup/axe.sh")).output().expect("setup/axe.sh runs");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    fs::read_to_string(String::from_utf8_lossy(&fetched.stdout).trim()).expect("axe-core")
}
