//! What was predicted of the cases that are told of, beside what came.

use engine_protocol::{Outcome, RunRecord};

use super::figure::Figure;
use crate::forecast::off_by;
use crate::verdict::total_secs;

/// A figure of a case: predicted, as it came, and by how much the one is off.
pub(super) struct BesideRow<'a> {
    pub case: &'a str,
    pub what: &'static str,
    pub predicted: Figure,
    pub came: Figure,
    pub off: String,
}

/// The rows of these cases: those that ran to their end and have both figures.
pub(super) fn rows<'a>(records: &[&'a RunRecord]) -> Vec<BesideRow<'a>> {
    records.iter().filter(|record| record.outcome == Outcome::Ok).flat_map(|record| of(record)).collect()
}

fn of(record: &RunRecord) -> Vec<BesideRow<'_>> {
    let (forecast, host, planned) = (record.forecast, record.host(), record.predicted_host());
    let bytes = |what, [predicted, came]: [(&'static str, Option<u64>); 2]| {
        let off = predicted.1.zip(came.1).map(|(predicted, came)| off_by(predicted as f64, came as f64))?;
        Some(BesideRow {
            case: &record.case,
            what,
            predicted: Figure::gib(predicted.0, predicted.1),
            came: Figure::gib(came.0, came.1),
            off,
        })
    };
    let forecast_secs = forecast.and_then(|forecast| forecast.total_secs).map(|secs| secs.expected);
    let secs = total_secs(record).map(|secs| secs.expected);
    let time = forecast_secs.zip(secs).map(|(predicted, came)| BesideRow {
        case: &record.case,
        what: "time",
        predicted: Figure::time("predicted_total_secs", Some(predicted)),
        came: Figure::time("total_secs", Some(came)),
        off: off_by(predicted, came),
    });
    [
        bytes(
            "peak allocated GiB",
            [
                ("predicted_peak_allocated_bytes", record.predicted_peak_allocated_bytes()),
                ("peak_allocated_bytes", record.peak_allocated_bytes()),
            ],
        ),
        bytes(
            "peak device GiB",
            [
                ("predicted_peak_device_bytes", forecast.and_then(|forecast| forecast.peak_device_bytes)),
                ("peak_device_bytes", record.peak_device_bytes()),
            ],
        ),
        bytes(
            "RAM GiB",
            [
                ("predicted_host_peak_bytes", planned.and_then(|host| host.peak_bytes)),
                ("host_peak_bytes", host.and_then(|host| host.peak_bytes)),
            ],
        ),
        bytes(
            "page-locked GiB",
            [
                ("predicted_host_pinned_peak_bytes", planned.map(|host| host.pinned_peak_bytes).filter(|bytes| *bytes > 0)),
                ("host_pinned_peak_bytes", record.host_pinned_peak_bytes.filter(|bytes| *bytes > 0)),
            ],
        ),
        time,
    ]
    .into_iter()
    .flatten()
    .collect()
}
