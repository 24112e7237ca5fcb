//! Which of several ranks hangs, where one does: by what each says of itself as it works (see [`Signs`]), and by what the kernel sees its process do.
//!
//! Note: what counts as a hang.
//! 1. A rank does nothing: it takes no processor time, waits for no disk, does not say that it goes on, nor that it waits for others; or it was stopped from outside. A rank that loads,
//!    encodes or decodes for minutes does something. That is looked for all the time, whatever the others do.
//! 2. All others wait for it, and it takes processor time or waits for a disk without going on: [`SLOW`] times as long, since one operation may take long, and a disk a network away may stand still.
//! 3. All wait for each other, as long. The one that met the others least often is behind.
//!
//! On a real GPU a host that waits for its device mostly spins, and with some drivers sleeps: so there who sleeps has as long as who computes, and a device that hangs is found by 2 alone. Whether a rank waits for others is seen where its host waits for the end of a
//! step. Where hosts wait elsewhere meanwhile, as for room in a ring of buffers, nobody is named, and the case's time limit is the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine_protocol::{Device, Signs};
use serde::{Deserialize, Serialize};

use crate::children::children_of;

/// So many times as long as one that does nothing has one that does something.
const SLOW: u32 = 12;
/// So often in that time it is looked.
const LOOKS: u32 = 20;

/// A rank that hangs, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hang {
    pub(super) rank: usize,
    pub(super) why: String,
}

/// Ranks that are looked after.
#[derive(Debug)]
pub(super) struct Standstill {
    meeting: PathBuf,
    limits: Limits,
    looked: Option<Instant>,
    ranks: Vec<Seen>,
}

/// How long a rank may do so.
#[derive(Debug, Clone, Copy)]
struct Limits {
    stopped: Duration,
    asleep: Duration,
    /// Without going on, while all others wait for it.
    slow: Duration,
}

/// One of them, as it was seen last.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    signs: Option<Signs>,
    life: Option<Life>,
    /// So long its process has done nothing.
    lifeless: Duration,
    /// So long it has not said that it goes on.
    beatless: Duration,
}

/// What the kernel says of a process and those that it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Life {
    /// By SIGSTOP or by a debugger.
    is_stopped: bool,
    /// A thread of it has a processor or would take one, or waits for a disk.
    runs: bool,
    /// Processor time, pages that it waited for, and bytes that it read and wrote: one number that changes as it does something.
    work: u64,
}

impl Standstill {
    /// Of so many ranks that meet there, on such devices. One that does nothing for `patience` hangs.
    pub(super) fn new(meeting: &Path, ranks: usize, device: Device, patience: Duration) -> Self {
        let slow = patience * SLOW;
        let limits = Limits { stopped: patience, asleep: if device == Device::Cuda { slow } else { patience }, slow };
        Self { meeting: meeting.to_owned(), limits, looked: None, ranks: vec![Seen::default(); ranks] }
    }

    /// The rank that hangs, of those that are `open`. It may be asked as often as one likes.
    pub(super) fn look(&mut self, is_open: impl Fn(usize) -> bool) -> Option<Hang> {
        let since = self.looked.map(|looked| looked.elapsed());
        if since.is_some_and(|since| since < self.limits.stopped / LOOKS) {
            return None;
        }
        self.looked = Some(Instant::now());
        // Where nobody looked for longer, this process itself was stopped, or had no processor.
        let passed = since.unwrap_or_default().min(self.limits.stopped / 4);
        let open: Vec<usize> = (0..self.ranks.len()).filter(|&rank| is_open(rank)).collect();
        for &rank in &open {
            let said = fs::read_to_string(Signs::place(&self.meeting, rank as u32)).ok();
            let signs = said.and_then(|line| Signs::from_line(&line));
            self.ranks[rank].take_in(signs, signs.as_ref().and_then(Life::of), passed);
        }
        let seen: Vec<(usize, Seen)> = open.into_iter().map(|rank| (rank, self.ranks[rank])).collect();
        hang(&seen, self.limits)
    }
}

