//! What each case's peak was made of, as a table: in the stage in which most was allocated, or when memory ran out.

use engine_protocol::{PeakParts, RunRecord, Stage, gib};

use crate::{Run, table};

/// Titles of the columns after the case's name.
pub(crate) fn titles() -> impl Iterator<Item = String> {
    let parts = PeakParts::NAMES.map(|name| format!("{name} GiB"));
    ["at the peak of".to_owned()].into_iter().chain(parts)
}

/// A row for each case whose parts are known: its name, then cells under [`titles`]. A part that there is none of is 0.
pub(crate) fn rows(run: &Run) -> Vec<(&str, Vec<String>)> {
    let cells = |record| {
        let (moment, parts) = of(record)?;
        let bytes = parts.bytes().map(|bytes| if bytes == 0 { "0".into() } else { table::shown(Some(bytes)) });
        Some([moment].into_iter().chain(bytes).collect())
    };
    run.records.iter().filter_map(|record| Some((record.case.as_str(), cells(record)?))).collect()
}

/// The parts of a case's peak on one line; nothing where they are not known. Those below 5 MiB are left out.
pub fn parts_in_words(record: &RunRecord) -> Option<String> {
    let (moment, parts) = of(record)?;
    let shown = PeakParts::NAMES.iter().zip(parts.bytes()).filter(|(_, bytes)| *bytes >= 5 << 20);
    let shown: Vec<String> = shown.map(|(name, bytes)| format!("{name} {:.2}", gib(bytes))).collect();
    let what = if record.parts_at_failure.is_some() { "reserved" } else { "peak reserved" };
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
pub(crate) const NOTE: &str = "weights: those that stay on the GPU; staging: buffers in which streamed ones take turns; workspace: what cuBLAS, cuDNN and attention \
     ask for beside their results; feature cache: frames that the VAE's convolutions remember, and the buffer in which they find them; frames: finished ones \
     on their way out; latents: with the prompt embeddings; activations: everything else. They come to what is allocated, each as the caching allocator rounds it, \
     and with slack, which no tensor uses, to what is reserved.";

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
                known("peak reserved in load: weights 8.00, slack 1.00 GiB"),
                None,
                known("reserved in denoise, when it ran out: weights 19.00, slack 1.00 GiB"),
            ]
        );
    }
}
