//! MagCache: a step reuses while what the blocks add has, by published ratios, changed little.
//!
//! The ratios and the rule are those of Zehong-Ma/MagCache@df81cb1 (Apache-2.0), which has them for Wan2.1 and Wan2.2.

use std::ops::Range;

use engine_protocol::Published;

/// For each model and pass of guidance, how much larger what the blocks add is than a step before.
const RATIOS: &str = include_str!("magcache-ratios.csv");

/// The published defaults.
#[derive(Debug)]
pub(super) struct Defaults {
    /// The most error that steps add up to.
    pub(super) threshold: f64,
    /// The share of a transformer's steps at the start that is computed.
    pub(super) retention: f64,
}

impl Defaults {
    pub(super) fn of(model: Published) -> Self {
        match model {
            Published::T2v1_3b | Published::T2v14b => Self { threshold: 0.12, retention: 0.2 },
            Published::T2vA14b => Self { threshold: 0.06, retention: 0.4 },
            Published::Ti2v5b => Self { threshold: 0.06, retention: 0.2 },
        }
    }
}

/// Ratios of cond and uncond, one a step of `steps`. A list for another number of steps gives the nearest of its own.
pub(super) fn ratios(model: Published, steps: usize) -> [Vec<f64>; 2] {
    let name = match model {
        Published::T2v1_3b => "t2v-1.3b",
        Published::T2v14b => "t2v-14b",
        Published::T2vA14b => "t2v-a14b",
        Published::Ti2v5b => "ti2v-5b",
    };
    ["cond", "uncond"].map(|branch| {
        let line = RATIOS.lines().find(|line| line.starts_with(&format!("{name},{branch},"))).expect("a line for each model and branch");
        let numbers = line.rsplit(',').next().unwrap_or_default().split(' ').map(|number| number.parse().expect("a number"));
        // Of the first step there is none before it.
        let all: Vec<f64> = [1.0].into_iter().chain(numbers).collect();
        let scale = (all.len() - 1) as f64 / (steps.max(2) - 1) as f64;
        (0..steps).map(|step| all[((step as f64 * scale).round_ties_even() as usize).min(all.len() - 1)]).collect()
    })
}

/// Which of the steps in `range` reuse: while for each of `ratios` the product since the last computed step strays from 1 by less than `threshold` in sum, and for
/// fewer than `interval` steps.
pub(super) fn reuse(ratios: &[Vec<f64>], range: Range<usize>, threshold: f64, interval: usize) -> Vec<usize> {
    let mut reused = Vec::new();
    let mut branches = vec![(1.0, 0.0); ratios.len()];
    let mut skipped = 0;
    for step in range {
        skipped += 1;
        for ((product, error), ratios) in branches.iter_mut().zip(ratios) {
            *product *= ratios[step];
            *error += (1.0_f64 - *product).abs();
        }
        if skipped < interval && branches.iter().all(|(_, error)| *error < threshold) {
            reused.push(step);
        } else {
            branches.fill((1.0, 0.0));
            skipped = 0;
        }
    }
    reused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_there_for_every_model_and_any_number_of_steps() {
        for model in [Published::T2v1_3b, Published::T2v14b, Published::T2vA14b, Published::Ti2v5b] {
            for steps in [1, 4, 30, 50, 100] {
                for ratios in ratios(model, steps) {
                    assert_eq!((ratios.len(), ratios[0]), (steps, 1.0));
                    assert!(ratios.iter().all(|ratio| (0.2..2.0).contains(ratio)), "{model:?}: {ratios:?}");
                }
            }
        }
        // At as many steps as it was published for, each is its own.
        assert_eq!(ratios(Published::T2v14b, 50)[1][..3], [1.0, 1.03017, 1.00251]);
    }

    #[test]
    fn a_step_is_computed_when_the_error_adds_up_or_enough_are_left_out() {
        let flat = vec![vec![1.0; 10]];
        assert_eq!(reuse(&flat, 2..10, 0.1, 3), [2, 3, 5, 6, 8, 9]);
        // 0.9: errors 0.1, then 0.1 + 0.19.
        let falling = vec![vec![0.9; 10]];
        assert_eq!(reuse(&falling, 0..6, 0.2, 9), [0, 2, 4]);
        assert_eq!(reuse(&falling, 0..6, 0.3, 9), [0, 1, 3, 4]);
        assert_eq!(reuse(&[flat[0].clone(), falling[0].clone()], 0..6, 0.2, 9), [0, 2, 4], "both passes of guidance must allow it");
        assert!(reuse(&flat, 0..6, 0.0, 9).is_empty());
    }
}
