//! Which of several ranks hangs, where one does: by what each says of itself as it works (see [`Signs`]), and by what the kernel sees its process do.
//!
//! Note: what counts as a hang.
//! 1. A rank does nothing: it takes no processor time, waits for no disk, does not say that it goes on, nor that it waits for others; or it was stopped from outside. A rank that loads,
//!    encodes or decodes for minutes does something. That is looked for all the time, whatever the others do.
//! 2. All others wait for it, and it takes processor time or waits for a disk without going on: [`SLOW`] times as long, since one operation may take long, and a disk a network away may stand still.
//! 3. All wait for each other, as long. The one that met the others least often is behind.
//! 4. In the sampler's steps, which are all alike, it is known from those that are done how long a rank takes at most to go on. There [`SLOW`] times that is the limit of 2 and 3, where it is shorter, and one that waits
//!    for no disk is meant; and where none of the ranks goes on for so long, whatever they do, one hangs too.
//!
//! On a real GPU a host that waits for its device mostly spins, and with some drivers sleeps: so there who sleeps has as long as who computes, and a device that hangs is found by 2 to 4. Whether a rank waits for others is seen where its host waits for the end of a
//! step. Where hosts wait elsewhere meanwhile, as for room in a ring of buffers, and no step is done yet, nobody is named, and the case's time limit is the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine_protocol::{Device, Signs};
use serde::{Deserialize, Serialize};

use crate::children::children_of;

/// So many times as long as one that does nothing has one that does something; and so many times as long as it took before.
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
    /// So long it has neither said so nor waited for a disk.
    diskless: Duration,
}

/// What the kernel says of a process and those that it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Life {
    /// By SIGSTOP or by a debugger.
    is_stopped: bool,
    /// A thread of it has a processor or would take one, or waits for a disk.
    runs: bool,
    /// A thread of it waits for a disk.
    waits_for_disk: bool,
    /// Processor time, pages that it waited for, and bytes that it read and wrote: one number that changes as it does something.
    work: u64,
    /// Of these the pages, and bytes of a disk.
    from_disk: u64,
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
        let reads = life.is_some_and(|life| life.waits_for_disk || self.life.is_some_and(|before| before.from_disk != life.from_disk));
        let more = |time: Duration, is_over: bool| if is_over { Duration::ZERO } else { time + passed };
        (self.lifeless, self.beatless) = (more(self.lifeless, goes_on || lives), more(self.beatless, goes_on));
        self.diskless = more(self.diskless, goes_on || reads);
        (self.signs, self.life) = (signs, life);
    }

    fn waits(&self) -> bool {
        self.signs.is_some_and(|signs| signs.waits)
    }

    fn is_stopped(&self) -> bool {
        self.life.is_some_and(|life| life.is_stopped)
    }

    /// How long it may take to go on, from how long it took before; nothing where that is not known.
    fn usual(&self, Limits { stopped, slow, .. }: Limits) -> Option<Duration> {
        let pace = self.signs.map(|signs| signs.pace).filter(|&pace| pace > 0)?;
        Some(Duration::from_millis(pace).saturating_mul(SLOW).clamp(stopped, slow))
    }

    /// The limit that it is over, where it does not go on.
    fn stands_still(&self, limits: Limits) -> Option<Duration> {
        let usual = self.usual(limits).filter(|usual| self.diskless >= *usual);
        usual.or((self.beatless >= limits.slow).then_some(limits.slow))
    }
}

