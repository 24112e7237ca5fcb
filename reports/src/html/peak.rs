//! What made the peak of a case, stage by stage: only rows that say something.

use engine_protocol::{PeakParts, RunRecord, Stage, StageRecord};

use super::figure::Figure;
use crate::columns::PARTS;

/// What each part is, in the order of [`PeakParts::NAMES`].
pub(super) const MEANINGS: [&str; 9] = [
    "weights that stay on the GPU",
    "buffers in which streamed weights take turns",
    "what the arithmetic makes on its way, and all that has no other name",
    "what cuBLAS, cuDNN and attention ask for beside their results",
    "frames that the VAE's convolutions remember",
    "what a cache keeps from one sampler step for the next",
    "finished frames on their way out",
    "latents and prompt embeddings",
    "what the allocator holds and no tensor uses",
];

/// The parts of a case.
pub(super) struct PartsTable<'a> {
    pub case: &'a str,
    /// The stages that ran, in order, and whether it is the one with the peak.
    pub stages: Vec<(&'static str, bool)>,
    pub rows: Vec<PartRow>,
}

/// A part in each stage.
pub(super) struct PartRow {
    /// Its place in [`PeakParts::NAMES`].
    pub part: usize,
    pub name: &'static str,
    pub cells: Vec<(Figure, u64)>,
    /// Of the peak of reserved bytes, in percent.
    pub share: String,
    pub meaning: &'static str,
}

/// The parts of a case; nothing where they are not known.
pub(super) fn table(record: &RunRecord) -> Option<PartsTable<'_>> {
    let stages: Vec<(&StageRecord, PeakParts)> = record.stages.iter().filter_map(|stage| Some((stage, parts(record, stage)?))).collect();
    let peak_stage = record.peak_stage().or(record.failed_stage)?;
    let peak = stages.iter().find(|(stage, _)| stage.stage == peak_stage).map(|(_, parts)| parts.reserved_bytes())?;
    let is_of_peak = |stage: Stage| record.peak_stage() == Some(stage);
    let row = |part: usize| {
        let bytes: Vec<u64> = stages.iter().map(|(_, parts)| parts.bytes()[part]).collect();
        let cell = |((stage, _), &bytes): (&(&StageRecord, PeakParts), &u64)| {
            let column = if is_of_peak(stage.stage) { PARTS[part].0 } else { "" };
            (if bytes == 0 { Figure { text: String::new(), before: "", column: "" } } else { Figure::gib(column, Some(bytes)) }, bytes)
        };
        let at_peak = stages.iter().find(|(stage, _)| stage.stage == peak_stage).map_or(0, |(_, parts)| parts.bytes()[part]);
        let share = if at_peak > 0 && peak > 0 { format!("{:.1}%", at_peak as f64 / peak as f64 * 100.0) } else { String::new() };
        let row = PartRow {
            part,
            name: PeakParts::NAMES[part],
            cells: stages.iter().zip(&bytes).map(cell).collect(),
            share,
            meaning: MEANINGS[part],
        };
        // Less than 5 MiB in every stage is 0.00 GiB, which says nothing.
        bytes.iter().any(|bytes| *bytes >= 5 << 20).then_some(row)
    };
    Some(PartsTable {
        case: &record.case,
        stages: stages.iter().map(|(stage, _)| (stage.stage.name(), stage.stage == peak_stage)).collect(),
        rows: (0..PARTS.len()).filter_map(row).collect(),
    })
}

fn parts(record: &RunRecord, stage: &StageRecord) -> Option<PeakParts> {
    let at_failure = record.parts_at_failure.filter(|_| record.failed_stage == Some(stage.stage));
    at_failure.or(stage.memory?.parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_part_that_is_nowhere_has_no_row() {
        let record = samples::ok("a", 1, 10);
        let table = table(&record).expect("parts");
        assert_eq!(table.stages, [("load", true), ("encode", false), ("denoise", false), ("decode", false)]);
        let told: Vec<_> = table.rows.iter().map(|row| (row.name, row.cells[0].0.text.as_str(), row.share.as_str())).collect();
        assert_eq!(told, [("weights", "8.00", "88.9%"), ("slack", "1.00", "11.1%")]);
        assert_eq!((table.rows[0].cells[0].0.column, table.rows[0].cells[1].0.column), ("peak_weights_bytes", ""));
    }
}
