//! What was live at the peak. A snapshot has what is live at its end, and the events that led there. The file is read twice: once to find the peak of each GPU, and once
//! more up to there. What is held in between: the live allocations, and who asked for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, ErrorKind};
use std::ops::ControlFlow;
use std::path::Path;

use super::parts::{Action, By, Found};
use super::pickle::Machine;
use crate::error::Error;

/// What was before the history begins.
const BEFORE: &str = "before the history begins";

/// The peak of a GPU.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Peak {
    pub(crate) device: usize,
    /// Bytes that were asked for and live, at most.
    pub(crate) live_bytes: u64,
    /// What the allocator held from the driver then.
    pub(crate) reserved_bytes: u64,
    /// Which event of the history made it, and how many there are.
    pub(crate) event: u64,
    pub(crate) events: u64,
    /// How often memory ran out.
    pub(crate) out_of_memory: u64,
    /// Who held it, the largest first.
    pub(crate) holders: Vec<Holder>,
    /// At the end: held from the driver, in blocks in use, what of those was asked for, and unused blocks beside used ones: how many, and their bytes.
    pub(crate) end_reserved_bytes: u64,
    pub(crate) end_used_bytes: u64,
    pub(crate) end_asked_bytes: u64,
    pub(crate) split_blocks: u64,
    pub(crate) split_bytes: u64,
}

/// Who held memory at the peak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) module: String,
    pub(crate) bytes: u64,
    pub(crate) allocations: u64,
}

/// A GPU's history as it goes by. Sums saturate: a file may say anything.
#[derive(Debug, Default)]
struct Course {
    live: HashMap<i64, (i64, By)>,
    bytes: i64,
    reserved: i64,
    peak: i64,
    peak_event: u64,
    reserved_at_peak: i64,
    events: u64,
    out_of_memory: u64,
}

/// What there is at the end.
#[derive(Debug, Default)]
struct Ending {
    reserved: i64,
    used: i64,
    asked: i64,
    split_blocks: u64,
    split_bytes: i64,
}

impl Course {
    fn see(&mut self, action: Action, address: i64, bytes: i64, by: By) {
        self.events += 1;
        match action {
            Action::Alloc => {
                self.live.insert(address, (bytes, by));
                self.bytes = self.bytes.saturating_add(bytes);
            }
            Action::Free => {
                self.live.remove(&address);
                self.bytes = self.bytes.saturating_sub(bytes);
            }
            Action::Reserve => self.reserved = self.reserved.saturating_add(bytes),
            Action::GiveBack => self.reserved = self.reserved.saturating_sub(bytes),
            Action::OutOfMemory => self.out_of_memory += 1,
        }
        if self.bytes > self.peak {
            (self.peak, self.peak_event, self.reserved_at_peak) = (self.bytes, self.events, self.reserved);
        }
    }
}

/// The peak of each GPU that a snapshot has a history of, or holds memory on.
pub(crate) fn peaks(path: &Path) -> Result<Vec<Peak>, Error> {
    let mut courses: BTreeMap<usize, Course> = BTreeMap::new();
    let mut endings: BTreeMap<usize, Ending> = BTreeMap::new();
    let mut blocks = Vec::new();
    read(path, &mut |_, place, found| {
        match found {
            Found::Event { action, address, bytes, by } => courses.entry(place).or_default().see(action, address, bytes, by),
            Found::Block { asked, bytes, is_used } => blocks.push((asked, bytes, is_used)),
            Found::Segment { device, bytes } => {
                endings.entry(usize::try_from(device).unwrap_or(0)).or_default().add(bytes, &std::mem::take(&mut blocks));
            }
        }
        ControlFlow::Continue(())
    })?;
    if courses.is_empty() && endings.is_empty() {
        return Err(Error::input(format!("{}: it has no segment and no event: is it a memory snapshot of PyTorch?", path.display())));
    }
    courses
        .keys()
        .copied()
        .chain(endings.keys().copied())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|device| peak_of(path, device, courses.remove(&device).unwrap_or_default(), endings.remove(&device).unwrap_or_default()))
        .collect()
}

impl Ending {
    fn add(&mut self, bytes: i64, blocks: &[(i64, i64, bool)]) {
        self.reserved = self.reserved.saturating_add(bytes);
        let is_split = blocks.iter().any(|(.., is_used)| *is_used);
        for (asked, bytes, is_used) in blocks {
            if *is_used {
                self.used = self.used.saturating_add(*bytes);
                self.asked = self.asked.saturating_add(*asked);
            } else if is_split {
                self.split_blocks += 1;
                self.split_bytes = self.split_bytes.saturating_add(*bytes);
            }
        }
    }
}

fn peak_of(path: &Path, device: usize, course: Course, ending: Ending) -> Result<Peak, Error> {
    // What was there before the history: what is there at its end, less what the history has added.
    let before = ending.asked.saturating_sub(course.bytes).max(0);
    let reserved_before = ending.reserved.saturating_sub(course.reserved).max(0);
    let (mut until, mut names) = (Course::default(), HashMap::new());
    read(path, &mut |parts, place, found| {
        let Found::Event { action, address, bytes, by } = found else { return ControlFlow::Continue(()) };
        if place != device {
            return ControlFlow::Continue(());
        }
        if until.events >= course.peak_event {
            return ControlFlow::Break(());
        }
        names.entry(by).or_insert_with(|| parts.named(by));
        until.see(action, address, bytes, by);
        ControlFlow::Continue(())
    })?;
    let mut sums: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let mut add = |name: (String, String), bytes: i64| {
        let (sum, count) = sums.entry(name).or_default();
        *sum = sum.saturating_add(u64::try_from(bytes).unwrap_or(0));
        *count += 1;
    };
    let known = until.live.values().fold(0_i64, |sum, (bytes, _)| sum.saturating_add(*bytes));
    until.live.values().for_each(|(bytes, by)| add(names.get(by).cloned().unwrap_or_default(), *bytes));
    let live = before.saturating_add(until.bytes);
    if live > known {
        add((BEFORE.to_owned(), BEFORE.to_owned()), live.saturating_sub(known));
    }
    let mut holders: Vec<Holder> =
        sums.into_iter().map(|((name, module), (bytes, allocations))| Holder { name, module, bytes, allocations }).collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.bytes));
    let unsigned = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    Ok(Peak {
        device,
        live_bytes: unsigned(live),
        reserved_bytes: unsigned(reserved_before.saturating_add(course.reserved_at_peak)),
        event: course.peak_event,
        events: course.events,
        out_of_memory: course.out_of_memory,
        holders,
        end_reserved_bytes: unsigned(ending.reserved),
        end_used_bytes: unsigned(ending.used),
        end_asked_bytes: unsigned(ending.asked),
        split_blocks: ending.split_blocks,
        split_bytes: unsigned(ending.split_bytes),
    })
}

fn read(path: &Path, see: &mut impl FnMut(&super::parts::Parts, usize, Found) -> ControlFlow<()>) -> Result<(), Error> {
    let file = untrusted::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::input(format!("{}: there is no such file", path.display())),
        _ => Error::input(format!("{}: {error}", path.display())),
    })?;
    let refused = |why: String| Error::input(format!("{}: {why}", path.display()));
    Machine::new(BufReader::with_capacity(1 << 20, file)).run(see).map(drop).map_err(refused)
}