/// Which of the ranks that are open hangs.
fn hang(ranks: &[(usize, Seen)], limits: Limits) -> Option<Hang> {
    let Limits { stopped, asleep, .. } = limits;
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
        ([(rank, seen)], [_, _, ..]) => {
            let limit = seen.stands_still(limits)?.as_secs_f64();
            let why = match seen.signs {
                Some(_) => format!("it has not gone on for {limit} s, and all others wait for it"),
                None => format!("it has not come in {limit} s, and all others wait for it"),
            };
            Some(Hang { rank: *rank, why })
        }
        (working, [_, _, ..]) => {
            // Those that work may all have much to do, unless they are seen to take long for what they do.
            let limit = |seen: &Seen| seen.stands_still(limits).filter(|_| working.is_empty() || seen.usual(limits).is_some());
            let limit = ranks.iter().map(|(_, seen)| limit(seen)).collect::<Option<Vec<_>>>()?.into_iter().max()?;
            let met = |(_, seen): &(usize, Seen)| seen.signs.map_or(0, |signs| signs.met);
            let least = ranks.iter().min_by_key(|rank| met(rank))?;
            let is_behind = ranks.iter().filter(|rank| met(rank) == met(least)).count() == 1;
            let what = if working.is_empty() { "all wait for each other" } else { "none of the ranks has gone on" };
            let who = if is_behind { "it is behind" } else { "none is seen to be behind" };
            Some(Hang { rank: least.0, why: format!("{what} for {} s, and {who}", limit.as_secs_f64()) })
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
            let Self { is_stopped: _, runs, waits_for_disk, work, from_disk } = Self::of_one(process, &stat);
            life = Self {
                runs: life.runs || runs,
                waits_for_disk: life.waits_for_disk || waits_for_disk,
                work: life.work.wrapping_add(work),
                from_disk: life.from_disk.wrapping_add(from_disk),
                ..life
            };
            open.extend(children_of(process));
        }
        Some(life)
    }

    fn of_one(process: u32, stat: &str) -> Self {
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let values: Vec<&str> = after_name.split_whitespace().collect();
        let state = values.first().copied().unwrap_or_default();
        // Pages that were read from a disk, and processor time as itself and in the kernel: values 12, 14 and 15, of which the third is the first here.
        let counted =
            |places: &[usize]| places.iter().filter_map(|&place| values.get(place)?.parse::<u64>().ok()).fold(0, u64::wrapping_add);
        let pages = counted(&[9]);
        // Of another user's process it may not be read.
        let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
        let moved = |is_meant: fn(&str) -> bool| {
            let lines = io.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| is_meant(name));
            lines.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).fold(0, u64::wrapping_add)
        };
        let states = states_of_threads(process);
        Self {
            is_stopped: matches!(state, "T" | "t"),
            runs: states.contains(['R', 'D']),
            waits_for_disk: states.contains('D'),
            work: counted(&[11, 12]).wrapping_add(pages).wrapping_add(moved(|_| true)),
            from_disk: pages.wrapping_add(moved(|name| matches!(name, "read_bytes" | "write_bytes"))),
        }
    }
}

/// A letter for each thread of that process: `R` runs or would run, `D` waits for a disk.
fn states_of_threads(process: u32) -> String {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
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

    /// A rank that does so: `w` works, `s` sleeps, `p` was stopped, `i` computes and does not go on, `d` neither, and reads, `-` waits for others, `.` has not come.
    fn after(rank: char, looks: u64, met: u64) -> Seen {
        at_pace(0, rank, looks, met)
    }

    /// The same of one that took so many seconds at most in steps before.
    fn at_pace(pace: u64, rank: char, looks: u64, met: u64) -> Seen {
        let mut seen = Seen::default();
        for look in 0..looks {
            let moves = |is_so: bool| if is_so { look } else { 3 };
            let beats = if rank == 'w' { look } else { 0 };
            let signs = Signs { process: 7, began: 1, beats, met, pace: 1000 * pace, waits: rank == '-' };
            let work = moves(matches!(rank, 'w' | 'i' | 'd'));
            let life = Life { is_stopped: rank == 'p', work, from_disk: moves(rank == 'd'), ..Life::default() };
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

    /// Where it is known how long it takes to go on, who does not is named within seconds: a device that hangs, whose host spins.
    #[test]
    fn in_steps_that_are_alike_less_is_long() {
        let named = |ranks: [(u64, char); 2], secs: u64| {
            let seen: Vec<_> = (0..).zip(ranks.map(|(pace, how)| at_pace(pace, how, secs + 1, 5))).collect();
            hang(&seen, limits(Device::Cuda)).map(|hang| (hang.rank, hang.why))
        };
        let computes = |pace: u64, secs: u64| named([(0, '-'), (pace, 'i')], secs).map(|(rank, _)| rank);
        assert_eq!([computes(2, 23), computes(2, 24)], [None, Some(1)], "twelve times as long");
        assert_eq!([computes(20, 119), computes(20, 120)], [None, Some(1)], "never longer than where nothing is known");
        let short = named([(1, '-'), (1, 's')], 12).expect("it hangs");
        assert_eq!(short, (1, "it has not gone on for 12 s, and all others wait for it".into()));
        assert_eq!([named([(3, '-'), (1, 'd')], 119), named([(3, 'w'), (1, 'i')], 1000)], [None, None], "a disk, and nobody waits");
        assert_eq!([named([(2, '-'), (3, '-')], 35), named([(2, 'i'), (3, 'i')], 35)], [None, None]);
        let all = |how| named([(2, how), (3, how)], 36).expect("one hangs").1;
        assert_eq!(all('-'), "all wait for each other for 36 s, and none is seen to be behind");
        assert_eq!(all('i'), "none of the ranks has gone on for 36 s, and none is seen to be behind");
        assert_eq!(named([(0, 'i'), (3, 'i')], 1000), None, "of one of them it is not known how long it takes");
    }

    #[test]
    fn of_those_that_wait_for_each_other_one_is_behind() {
        assert_eq!(named("---", 119), None);
        let seen = [(0, after('-', 121, 8)), (1, after('-', 121, 7)), (2, after('-', 121, 8))];
        let found = hang(&seen, limits(Device::Virtual)).expect("one hangs");
        assert_eq!((found.rank, &*found.why), (1, "all wait for each other for 120 s, and it is behind"));
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
