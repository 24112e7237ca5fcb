//! What each case's peak was made of, as a table: in the stage in which most was allocated, or when memory ran out.
//!
//! It takes no peak apart: the worker has done that.

use engine_protocol::{PeakParts, RunRecord, Stage, gib};

use crate::run::Run;
use crate::words::in_gib;

/// Titles of the columns after the case's name.
pub(crate) fn titles() -> impl Iterator<Item = String> {
    let parts = PeakParts::NAMES.map(|name| format!("{name} GiB"));
    ["at the peak of".to_owned()].into_iter().chain(parts)
}

/// A row for each case whose parts are known: its name, then cells under [`titles`]. A part that there is none of is 0.
pub(crate) fn rows(run: &Run) -> Vec<(&str, Vec<String>)> {
    let cells = |record| {
        let (moment, parts) = of(record)?;
        let bytes = parts.bytes().map(|bytes| if bytes == 0 { "0".into() } else { in_gib(Some(bytes)) });
        Some([moment].into_iter().chain(bytes).collect())
    };
    run.records.iter().filter_map(|record| Some((record.case.as_str(), cells(record)?))).collect()
}

/// The parts of a case's peak on one line; nothing where they are not known. Those below 5 MiB are left out.
pub fn parts_in_words(record: &RunRecord) -> Option<String> {
    let (moment, parts) = of(record)?;
    let shown = PeakParts::NAMES.iter().zip(parts.bytes()).filter(|(_, bytes)| *bytes >= 5 << 20);
    let shown: Vec<String> = shown.map(|(name, bytes)| format!("{name} {:.2}", gib(bytes))).collect();
    let what = if record.parts_at_failure.is_some() { "Reserved" } else { "Peak reserved" };
    (!shown.is_empty()).then(|| format!("{what} in {moment}: {} GiB", shown.join(", ")))
}

/// Whose parts they are, in words, and the parts.
fn of(record: &RunRecord) -> Option<(String, PeakParts)> {
    if let Some(parts) = record.parts_at_failure {
        let stage = record.failed_stage.map(Stage::name).unwrap_or_default();
        return Some((format!("{stage}, when it ran out"), parts));
    }
    Some((record.peak_stage()?.name().to_owned(), record.peak_parts()?))
}

/// What the parts are.
pub(crate) const NOTE: &str = "Weights: those that stay on the GPU. Staging: buffers in which streamed weights take turns. Workspace: what cuBLAS, cuDNN and attention \
     ask for beside their results. Feature cache: frames that the VAE's convolutions remember. Frames: finished ones on their way out. Latents: with the prompt \
     embeddings. Activations: everything else. These add up to what is allocated. With slack, which the allocator holds and no tensor uses, they add up to what \
     is reserved.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_case_whose_parts_are_not_known_has_no_row() {
        let mut unknown = samples::ok("unknown", 2, 10);
        unknown.stages.iter_mut().for_each(|stage| stage.memory.as_mut().expect("memory").parts = None);
        let run = samples::run(vec![samples::ok("level1", 1, 10), unknown, samples::oom("level0", 0, 20)]);
        let rows = rows(&run);
        let row = |moment: &str, weights: &str| [moment, weights, "0", "0", "0", "0", "0", "0", "1.00"].map(str::to_owned).to_vec();
        assert_eq!(rows, [("level1", row("load", "8.00")), ("level0", row("denoise, when it ran out", "19.00"))]);
        assert_eq!(titles().count(), rows[0].1.len());
        let told = run.records.iter().map(parts_in_words).collect::<Vec<_>>();
        let known = |text: &str| Some(text.to_owned());
        assert_eq!(
            told,
            [
                known("Peak reserved in load: weights 8.00, slack 1.00 GiB"),
                None,
                known("Reserved in denoise, when it ran out: weights 19.00, slack 1.00 GiB"),
            ]
        );
    }
}
