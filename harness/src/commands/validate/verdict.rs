//! What all rows come to: the worst error, the median, and which rows count for nothing.

use super::case::Case;
use super::program::Outcome;
use crate::exit_code::ExitCode;

/// What is known of the rows so far.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Errors of those that ran, without their sign.
    errors: Vec<f64>,
    /// What is to be said of single rows.
    notes: Vec<String>,
    skipped: usize,
    /// Rows that failed, or are off by more than their tolerance.
    wrong: usize,
}

impl Verdict {
    /// Takes a row into account.
    pub(super) fn add(&mut self, case: &Case, outcome: &Outcome) {
        let mut note = |text: String| self.notes.push(format!("Line {}: {text}.", case.line));
        match outcome {
            Outcome::Ran { peak_allocated_bytes, secs, expandable } => {
                let (error, tolerance) = match secs {
                    Some(secs) => (case.time_error_percent(*secs), case.time_tolerance_percent),
                    None => (case.peak_error_percent(*peak_allocated_bytes), case.tolerance_percent),
                };
                let Some(error) = error.map(f64::abs) else { return };
                if *expandable {
                    note("memory ran out in pieces that were too small, so it was run with PyTorch's expandable segments".into());
                }
                if error > tolerance {
                    note(format!("off by more than {tolerance}%"));
                    self.wrong += 1;
                }
                self.errors.push(error);
            }
            Outcome::Skipped(why) => {
                note(format!("skipped: {why}"));
                self.skipped += 1;
            }
            Outcome::Failed(why) => {
                note(format!("failed: {why}"));
                self.wrong += 1;
            }
        }
    }

    /// Says it.
    pub(super) fn say(&self) {
        self.notes.iter().for_each(|note| say!("{note}"));
        let counted = match self.worst_and_median() {
            Some((worst, median)) => format!("worst error {worst:.2}%, median {median:.2}%, of {} rows", self.errors.len()),
            None => "no row was checked".to_owned(),
        };
        say!("{counted}; {} skipped, {} failed or off by more than their tolerance.", self.skipped, self.wrong);
    }

    fn worst_and_median(&self) -> Option<(f64, f64)> {
        let mut errors = self.errors.clone();
        errors.sort_by(f64::total_cmp);
        let middle = errors.len() / 2;
        let median = if errors.len() % 2 == 1 {
            *errors.get(middle)?
        } else {
            f64::midpoint(*errors.get(middle.checked_sub(1)?)?, *errors.get(middle)?)
        };
        Some((*errors.last()?, median))
    }

    /// What the shell is told: rows that were not checked are no success.
    pub(super) fn exit_code(&self) -> ExitCode {
        match (self.wrong, self.errors.is_empty()) {
            (1.., _) => ExitCode::Fault,
            (0, true) => ExitCode::BadInput,
            (0, false) => ExitCode::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_and_median() {
        let of = |errors: &[f64]| Verdict { errors: errors.to_vec(), ..Verdict::default() }.worst_and_median();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[2.0]), Some((2.0, 2.0)));
        assert_eq!(of(&[2.0, 1.0]), Some((2.0, 1.5)));
        assert_eq!(of(&[1.0, 8.0, 2.0]), Some((8.0, 2.0)));
    }

    #[test]
    fn what_was_skipped_is_no_success() {
        let code = |errors: &[f64], skipped, wrong| Verdict { errors: errors.to_vec(), notes: Vec::new(), skipped, wrong }.exit_code();
        assert_eq!(code(&[1.0], 3, 0), ExitCode::Done);
        assert_eq!(code(&[1.0], 0, 1), ExitCode::Fault);
        assert_eq!(code(&[], 1, 1), ExitCode::Fault);
        assert_eq!(code(&[], 4, 0), ExitCode::BadInput);
    }
}
