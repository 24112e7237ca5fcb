//! MeanCache: which steps do without the transformer, and over how many computed steps back the mean of their velocity is taken (see `velocity`).
//!
//! Note: the tables are those of thu-pacman/ChituDiffusion@f836afa (`meancache.py`), three of the four from UnicomAI/MeanCache@a4f9a38, which found them for Qwen-Image with 50 steps. Of other
//! numbers of steps each goes by the one of 50 that stands at the same share of the way.

use std::ops::Range;

/// Steps that tables are of.
const STEPS: usize = 50;
/// How many of them are computed, where nobody says: Chitu's `fresh_steps`.
pub(super) const FRESH_STEPS: u32 = 25;

/// Steps that are left out, and over how many computed steps back the mean is taken there.
type Gap = (Range<usize>, usize);

/// How many steps of 50 are computed, and the gaps between those.
const TABLES: [(u32, &[Gap]); 4] = [
    (30, &[(20..24, 1), (25..28, 1), (29..32, 1), (33..36, 1), (37..40, 1), (41..43, 5), (44..45, 5), (46..47, 5)]),
    (25, &[(17..24, 1), (25..32, 1), (33..40, 1), (41..43, 5), (44..45, 5), (46..47, 5)]),
    (17, &[(9..10, 2), (11..17, 1), (18..24, 1), (25..31, 1), (32..38, 1), (39..45, 1), (46..48, 4)]),
    (10, &[(2..3, 2), (4..7, 1), (8..14, 1), (15..21, 1), (22..28, 1), (29..35, 1), (36..42, 1), (43..49, 4)]),
];

/// Computed steps that are remembered: the most that a table goes back.
pub(super) const REMEMBERED: usize = 5;

/// Over how many computed steps back the mean is taken for `step` of `all`, where so many of 50 are computed; nothing where the transformer predicts.
pub(super) fn order(fresh_steps: u32, step: usize, all: usize) -> Option<usize> {
    let (_, gaps) = TABLES.iter().find(|(fresh, _)| *fresh == fresh_steps).expect("a configuration has these alone");
    let last = (all - 1).max(1);
    // The nearest.
    let place = (step * (STEPS - 1) * 2 + last) / (2 * last);
    gaps.iter().find(|(gap, _)| gap.contains(&place)).map(|&(_, order)| order)
}

#[cfg(test)]
mod tests {
    use engine_protocol::FRESH_STEPS_OF_50;

    use super::*;

    #[test]
    fn tables_compute_as_many_steps_as_they_are_named_for() {
        assert_eq!(TABLES.map(|(fresh, _)| fresh), FRESH_STEPS_OF_50);
        for (fresh, gaps) in TABLES {
            let orders: Vec<_> = (0..STEPS).map(|step| order(fresh, step, STEPS)).collect();
            assert_eq!(orders.iter().filter(|order| order.is_none()).count(), fresh as usize);
            assert_eq!((orders[0], orders[STEPS - 1]), (None, None), "both ends are computed");
            assert!(gaps.iter().all(|&(_, order)| order <= REMEMBERED));
        }
    }

    #[test]
    fn other_numbers_of_steps_go_by_their_share_of_the_way() {
        let computed = |all: usize| (0..all).filter(|&step| order(10, step, all).is_none()).collect::<Vec<_>>();
        assert_eq!(computed(50), [0, 1, 3, 7, 14, 21, 28, 35, 42, 49]);
        assert_eq!(computed(99).len(), 19, "each of them twice, but for the first");
        assert_eq!((computed(8), computed(1)), ((0..8).collect(), vec![0]), "where each is one that is computed");
    }
}
