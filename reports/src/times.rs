//! Times in words.

use engine_protocol::Secs;

/// A time as people read it: `31.2 s`, and of a modelled one between what it may be, `31.2 s (27.0 to 38.9)`.
pub fn secs_in_words(secs: Secs) -> String {
    let [low, expected, high] = [secs.low, secs.expected, secs.high].map(shown_secs);
    if secs.is_interval() { format!("{expected} s ({low} to {high})") } else { format!("{expected} s") }
}

/// Seconds with three digits, and whole ones from a hundred on.
pub fn shown_secs(secs: f64) -> String {
    let decimals = match secs {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{secs:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_digits_and_its_ends_where_it_has_any() {
        assert_eq!(secs_in_words(Secs::measured(1.234)), "1.23 s");
        assert_eq!(secs_in_words(Secs { low: 9.996, expected: 45.67, high: 1234.5 }), "45.7 s (10.00 to 1234)");
    }
}
