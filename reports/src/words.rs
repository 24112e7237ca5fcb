//! Figures as people say them: times in s, min and h, memory in GiB. Files for programs (`results.csv`, JSON) have seconds and bytes instead.

use engine_protocol::{Secs, gib};

/// What the CUDA context is, after a figure that holds it or does not.
pub const CONTEXT: &str = "the CUDA context (what the driver and its libraries take for themselves)";

/// What the counters of GPU memory are.
pub fn counters() -> String {
    format!(
        "Allocated: what tensors hold. Reserved: what PyTorch's allocator has taken from the GPU for them. Device: reserved and {CONTEXT}."
    )
}

/// A time as people say it: `12.3 ms`, `1.23 s`, `45.7 s`, `20 min 20 s`, `2 h 12 min`.
pub fn time(secs: f64) -> String {
    match Parts::of(secs) {
        Parts::Milliseconds(ms) => format!("{ms} ms"),
        Parts::Seconds(secs) => format!("{secs} s"),
        Parts::Minutes(min, 0) => format!("{min} min"),
        Parts::Minutes(min, secs) => format!("{min} min {secs} s"),
        Parts::Hours(hours, 0) => format!("{hours} h"),
        Parts::Hours(hours, min) => format!("{hours} h {min} min"),
    }
}

/// A time, and of one that is an estimate the lowest and the highest that it may be: `2 h 12 min (1 h 58 to 2 h 36)`.
pub fn time_with_range(secs: Secs) -> String {
    let expected = time(secs.expected);
    if !secs.is_interval() {
        return expected;
    }
    let is_in_seconds = |secs| matches!(Parts::of(secs), Parts::Seconds(_));
    let all_in_seconds = [secs.low, secs.expected, secs.high].into_iter().all(is_in_seconds);
    // The last unit can be told from the one before it, or from the time outside the brackets.
    let end = |secs: f64| match Parts::of(secs) {
        Parts::Seconds(secs) if all_in_seconds => secs,
        Parts::Minutes(min, secs) if secs > 0 => format!("{min} min {secs}"),
        Parts::Hours(hours, min) if min > 0 => format!("{hours} h {min}"),
        _ => time(secs),
    };
    format!("{expected} ({} to {})", end(secs.low), end(secs.high))
}

/// A time that is only roughly known, such as what is left: `40 s`, `4 min`, `1 h 30 min`.
pub fn rough_time(secs: f64) -> String {
    let (secs, min) = (secs.round() as u64, (secs / 60.0).round());
    if secs < 100 { format!("{secs} s") } else { time(min * 60.0) }
}

/// A time in the units that people use for one of its length.
enum Parts {
    /// Below a tenth of a second.
    Milliseconds(String),
    /// Below a minute, with three digits.
    Seconds(String),
    /// Minutes and seconds.
    Minutes(u64, u64),
    /// Hours and minutes.
    Hours(u64, u64),
}

impl Parts {
    fn of(secs: f64) -> Self {
        let (whole, minutes) = (secs.round() as u64, (secs / 60.0).round() as u64);
        match secs {
            0.0 => Self::Seconds("0".into()),
            ..0.0995 => Self::Milliseconds(format!("{:.1}", secs * 1e3)),
            ..9.995 => Self::Seconds(format!("{secs:.2}")),
            ..59.95 => Self::Seconds(format!("{secs:.1}")),
            ..3599.5 => Self::Minutes(whole / 60, whole % 60),
            _ => Self::Hours(minutes / 60, minutes % 60),
        }
    }
}

/// Bytes as GiB with two decimals, without the unit; empty where they are not known.
pub fn in_gib(bytes: Option<u64>) -> String {
    bytes.map(|bytes| format!("{:.2}", gib(bytes))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_the_units_of_its_length() {
        for (secs, said) in [
            (0.0, "0 s"),
            (0.000_04, "0.0 ms"),
            (0.0123, "12.3 ms"),
            (1.234, "1.23 s"),
            (9.996, "10.0 s"),
            (45.67, "45.7 s"),
            (59.96, "1 min"),
            (61.2, "1 min 1 s"),
            (1220.4, "20 min 20 s"),
            (3599.6, "1 h"),
            (7920.0, "2 h 12 min"),
            (108_300.0, "30 h 5 min"),
        ] {
            assert_eq!(time(secs), said);
        }
    }

    #[test]
    fn an_estimate_has_its_ends_and_a_measured_time_has_none() {
        assert_eq!(time_with_range(Secs::measured(1.234)), "1.23 s");
        for (low, expected, high, said) in [
            (7071.0, 7920.0, 9332.0, "2 h 12 min (1 h 58 to 2 h 36)"),
            (1125.0, 1220.0, 1398.0, "20 min 20 s (18 min 45 to 23 min 18)"),
            (9.996, 45.67, 52.0, "45.7 s (10.0 to 52.0)"),
            (0.011, 0.0123, 0.12, "12.3 ms (11.0 ms to 0.12 s)"),
            (51.0, 58.0, 72.0, "58.0 s (51.0 s to 1 min 12)"),
            (3300.0, 3600.0, 7200.0, "1 h (55 min to 2 h)"),
        ] {
            assert_eq!(time_with_range(Secs { low, expected, high }), said);
        }
    }

    #[test]
    fn a_rough_time_has_no_small_units() {
        assert_eq!([0.4, 40.0, 99.4, 240.0, 5400.0].map(rough_time), ["0 s", "40 s", "99 s", "4 min", "1 h 30 min"]);
    }
}
