//! How the parts of a sequence, and with Ulysses the heads, are shared out among ranks: evenly, or as they are said to be.
//!
//! Note: units.
//! The sequence is in units of equal length, of which each part has some that follow each other: one where parts are alike, else as many as its share says. So slices of parts that are to go in step
//! are as many units' slices on each rank: as many slices everywhere, and each as long as the share. Heads go by the shares of all that have the same place in their groups, so that those
//! who pass keys on have the same heads; by whole heads, and where parts are alike as many each.

use std::sync::Arc;

use engine_protocol::Config;

/// The parts' shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// Units of each part.
    units: Arc<[i64]>,
    /// Ranks that exchange heads.
    ulysses: usize,
}

/// What one part has of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Parts of the sequence.
    pub parts: i64,
    /// Units of the sequence.
    pub units: i64,
    /// Those before this part's.
    pub first: i64,
    /// Its own.
    pub own: i64,
    /// The most that any part has.
    pub largest: i64,
    /// Those of all that exchange heads with it.
    pub exchanged: i64,
    /// The most of any that exchange heads, among those that pass keys on; and the most of two whose keys it has at once, as one goes and the next comes.
    pub passed: [i64; 2],
    /// Those whose keys it passes on: all but the next ones'.
    pub passed_on: i64,
    /// By which its heads go: the shares of those at places before its own, and of those at its own.
    heads: [i64; 2],
}

impl Shares {
    /// As many parts of one length, of which so many exchange heads.
    pub fn even(parts: usize, ulysses: usize) -> Self {
        Self { units: vec![1; parts].into(), ulysses }
    }

    /// Parts of so many units.
    pub fn new(units: &[u32], ulysses: usize) -> Self {
        Self { units: units.iter().map(|&units| units.into()).collect(), ulysses }
    }

    /// Those that `config` means.
    pub fn of(config: &Config) -> Self {
        let (split, ulysses) = (config.split(), config.split().cp_ulysses as usize);
        config
            .cp_split
            .as_ref()
            .and_then(|split| split.shares())
            .map_or_else(|| Self::even(split.cp_size() as usize, ulysses), |shares| Self::new(shares, ulysses))
    }

    /// What that part has.
    pub fn part(&self, part: usize) -> Part {
        let sum = |parts: &[i64]| parts.iter().sum::<i64>();
        let place = |place: usize| self.units.iter().skip(place).step_by(self.ulysses).sum::<i64>();
        let (group, own_place) = (part / self.ulysses, part % self.ulysses);
        let groups: Vec<i64> = self.units.chunks(self.ulysses).map(sum).collect();
        let next = |group: usize| groups[(group + 1) % groups.len()];
        // Those that come after its own, and the others in their turn; its own do not come back.
        let pairs = (0..groups.len()).filter(|&first| first != group).map(|first| groups[first] + next(first));
        Part {
            parts: self.units.len() as i64,
            units: sum(&self.units),
            first: sum(&self.units[..part]),
            own: self.units[part],
            largest: self.units.iter().copied().max().unwrap_or(1),
            exchanged: groups[group],
            passed: [groups.iter().copied().max().unwrap_or(1), pairs.max().unwrap_or(groups[group])],
            passed_on: sum(&self.units) - next(group),
            heads: [(0..own_place).map(place).sum(), place(own_place)],
        }
    }

    /// What each of those has that exchange heads with that part, in their order.
    pub fn exchanging(&self, part: usize) -> impl Iterator<Item = Part> + use<'_> {
        let first = part / self.ulysses * self.ulysses;
        (first..first + self.ulysses).map(|part| self.part(part))
    }
}

impl Part {
    /// All of a sequence.
    pub const WHOLE: Self =
        Self { parts: 1, units: 1, first: 0, own: 1, largest: 1, exchanged: 1, passed: [1, 1], passed_on: 0, heads: [0, 1] };

    /// How many of so many heads it has, where heads are exchanged.
    pub fn heads(self, all: i64) -> i64 {
        let [before, own] = self.heads;
        all * (before + own) / self.units - all * before / self.units
    }

    /// How many tokens it takes at a time where the part that has most takes so many: all are as many times.
    pub fn chunk(self, chunk: i64) -> i64 {
        (chunk / self.largest).max(1) * self.own
    }

    /// Of what is as long as its own part, as much of `other`.
    pub fn as_much(self, length: i64, other: Self) -> i64 {
        length / self.own * other.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_parts_are_alike() {
        let shares = Shares::even(6, 3);
        for part in 0..6 {
            let part_of = shares.part(part);
            assert_eq!((part_of.units, part_of.first, part_of.own, part_of.exchanged), (6, part as i64, 1, 3));
            assert_eq!((part_of.heads(12), part_of.chunk(7), part_of.as_much(5, part_of)), (4, 7, 5));
        }
        assert_eq!(Shares::even(1, 1).part(0), Part::WHOLE);
    }

    #[test]
    fn heads_are_those_of_a_place_and_whole() {
        // Two groups of two that exchange heads: 3 and 1 units, 2 and 2.
        let shares = Shares::new(&[3, 1, 2, 2], 2);
        let heads: Vec<i64> = (0..4).map(|part| shares.part(part).heads(12)).collect();
        assert_eq!(heads, [7, 5, 7, 5], "5 of 8, and 3 of 8");
        assert_eq!(shares.exchanging(3).map(|part| (part.first, part.own)).collect::<Vec<_>>(), [(4, 2), (6, 2)]);
        let first = shares.part(0);
        assert_eq!((first.exchanged, first.passed, first.passed_on, first.chunk(7)), (4, [4, 8], 4, 6));
        assert_eq!(shares.part(1).chunk(7), 2, "as many slices");
    }
}
