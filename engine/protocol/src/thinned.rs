//! What goes on for long, in so few moments that there is room for them.
//!
//! Note: thinning.
//! How long something will be is not known while it goes on. So its moments are put into parts of equal length, of which each keeps its highest and its lowest one. Where
//! there are too many parts, each two become one of twice the length. The highest of the highest ones is that of all, so the peak is never lost.

/// A moment: how high it was, and whatever else is to be known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment<S> {
    /// After how many others it was.
    pub at: u64,
    /// By this, moments are higher and lower.
    pub allocated: u64,
    /// Of a highest moment, the most that was reserved in its part.
    pub reserved: u64,
    /// What else is known of it.
    pub state: S,
}

/// Moments in order, at most two for each of so many parts.
#[derive(Debug, Clone)]
pub struct Thinned<S> {
    /// Of each part the highest and the lowest moment.
    parts: Vec<[Moment<S>; 2]>,
    most: usize,
    /// Moments in each part.
    length: u64,
    seen: u64,
}

impl<S: Clone> Thinned<S> {
    /// None yet, of no more than so many parts.
    pub const fn new(most: usize) -> Self {
        Self { parts: Vec::new(), most, length: 1, seen: 0 }
    }

    /// The next moment. Of moments that are equally high, the first is kept.
    pub fn see(&mut self, allocated: u64, reserved: u64, state: &S) {
        let at = self.seen;
        self.seen += 1;
        if at / self.length >= self.most as u64 {
            self.length *= 2;
            let pairs = self.parts.chunks(2);
            self.parts = pairs.filter_map(|pair| pair.iter().cloned().reduce(one_of)).collect();
        }
        let moment = || Moment { at, allocated, reserved, state: state.clone() };
        match self.parts.get_mut((at / self.length) as usize) {
            None => self.parts.push([moment(), moment()]),
            Some([high, low]) => {
                let most_reserved = high.reserved.max(reserved);
                if allocated > high.allocated {
                    *high = moment();
                } else if allocated < low.allocated {
                    *low = moment();
                }
                high.reserved = most_reserved;
            }
        }
    }

    /// How many moments there were.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Those that are kept, in order.
    pub fn moments(&self) -> impl Iterator<Item = &Moment<S>> {
        self.parts.iter().flat_map(|[high, low]| {
            let (first, second) = if high.at <= low.at { (high, low) } else { (low, high) };
            [Some(first), Some(second).filter(|second| second.at > first.at)].into_iter().flatten()
        })
    }

    /// Those that are kept, the last ones first, each part's two together.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut [Moment<S>; 2]> {
        self.parts.iter_mut().rev()
    }
}

/// Of two parts one, the later one behind.
fn one_of<S>([high, low]: [Moment<S>; 2], [later_high, later_low]: [Moment<S>; 2]) -> [Moment<S>; 2] {
    let reserved = high.reserved.max(later_high.reserved);
    let mut high = if later_high.allocated > high.allocated { later_high } else { high };
    high.reserved = reserved;
    [high, if later_low.allocated < low.allocated { later_low } else { low }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_little_and_has_the_highest_and_the_lowest_moment() {
        for length in (1..400).chain([10_000]) {
            // Some order without one.
            let there: Vec<u64> = (1..=length).map(|at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44).collect();
            let mut thinned = Thinned::new(32);
            there.iter().for_each(|&bytes| thinned.see(bytes, 2 * bytes, &bytes));
            assert_eq!(thinned.seen(), length);
            let kept: Vec<_> = thinned.moments().collect();
            assert!(kept.len() <= 64 && kept.is_sorted_by(|one, other| one.at < other.at), "{kept:?}");
            assert!(kept.iter().all(|moment| there[moment.at as usize] == moment.allocated && moment.state == moment.allocated));
            let [low, high] = [there.iter().min(), there.iter().max()];
            assert_eq!([kept.iter().map(|moment| &moment.allocated).min(), kept.iter().map(|moment| &moment.allocated).max()], [low, high]);
            assert_eq!(kept.iter().map(|moment| moment.reserved).max(), high.map(|high| 2 * high));
        }
    }
}
