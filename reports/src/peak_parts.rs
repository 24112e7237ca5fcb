//! What a case's peak was made of, in words: in the stage in which most was allocated, or when memory ran out.
//!
//! It takes no peak apart: the worker has done that.

use engine_protocol::{PeakParts, RunRecord, Stage, gib};

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
    fn parts_that_are_not_known_are_not_told() {
        let mut unknown = samples::ok("unknown", 2, 10);
        unknown.stages.iter_mut().for_each(|stage| stage.memory.as_mut().expect("memory").parts = None);
        let run = samples::run(vec![samples::ok("level1", 1, 10), unknown, samples::oom("level0", 0, 20)]);
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