impl Seen {
    fn take_in(&mut self, signs: Option<Signs>, life: Option<Life>, passed: Duration) {
        let goes_on = signs.map(|signs| signs.beats) != self.signs.map(|signs| signs.beats);
        // Of a process that cannot be looked at nothing is known.
        let lives = life.is_none_or(|life| life.runs || self.life.is_none_or(|before| before.work != life.work));
        let more = |time: Duration, is_over: bool| if is_over { Duration::ZERO } else { time + passed };
        (self.lifeless, self.beatless) = (more(self.lifeless, goes_on || lives), more(self.beatless, goes_on));
        (self.signs, self.life) = (signs, life);
    }

    fn waits(&self) -> bool {
        self.signs.is_some_and(|signs| signs.waits)
    }

    fn is_stopped(&self) -> bool {
        self.life.is_some_and(|life| life.is_stopped)
    }
}

/// Which of the ranks that are open hangs.
fn hang(ranks: &[(usize, Seen)], Limits { stopped, asleep, slow }: Limits) -> Option<Hang> {
    let process = |seen: &Seen| seen.signs.map_or_else(String::new, |signs| format!(" {}", signs.process));
    if let Some((rank, seen)) = ranks.iter().find(|(_, seen)| seen.lifeless >= stopped && seen.is_stopped()) {
        let why = format!("its process{} was stopped from outside {} s ago", process(seen), stopped.as_secs_f64());
        return Some(Hang { rank: *rank, why });
    }
    if let Some((rank, seen)) = ranks.iter().find(|(_, seen)| seen.lifeless >= asleep && !seen.waits()) {
        let secs = asleep.as_secs_f64();
        let why = format!("its process{} has done nothing for {secs} s, and does not wait for another rank", process(seen));
        return Some(Hang { rank: *rank, why });
    }
    let working: Vec<_> = ranks.iter().filter(|(_, seen)| !seen.waits()).collect();
    match (working.as_slice(), ranks) {
        ([(rank, seen)], [_, _, ..]) if seen.beatless >= slow => {
            let why = match seen.signs {
                Some(_) => format!("it has not gone on for {} s, and all others wait for it", slow.as_secs_f64()),
                None => format!("it has not come in {} s, and all others wait for it", slow.as_secs_f64()),
            };
            Some(Hang { rank: *rank, why })
        }
        ([], [_, _, ..]) if ranks.iter().all(|(_, seen)| seen.beatless >= slow) => {
            let met = |(_, seen): &&(usize, Seen)| seen.signs.map_or(0, |signs| signs.met);
            let (rank, _) = ranks.iter().min_by_key(met)?;
            Some(Hang { rank: *rank, why: format!("all wait for each other for {} s, and it is behind", slow.as_secs_f64()) })
        }
        _ => None,
    }
}

impl Life {
    /// That of the process that said this; nothing where it is gone, or is not to be seen from here.
    fn of(signs: &Signs) -> Option<Self> {
        let stat = stat(signs.process)?;
        (Signs::began(&stat) == Some(signs.began)).then_some(())?;
        let mut life = Self::of_one(signs.process, &stat);
        let mut open = children_of(signs.process);
        while let Some(process) = open.pop() {
            let Some(stat) = self::stat(process) else { continue };
            let Self { is_stopped: _, runs, work } = Self::of_one(process, &stat);
            life = Self { runs: life.runs || runs, work: life.work.wrapping_add(work), ..life };
            open.extend(children_of(process));
        }
        Some(life)
    }

    fn of_one(process: u32, stat: &str) -> Self {
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let values: Vec<&str> = after_name.split_whitespace().collect();
        let state = values.first().copied().unwrap_or_default();
        // Pages that were read from a disk, and processor time as itself and in the kernel: values 12, 14 and 15, of which the third is the first here.
        let counted = [9, 11, 12].iter().filter_map(|&place| values.get(place)?.parse::<u64>().ok());
        // Of another user's process it may not be read.
        let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
        let moved = io.lines().filter_map(|line| line.split_once(": ")?.1.parse::<u64>().ok());
        Self { is_stopped: matches!(state, "T" | "t"), runs: threads_run(process), work: counted.chain(moved).fold(0, u64::wrapping_add) }
    }
}

