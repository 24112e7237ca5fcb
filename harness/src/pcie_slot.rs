//! `--pcie`: a slot that is slower than the one that a GPU is made for, which is what many cards sit in.

use std::str::FromStr;

use engine_protocol::{Figure, Pcie};

/// What large pinned copies reach of what a link carries, by the rule that the profiles follow.
const LINK_SHARE: f64 = 0.8;

/// A PCI Express slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PcieSlot {
    generation: u32,
    lanes: u32,
}

impl FromStr for PcieSlot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let slot = text.split_once('x').and_then(|(generation, lanes)| {
            let (generation, lanes) = (generation.parse().ok()?, lanes.parse().ok()?);
            ((1..=5).contains(&generation) && [1, 2, 4, 8, 16].contains(&lanes)).then_some(Self { generation, lanes })
        });
        slot.ok_or_else(|| "use generation 1 to 5 and 1, 2, 4, 8 or 16 lanes, such as 3x8".to_owned())
    }
}

impl PcieSlot {
    /// The link of a GPU in this slot: the lesser of both, of each.
    pub(crate) fn link(self, own: &Pcie) -> Pcie {
        let (generation, lanes) = (self.generation.min(own.generation.value), self.lanes.min(own.lanes.value));
        // Of a lane, what is left of its transfers after coding: 8 of 10 bits in the first two generations, 128 of 130 later.
        let lane_bytes_per_sec = match generation {
            1 => 2.5e9 * 0.8 / 8.0,
            2 => 5e9 * 0.8 / 8.0,
            later => 8e9 * f64::from(1 << (later - 3)) * (128.0 / 130.0) / 8.0,
        };
        let source = "--pcie";
        Pcie {
            generation: Figure { value: generation, source: source.into() },
            lanes: Figure { value: lanes, source: source.into() },
            pinned_bytes_per_sec: Figure {
                value: LINK_SHARE * lane_bytes_per_sec * f64::from(lanes),
                source: format!("{source}; rule: 80% of what the link carries"),
            },
            pageable_bytes_per_sec: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(generation: u32, lanes: u32) -> Pcie {
        fn figure<T>(value: T) -> Figure<T> {
            Figure { value, source: String::new() }
        }
        Pcie { generation: figure(generation), lanes: figure(lanes), pinned_bytes_per_sec: figure(1.0), pageable_bytes_per_sec: None }
    }

    #[test]
    fn the_lesser_of_slot_and_card_decides() {
        let link = |slot: &str, card: Pcie| slot.parse::<PcieSlot>().expect("a slot").link(&card);
        // 8e9 transfers a second of a lane, 128 of 130 bits, 8 bits a byte, 8 lanes; 80% of it.
        let slow = link("3x8", own(4, 16));
        assert_eq!((slow.generation.value, slow.lanes.value), (3, 8));
        assert!((slow.pinned_bytes_per_sec.value - 6.301e9).abs() < 1e6, "{slow:?}");
        let wide = link("5x16", own(4, 8));
        assert_eq!((wide.generation.value, wide.lanes.value), (4, 8));
        for text in ["3", "3x5", "x8", "6x16", "3x8x"] {
            assert!(text.parse::<PcieSlot>().is_err(), "{text}");
        }
    }
}
