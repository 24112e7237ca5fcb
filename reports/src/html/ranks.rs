//! What each rank of a case on several GPUs came to.

use engine_protocol::{RankRecord, RunRecord, Secs};

use crate::words::{in_gib, time};

pub(super) const TITLES: [&str; 8] = [
    "case",
    "GPU",
    "peak allocated GiB",
    "peak reserved GiB",
    "peak device GiB",
    "sampler steps that ran",
    "of them exchange with others",
    "of them waiting for others",
];

/// A row for each rank of these cases; none of those on one GPU.
pub(super) fn rows(records: &[&RunRecord]) -> Vec<Vec<String>> {
    let secs = |secs: Option<Secs>| secs.map(|secs| time(secs.expected)).unwrap_or_default();
    let row = |record: &RunRecord, (number, rank): (usize, &RankRecord)| {
        let peaks = [rank.peak_allocated_bytes, rank.peak_reserved_bytes, rank.peak_device_bytes].map(in_gib);
        let times = [rank.denoise_secs, rank.exchange_secs, rank.waiting_secs].map(secs);
        let gpu = rank.gpu.as_ref().map_or_else(|| number.to_string(), |gpu| format!("{number}: {gpu}"));
        [record.case.clone(), gpu].into_iter().chain(peaks).chain(times).collect()
    };
    records.iter().flat_map(|record| record.ranks.iter().enumerate().map(move |rank| row(record, rank))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn each_rank_has_a_row() {
        let rank = |gib: u64| RankRecord {
            gpu: (gib == 3).then(|| "rtx-3090".into()),
            capacity_bytes: None,
            peak_allocated_bytes: Some(gib << 30),
            peak_reserved_bytes: None,
            peak_device_bytes: Some((gib + 1) << 30),
            denoise_secs: Some(Secs::measured(10.0)),
            exchange_secs: Some(Secs::measured(2.0)),
            waiting_secs: Some(Secs::measured(1.0)),
        };
        let two = RunRecord { ranks: vec![rank(4), rank(3)], ..samples::ok("two", 3, 4) };
        let rows = rows(&[&samples::ok("one", 3, 4), &two]);
        assert_eq!(
            rows.iter().map(|row| row.join("|")).collect::<Vec<_>>(),
            ["two|0|4.00||5.00|10.0 s|2.00 s|1.00 s", "two|1: rtx-3090|3.00||4.00|10.0 s|2.00 s|1.00 s"]
        );
    }
}
