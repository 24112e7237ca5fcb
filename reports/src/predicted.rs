//! What was predicted for cases on a real GPU, beside what was measured.

use engine_protocol::{Outcome, RunRecord};

use crate::{Run, shown, shown_secs};

/// Titles of the table's columns.
pub(crate) const TITLES: [&str; 7] = ["case", "predicted peak device GiB", "measured", "off by", "predicted total s", "measured", "off by"];

/// What stands under the table.
pub(crate) const NOTE: &str = "Predictions are the virtual GPU's, made before: memory is counted, times are modelled from the GPU's profile. `lowmem calibrate` measures what this GPU reaches.";

/// A row for each case that ran to its end and had a prediction.
pub(crate) fn rows(run: &Run) -> Vec<[String; 7]> {
    run.records.iter().filter_map(row).collect()
}

fn row(record: &RunRecord) -> Option<[String; 7]> {
    let predicted = record.predicted.filter(|_| record.outcome == Outcome::Ok)?;
    let (peak, secs) = (record.peak_device_bytes(), record.total_secs().map(|secs| secs.expected));
    let (predicted_peak, predicted_secs) = (predicted.peak_device_bytes, predicted.total_secs.map(|secs| secs.expected));
    let as_number = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
    let seconds = |secs: Option<f64>| secs.map(shown_secs).unwrap_or_default();
    Some([
        record.case.clone(),
        shown(predicted_peak),
        shown(peak),
        off_by(as_number(predicted_peak), as_number(peak)),
        seconds(predicted_secs),
        seconds(secs),
        off_by(predicted_secs, secs),
    ])
}

/// How far a prediction is from what came.
fn off_by(predicted: Option<f64>, measured: Option<f64>) -> String {
    let share = predicted.zip(measured).map(|(predicted, measured)| (predicted / measured - 1.0) * 100.0);
    share.filter(|share| share.is_finite()).map(|share| format!("{share:+.1}%")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use engine_protocol::{GIB, Predicted, Secs, StageTime};

    #[test]
    fn a_prediction_stands_beside_what_came_of_it() {
        let mut record = samples::ok("level1", 1, 10);
        record.predicted =
            Some(Predicted { peak_device_bytes: Some(9 * GIB), total_secs: Some(Secs { low: 20.0, expected: 33.0, high: 40.0 }) });
        for stage in &mut record.stages {
            stage.time = Some(StageTime { secs: Secs::measured(10.0), copy_stall: None, work: None });
        }
        record.config.steps_measured = None;
        let run = samples::run(vec![record, samples::ok("level2", 2, 9), samples::oom("level0", 0, 20)]);
        assert_eq!(rows(&run), [["level1", "9.00", "10.00", "-10.0%", "33.0", "30.0", "+10.0%"].map(String::from)]);
    }
}
