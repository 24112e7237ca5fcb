//! `tables.md`: the run's table for a document.

use engine_protocol::gib;

use crate::{Run, advice, predicted, summary, table};

/// The run as Markdown: provenance, recommendation, one table a model and resolution.
pub(crate) fn tables(run: &Run) -> String {
    let manifest = &run.manifest;
    let mut text = format!("# Sweep `{}`\n\n{}.\n", manifest.sweep, run.provenance());
    if let Some(capacity) = manifest.capacity_bytes {
        text += &format!("Capacity: {:.2} GiB. {}\n", gib(capacity), manifest.choice);
    }
    text += "\n## Recommended\n\n";
    advice::sentences(run).iter().for_each(|sentence| text += &format!("- {sentence}\n"));
    text += &format!("\n{}.\n", summary::ranking(run));
    for verdict in summary::verdicts(run) {
        text += &format!("\n## {}\n\n", verdict.subject());
        text += &line(["case"].into_iter().chain(table::TITLES));
        text += &line(["---"; 1 + table::TEXT_COLUMNS].into_iter().chain(["--:"; 4]).chain(["---"]));
        for record in verdict.records {
            let row = table::row(record);
            text += &line([record.case.as_str()].into_iter().chain(row.iter().map(String::as_str)));
        }
    }
    let predicted = predicted::rows(run);
    if !predicted.is_empty() {
        text += "\n## Predicted and measured\n\n";
        text += &line(predicted::TITLES.into_iter());
        text += &line(["---"].into_iter().chain(["--:"; 6]));
        predicted.iter().for_each(|row| text += &line(row.iter().map(String::as_str)));
        text += &format!("\n{}\n", predicted::NOTE);
    }
    text += "\n";
    table::notes(run).iter().for_each(|note| text += &format!("- {note}\n"));
    let unsupported = table::unsupported_calls(run);
    if !unsupported.is_empty() {
        text += "\n## Calls that the virtual GPU does not support\n\n";
        unsupported.iter().for_each(|(name, count)| text += &format!("- `{name}`: {count}\n"));
    }
    text
}

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let escaped: Vec<_> = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
    format!("| {} |\n", escaped.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn an_out_of_memory_is_a_row_with_what_it_needs() {
        let run = samples::run(vec![samples::ok("level1", 1, 10), samples::oom("level0", 0, 20)]);
        let text = tables(&run);
        assert!(text.contains("| level0 | 0 |  | sdpa | 96x64 | oom in denoise (needs at least 31.00 GiB) |  |  |  |  |"), "{text}");
        assert!(text.contains("`cudaThing`: 4"), "{text}");
    }
}
