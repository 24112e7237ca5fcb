//! What the virtual GPU forecast of cases on a real one, beside what was measured.
//!
//! What `lowmem plan` predicts from shapes is something else: `predicted_peak_allocated_bytes` of a stage.

use engine_protocol::{Outcome, RunRecord};

use crate::run::Run;
use crate::words::{in_gib, time};

/// Titles of the table's columns.
pub(crate) const TITLES: [&str; 7] =
    ["case", "forecast peak device GiB", "measured GiB", "off by", "forecast total", "measured total", "off by"];

/// What stands under the table.
pub(crate) const NOTE: &str = "The virtual GPU made the forecast before the cases ran: it counts memory and estimates times from the GPU's profile. `lowmem calibrate` measures what \
     this GPU reaches, for closer estimates.";

/// A row for each case that ran to its end and had a forecast.
pub(crate) fn rows(run: &Run) -> Vec<[String; 7]> {
    run.records.iter().filter_map(row).collect()
}

fn row(record: &RunRecord) -> Option<[String; 7]> {
    let forecast = record.forecast.filter(|_| record.outcome == Outcome::Ok)?;
    let (peak, secs) = (record.peak_device_bytes(), record.total_secs().map(|secs| secs.expected));
    let (forecast_peak, forecast_secs) = (forecast.peak_device_bytes, forecast.total_secs.map(|secs| secs.expected));
    let as_number = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
    let off =
        |forecast: Option<f64>, measured| forecast.zip(measured).map(|(forecast, measured)| off_by(forecast, measured)).unwrap_or_default();
    let seconds = |secs: Option<f64>| secs.map(time).unwrap_or_default();
    Some([
        record.case.clone(),
        in_gib(forecast_peak),
        in_gib(peak),
        off(as_number(forecast_peak), as_number(peak)),
        seconds(forecast_secs),
        seconds(secs),
        off(forecast_secs, secs),
    ])
}

/// How far what was said before is from what came.
pub(crate) fn off_by(before: f64, came: f64) -> String {
    let percent = (before / came - 1.0) * 100.0;
    if percent.is_finite() { format!("{percent:+.1}%") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use engine_protocol::{Forecast, GIB, Secs, StageTime};

    #[test]
    fn a_forecast_stands_beside_what_came_of_it() {
        let mut record = samples::ok("level1", 1, 10);
        record.forecast =
            Some(Forecast { peak_device_bytes: Some(9 * GIB), total_secs: Some(Secs { low: 20.0, expected: 33.0, high: 40.0 }) });
        for stage in &mut record.stages {
            stage.time = Some(StageTime { secs: Secs::measured(10.0), copy_stall: None, exchange: None, waiting: None, work: None });
        }
        record.config.steps_measured = None;
        let run = samples::run(vec![record, samples::ok("level2", 2, 9), samples::oom("level0", 0, 20)]);
        assert_eq!(rows(&run), [["level1", "9.00", "10.00", "-10.0%", "33.0 s", "30.0 s", "+10.0%"].map(String::from)]);
    }
}
