//! The page of one program on a virtual GPU: what it needed, and of what its peak was made. It judges nothing.

use askama::Template;
use engine_protocol::gib;

use crate::error::Error;
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
}

#[derive(Template)]
#[template(path = "program.html")]
struct Page<'a> {
    page: &'a ProgramPage,
    plot: Option<String>,
    parts: Vec<(&'a str, &'a str, String)>,
}

/// The page as HTML, with nothing outside it.
///
/// # Errors
/// A plot that cannot be drawn.
pub fn program_page(page: &ProgramPage) -> Result<String, Error> {
    let plot = if page.peaks.is_empty() { None } else { Some(peak_of_processes(&page.peaks)?) };
    let parts =
        page.peaks.iter().flat_map(|(of, parts)| parts.iter().map(|(name, bytes)| (of.as_str(), *name, format!("{:.2}", gib(*bytes)))));
    Ok(Page { page, plot, parts: parts.collect() }.render()?)
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
        };
        let html = program_page(&page).expect("a page");
        for part in ["python &#60;b&#62;.py", "Fits: 1 of 2 GiB.", "<svg", "3.00", "0.50", "rtx-4090"] {
            assert!(html.contains(part), "{part}");
        }
        for outside in ["<link", "<script", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        let without = program_page(&ProgramPage { peaks: Vec::new(), ..page }).expect("a page");
        assert!(!without.contains("<svg"));
    }
}