/// Whether a thread of that process runs, or waits for a disk.
fn threads_run(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['R', 'D'])))
}

fn stat(process: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{process}/stat")).ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn limits(device: Device) -> Limits {
        Standstill::new(Path::new(""), 0, device, PATIENCE).limits
    }

    /// A rank that does so: `w` works, `s` sleeps, `p` was stopped, `i` computes and does not go on, `-` waits for others, `.` has not come.
    fn after(rank: char, looks: u64, met: u64) -> Seen {
        let mut seen = Seen::default();
        for look in 0..looks {
            let is_busy = matches!(rank, 'w' | 'i');
            let beats = if rank == 'w' { look } else { 0 };
            let signs = Signs { process: 7, began: 1, beats, met, waits: rank == '-' };
            let life = Life { is_stopped: rank == 'p', runs: false, work: if is_busy { look } else { 3 } };
            let passed = if look == 0 { Duration::ZERO } else { Duration::from_secs(1) };
            seen.take_in((rank != '.').then_some(signs), (rank != '.').then_some(life), passed);
        }
        seen
    }

    /// The rank that hangs after so many seconds.
    fn named(ranks: &str, secs: u64) -> Option<usize> {
        let seen: Vec<_> = ranks.chars().enumerate().map(|(rank, how)| (rank, after(how, secs + 1, 5))).collect();
        hang(&seen, limits(Device::Virtual)).map(|hang| hang.rank)
    }

    #[test]
    fn who_does_nothing_hangs_and_who_works_or_waits_does_not() {
        for (ranks, wanted) in
            [("ws", Some(1)), ("-s", Some(1)), ("s-", Some(0)), ("-p", Some(1)), ("sp", Some(1)), ("w-", None), ("ww", None)]
        {
            assert_eq!(named(ranks, 10), wanted, "{ranks}");
            assert_eq!(named(ranks, 9), None, "{ranks}");
        }
        assert_eq!(named("w---", 100_000), None, "the first one encodes for a day");
    }

    /// Its driver may let it sleep while the device computes.
    #[test]
    fn on_a_real_gpu_who_sleeps_has_longer() {
        let named =
            |rank: char, secs: u64| hang(&[(0, after(rank, secs + 1, 5)), (1, after('-', secs + 1, 5))], limits(Device::Cuda)).is_some();
        assert_eq!([named('s', 119), named('s', 120), named('p', 9), named('p', 10)], [false, true, false, true]);
    }

    #[test]
    fn who_computes_without_going_on_has_longer() {
        assert_eq!([named("-i", 119), named("-i", 120)], [None, Some(1)]);
        assert_eq!(named("wi", 1000), None, "nobody waits for it yet");
        assert_eq!(named("i", 1000), None, "all others are done");
        assert_eq!([named("-.", 119), named("-.", 120)], [None, Some(1)], "it has not come");
        assert_eq!(named("..", 1000), None, "who does not say anything is not judged");
    }

    #[test]
    fn of_those_that_wait_for_each_other_one_is_behind() {
        assert_eq!(named("---", 119), None);
        let seen = [(0, after('-', 121, 8)), (1, after('-', 121, 7)), (2, after('-', 121, 8))];
        assert_eq!(hang(&seen, limits(Device::Virtual)).map(|hang| hang.rank), Some(1));
    }

    #[test]
    fn a_process_is_seen_to_work_and_to_be_stopped() {
        // It copies what it is given until that ends.
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
        let began = stat(child.id()).and_then(|stat| Signs::began(&stat)).expect("it runs");
        let signs = Signs { process: child.id(), began, ..Signs::default() };
        let before = Life::of(&signs).expect("it is there");
        assert!(!before.is_stopped);
        assert_eq!(Life::of(&Signs { began: began + 1, ..signs }), None, "another process of that number");
        assert!(Command::new("kill").args(["-STOP", &child.id().to_string()]).status().expect("kill").success());
        while !Life::of(&signs).is_some_and(|life| life.is_stopped) {
            std::hint::spin_loop();
        }
        child.kill().expect("killed");
        child.wait().expect("it ends");
        assert_eq!(Life::of(&signs), None);
    }
}
