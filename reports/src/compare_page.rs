//! The page of two runs beside each other. What is better and what is worse is judged before.

use askama::Template;

use crate::error::Error;

/// What stands on it.
#[derive(Debug, Template)]
#[template(path = "compare.html")]
struct Page<'a> {
    page: &'a ComparePage,
}

/// Two runs.
#[derive(Debug)]
pub struct ComparePage {
    /// The run directory of before.
    pub before: String,
    /// The run directory of after.
    pub after: String,
    /// What is to be said of both, a sentence each.
    pub sentences: Vec<String>,
    /// What the table's columns are called.
    pub titles: Vec<&'static str>,
    /// A row for each case that both have.
    pub rows: Vec<CompareRow>,
}

/// A case in both runs.
#[derive(Debug)]
pub struct CompareRow {
    /// The case, its figures now and how they changed.
    pub cells: Vec<String>,
    /// Whether it got worse by more than it may.
    pub is_worse: bool,
}

/// The page as HTML, with nothing outside it.
///
/// # Errors
/// None that a healthy machine has: it is made in memory.
pub fn compare_page(page: &ComparePage) -> Result<String, Error> {
    Ok(Page { page }.render()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let row = |name: &str, is_worse| CompareRow { cells: vec![name.into(), "11.00".into(), "+9.1%".into()], is_worse };
        let html = compare_page(&ComparePage {
            before: "a".into(),
            after: "<b>".into(),
            sentences: vec!["1 of 2 cases got worse.".into()],
            titles: vec!["case", "GPU GiB", "change"],
            rows: vec![row("level<1>", true), row("level2", false)],
        });
        let html = html.expect("a page");
        for part in ["&#60;b&#62;", "level&#60;1&#62;", "+9.1%", "1 of 2 cases got worse.", "class=\"failure\""] {
            assert!(html.contains(part), "{part}");
        }
        assert_eq!(html.matches("class=\"failure\"").count(), 1);
        for outside in ["<link", "<script", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}
