//! What a rank lets others see of itself while it works: a line in a file of the folder in which ranks meet, written over each time it goes on.

use std::path::{Path, PathBuf};

/// How far a rank is. The thread that does its work says so, as it works: nobody says it for one that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signs {
    /// Its process.
    pub process: u32,
    /// When that began, as the kernel counts it: numbers of processes are used again, and are others in another container.
    pub began: u64,
    /// How often it went on: by a group of weights, a part of a stage, an exchange.
    pub beats: u64,
    /// How often others were there for what it waited for. Ranks count alike.
    pub met: u64,
    /// The longest that it took to go on in the sampler's steps that it has done, in milliseconds; 0 before the first of them is done.
    pub pace: u64,
    /// Whether it waits for other ranks.
    pub waits: bool,
}

impl Signs {
    /// Where that rank's are.
    pub fn place(meeting: &Path, rank: u32) -> PathBuf {
        meeting.join(format!("signs-{rank}"))
    }

    /// As they are written. All lines are of one length.
    pub fn to_line(self) -> String {
        let Self { process, began, beats, met, pace, waits } = self;
        format!("{process:>10} {began:>20} {beats:>20} {met:>20} {pace:>20} {}\n", u8::from(waits))
    }

    /// As they were written; nothing where that is no such line.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut next = || words.next()?.parse::<u64>().ok();
        let process = next()?.try_into().ok()?;
        let signs = Self { process, began: next()?, beats: next()?, met: next()?, pace: next()?, waits: next()? != 0 };
        words.next().is_none().then_some(signs)
    }

    /// When a process began, from what `/proc/PID/stat` says of it.
    pub fn began(stat: &str) -> Option<u64> {
        // Its name, in brackets, may have anything in it. After that comes the third value, and the 22nd is wanted.
        stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_of_one_length_and_are_read_again() {
        let few = Signs { process: 7, began: 1, beats: 0, met: 2, pace: 3, waits: false };
        let many = Signs { process: u32::MAX, began: u64::MAX, beats: u64::MAX, met: u64::MAX, pace: u64::MAX, waits: true };
        assert_eq!(few.to_line().len(), many.to_line().len());
        assert_eq!([few, many].map(|signs| Signs::from_line(&signs.to_line())), [Some(few), Some(many)]);
        for wrong in ["", "7 1 0 2 3", "7 1 0 2 3 0 9", "7 1 x 2 3 0"] {
            assert_eq!(Signs::from_line(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_process_may_have_any_name() {
        let rest = "S 1 4 4 0 -1 4194560 120 0 0 0 3 1 0 0 20 0 1 0 8171 2150400 500";
        assert_eq!(Signs::began(&format!("4 (a) S (b) {rest}")), Some(8171));
        assert_eq!(Signs::began("4 (a"), None);
    }
}
