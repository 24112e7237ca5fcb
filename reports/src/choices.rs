//! Three answers of one video's cases: the fastest, the smallest, and what lies between.

use engine_protocol::RunRecord;

/// What is balanced is at most so much slower than the fastest.
pub const LOSS: f64 = 0.1;

/// The three answers; none where no case fits, and of the balanced one where times are not known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Choices<'a> {
    /// The first by rank.
    pub fastest: Option<&'a RunRecord>,
    /// The least GPU memory of those at most [`LOSS`] slower than the fastest.
    pub balanced: Option<&'a RunRecord>,
    /// The least GPU memory.
    pub smallest: Option<&'a RunRecord>,
}

/// The answers of cases that fit, the best first.
pub fn choices<'a>(ranked: &[&'a RunRecord]) -> Choices<'a> {
    let fastest = ranked.first().copied();
    // Sorting by rank is done: the first of equals is the faster.
    let least = |of: &mut dyn Iterator<Item = &'a RunRecord>| of.min_by_key(|record| record.peak_device_bytes());
    let balanced = fastest.and_then(RunRecord::total_secs).and_then(|best| {
        let is_near = |record: &&RunRecord| record.total_secs().is_some_and(|secs| secs.expected <= best.expected * (1.0 + LOSS));
        least(&mut ranked.iter().copied().filter(is_near))
    });
    Choices { fastest, balanced, smallest: least(&mut ranked.iter().copied()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::verdict::ranked;

    #[test]
    fn balanced_is_the_smallest_that_is_nearly_as_fast() {
        let case = |name: &str, level: u8, peak: u64, secs: f64| {
            let mut record = samples::ok(name, level, peak);
            for stage in &mut record.stages {
                let secs = engine_protocol::Secs::measured(secs);
                stage.time = Some(engine_protocol::StageTime { secs, copy_stall: None, exchange: None, waiting: None, work: None });
            }
            record
        };
        let records = [case("fast", 0, 20, 100.0), case("near", 2, 8, 109.0), case("nearer", 1, 12, 105.0), case("small", 3, 3, 130.0)];
        let found = choices(&ranked(records.iter(), false));
        let names = [found.fastest, found.balanced, found.smallest].map(|record| record.map(|record| record.case.as_str()));
        assert_eq!(names, [Some("fast"), Some("near"), Some("small")]);
        let untimed = samples::ok("untimed", 1, 5);
        assert_eq!(choices(&[&untimed]).balanced, None);
        assert_eq!(choices(&[]), Choices::default());
    }
}
