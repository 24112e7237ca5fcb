//! How memory went within each stage and step, for other programs: the figures of the page's timeline, one row a moment.

use engine_protocol::{LiveAllocation, MemoryCourse, PeakParts, Purpose, RunRecord, Stage};

use crate::breakdown::model_in;
use crate::csv::inert;
use crate::error::Error;
use crate::run::Run;

/// All moments of a run's cases as CSV: which stage and steps, how far in it, what was allocated by purpose, what was reserved, and at a peak what lived.
///
/// # Errors
/// None that a healthy machine has: the table is written to memory.
pub(crate) fn timeline(run: &Run) -> Result<Vec<u8>, Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let purposes = Purpose::ALL.map(|purpose| format!("{}_bytes", purpose.name()));
    let before = ["case", "stage", "steps", "event", "events", "reserved_bytes", "allocated_bytes"].map(str::to_owned);
    writer.write_record(before.iter().chain(&purposes).chain(["largest".to_owned()].iter()))?;
    for record in &run.records {
        let courses = record.stages.iter().flat_map(|stage| stage.courses.iter().map(move |course| (stage.stage, course)));
        for (stage, course) in courses {
            let peak = course.peak_allocated_bytes();
            for moment in 0..course.at.len() {
                writer.write_record(row(record, stage, course, (moment, peak)))?;
            }
        }
    }
    Ok(writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?)
}

/// A moment of a course whose peak is so high.
fn row(record: &RunRecord, stage: Stage, course: &MemoryCourse, (moment, peak): (usize, u64)) -> Vec<String> {
    let figure = |figures: &[u64]| figures.get(moment).map_or_else(String::new, u64::to_string);
    let allocated = course.allocated_at(moment);
    // Counted from 1, as people do.
    let steps = course.steps.iter().map(|step| (step + 1).to_string()).collect::<Vec<_>>().join(" ");
    let largest = course.largest.iter().map(|block| format!("{} bytes of {}", block.bytes, said(block)));
    let of_purpose = |purpose: Purpose| course.allocated_bytes.get(purpose.name()).map_or_else(|| "0".to_owned(), |bytes| figure(bytes));
    [inert(record.case.clone()), stage.name().to_owned(), steps, figure(&course.at), course.events.to_string()]
        .into_iter()
        .chain([figure(&course.reserved_bytes), allocated.to_string()])
        .chain(Purpose::ALL.map(of_purpose))
        .chain([if allocated == peak { inert(largest.collect::<Vec<_>>().join("; ")) } else { String::new() }])
        .collect()
}

/// An allocation in words: what it is for, its component, its group of weights, the operation that made it, and its shape.
pub(crate) fn said(block: &LiveAllocation) -> String {
    let purpose = Purpose::ALL.iter().position(|purpose| purpose.name() == block.purpose).and_then(|place| PeakParts::NAMES.get(place));
    // Weights that are loaded are named by their component.
    let (component, group) = match Stage::ALL.into_iter().find(|stage| stage.name() == block.stage) {
        Some(Stage::Load) => (block.group.replace('_', " "), ""),
        Some(stage) => (model_in(stage).to_owned(), block.group.as_str()),
        None => (String::new(), block.group.as_str()),
    };
    let shape = block.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
    let parts = [component.as_str(), group, &block.operation, &shape];
    let made = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    format!("{}{}{made}", purpose.copied().unwrap_or(&block.purpose), if made.is_empty() { "" } else { ": " })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn an_allocation_says_what_is_known_of_it() {
        let block = LiveAllocation {
            bytes: 8,
            purpose: "feature_cache".into(),
            stage: "decode".into(),
            group: "decoder".into(),
            operation: "fill_".into(),
            shape: vec![1, 2],
        };
        assert_eq!(said(&block), "feature cache: VAE, decoder, fill_, 1 x 2");
        let weights =
            LiveAllocation { purpose: "weights".into(), stage: "load".into(), group: "text_encoder".into(), ..LiveAllocation::default() };
        assert_eq!(said(&weights), "weights: text encoder");
        assert_eq!(said(&LiveAllocation { purpose: "of later versions".into(), ..LiveAllocation::default() }), "of later versions");
    }

    #[test]
    fn each_moment_is_a_row_and_the_peak_says_what_lived() {
        let mut record = samples::ok("a", 1, 10);
        let denoise = record.stages.iter_mut().find(|stage| stage.stage == Stage::Denoise).expect("it ran");
        denoise.courses = vec![MemoryCourse {
            steps: vec![0, 2],
            events: 9,
            at: vec![0, 4],
            reserved_bytes: vec![20, 30],
            allocated_bytes: [("weights".into(), vec![8, 8]), ("workspace".into(), vec![1, 5])].into(),
            largest: vec![LiveAllocation { bytes: 8, purpose: "weights".into(), ..LiveAllocation::default() }],
        }];
        let text = String::from_utf8(timeline(&samples::run(vec![record])).expect("a table")).expect("text");
        assert_eq!(
            text,
            "case,stage,steps,event,events,reserved_bytes,allocated_bytes,weights_bytes,staging_bytes,activations_bytes,workspace_bytes,feature_cache_bytes,\
             step_cache_bytes,frames_bytes,latents_bytes,largest\n\
             a,denoise,1 3,0,9,20,9,8,0,0,1,0,0,0,0,\n\
             a,denoise,1 3,4,9,30,13,8,0,0,5,0,0,0,0,8 bytes of weights\n"
        );
    }
}
