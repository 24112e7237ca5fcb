//! `tables.md`: the run's tables for a document. It judges nothing: a summary says all of it.

use engine_protocol::gib;

use crate::summary::Summary;
use crate::table::{all_notes, table_columns};
use crate::{forecast, ram};

/// The run as Markdown: provenance, recommendation, one table a model and resolution.
pub(crate) fn tables(summary: &Summary<'_>) -> String {
    let manifest = &summary.run.manifest;
    let mut text = format!("# Sweep {}\n\n{}\n", inert(&manifest.sweep), inert(&summary.provenance));
    if let Some(capacity) = manifest.capacity_bytes {
        text += &format!("Capacity: {:.2} GiB. {}\n", gib(capacity), inert(&manifest.choice));
    }
    for gpu in &manifest.gpus {
        text += &format!("Capacity of {}: {:.2} GiB. {}\n", inert(&gpu.asked), gib(gpu.capacity_bytes), inert(&gpu.choice));
    }
    text += &format!("\n## {}\n\n", summary.title);
    summary.sentences.iter().for_each(|sentence| text += &format!("- {}\n", inert(sentence)));
    text += &format!("\n{}\n", summary.ranking);
    let columns = table_columns(summary.run);
    for verdict in &summary.verdicts {
        text += &format!("\n## {}\n\n", inert(&verdict.subject()));
        text += &line(["case"].into_iter().chain(columns.iter().map(|column| column.title)));
        text += &line(["---"].into_iter().chain(columns.iter().map(|column| if column.is_figure { "--:" } else { "---" })));
        for record in &verdict.records {
            let row: Vec<String> = columns.iter().map(|column| column.cell(record)).collect();
            text += &line([record.case.as_str()].into_iter().chain(row.iter().map(String::as_str)));
        }
    }
    let forecast = forecast::rows(summary.run);
    if !forecast.is_empty() {
        text += "\n## Forecast and measured\n\n";
        text += &line(forecast::TITLES.into_iter());
        text += &line(["---"].into_iter().chain(["--:"; 6]));
        forecast.iter().for_each(|row| text += &line(row.iter().map(String::as_str)));
        text += &format!("\n{}\n", forecast::NOTE);
    }
    let ram = ram::rows(&summary.told_cases());
    if !ram.is_empty() {
        text += "\n## RAM by stage\n\n";
        text += &line(ram::TITLES.into_iter());
        text += &line(["---", "---"].into_iter().chain(["--:"; 4]));
        ram.iter().for_each(|row| text += &line(row.iter().map(String::as_str)));
    }
    text += "\n";
    all_notes(summary).iter().for_each(|note| text += &format!("- {}\n", inert(note)));
    if !summary.unsupported_calls.is_empty() {
        text += "\n## Calls that the virtual GPU does not support\n\n";
        summary.unsupported_calls.iter().for_each(|(name, count)| text += &format!("- {}: {count}\n", inert(name)));
    }
    text
}

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let escaped: Vec<_> = cells.map(inert).collect();
    format!("| {} |\n", escaped.join(" | "))
}

/// Text as one line that stands for itself: no HTML, no link, no picture, no cell of its own.
pub(crate) fn inert(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in untrusted::line(text).chars() {
        match c {
            '<' => shown += "&lt;",
            '>' => shown += "&gt;",
            '&' => shown += "&amp;",
            '|' | '[' | ']' | '`' | '\\' => shown.extend(['\\', c]),
            _ => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn an_out_of_memory_is_a_row_with_what_it_needs() {
        let run = samples::run(vec![samples::ok("level1", 1, 10), samples::oom("level0", 0, 20)]);
        let text = tables(&Summary::of(&run));
        assert!(text.contains("| level0 | 0 |  | sdpa | 96x64 | oom in denoise |  |  | ≥ 31.00 |  |  |  |"), "{text}");
        assert!(text.contains("- cudaThing: 4"), "{text}");
    }

    #[test]
    fn nothing_in_a_record_is_html_or_a_link() {
        let hostile = "</td><img src=x> [a](javascript:b) | `c`\n# d";
        let mut run = samples::run(vec![samples::ok(hostile, 1, 10), samples::oom("level0", 0, 20)]);
        run.manifest.sweep = hostile.into();
        let text = tables(&Summary::of(&run));
        assert!(text.contains("\\[a\\](javascript:b) \\| \\`c\\`\\\\n# d"), "{text}");
        for raw in ["<img", "</td>", " [a]", "\n# d"] {
            assert!(!text.contains(raw), "{raw}: {text}");
        }
    }
}
