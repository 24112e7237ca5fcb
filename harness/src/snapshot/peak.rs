//! What was live at the peak. A snapshot has what is live at its end, and the events that led there. The file is read twice, for all GPUs at once: first to find each peak
//! and how memory went, and once more up to the last of the peaks. What is held in between: the live allocations, and who asked for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, ErrorKind};
use std::ops::ControlFlow;
use std::path::Path;

use super::history::{BEFORE, Course, History};
use super::parts::{Action, By, Found, Parts};
use super::pickle::Machine;
use super::segments::{Ending, Segment};
use crate::error::Error;

/// Stacks that are told of by themselves.
const STACKS: usize = 200;

/// The peak of a GPU, and how memory went.
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
    /// The same by whole stacks, the largest ones, and how many there are.
    pub(crate) stacks: Vec<StackHolder>,
    pub(crate) stack_count: u64,
    /// How memory went, module by module.
    pub(crate) history: History,
    /// At the end: held from the driver, in blocks in use, what of those was asked for, and unused blocks beside used ones: how many, and their bytes.
    pub(crate) end_reserved_bytes: u64,
    pub(crate) end_used_bytes: u64,
    pub(crate) end_asked_bytes: u64,
    pub(crate) split_blocks: u64,
    pub(crate) split_bytes: u64,
    /// The largest segments at the end, and how many there are.
    pub(crate) segments: Vec<Segment>,
    pub(crate) segment_count: u64,
}

/// Who held memory at the peak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) module: String,
    pub(crate) bytes: u64,
    pub(crate) allocations: u64,
}

/// A holder with its whole stack, the innermost frame first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StackHolder {
    pub(crate) holder: Holder,
    pub(crate) frames: Vec<String>,
}

/// What is live of a GPU, up to its peak.
#[derive(Debug, Default)]
struct UntilPeak {
    events: u64,
    peak_event: u64,
    live: HashMap<i64, (i64, By)>,
    bytes: i64,
}

impl UntilPeak {
    fn is_there(&self) -> bool {
        self.events >= self.peak_event
    }

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
            Action::Reserve | Action::GiveBack | Action::OutOfMemory => {}
        }
    }
}

/// The peak of each GPU that a snapshot has a history of, or holds memory on.
pub(crate) fn peaks(path: &Path) -> Result<Vec<Peak>, Error> {
    let mut courses: BTreeMap<usize, Course> = BTreeMap::new();
    let mut endings: BTreeMap<usize, Ending> = BTreeMap::new();
    let mut blocks = Vec::new();
    read(path, &mut |parts, place, found| {
        match found {
            Found::Event { action, address, bytes, by } => courses.entry(place).or_default().see(parts, action, address, bytes, by),
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
    let until = |course: &Course| UntilPeak { peak_event: course.peak_event(), ..UntilPeak::default() };
    let mut untils: BTreeMap<usize, UntilPeak> = courses.iter().map(|(device, course)| (*device, until(course))).collect();
    let mut left = untils.values().filter(|until| !until.is_there()).count();
    let parts = read(path, &mut |_, place, found| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        if let (Found::Event { action, address, bytes, by }, Some(until)) = (found, untils.get_mut(&place))
            && !until.is_there()
        {
            until.see(action, address, bytes, by);
            left -= usize::from(until.is_there());
        }
        ControlFlow::Continue(())
    })?;
    let devices: BTreeSet<usize> = courses.keys().chain(endings.keys()).copied().collect();
    let of = |device| {
        let (course, ending) = (courses.remove(&device).unwrap_or_default(), endings.remove(&device).unwrap_or_default());
        peak_of(device, course, ending, untils.remove(&device).unwrap_or_default(), &parts)
    };
    Ok(devices.into_iter().map(of).collect())
}

fn peak_of(device: usize, course: Course, ending: Ending, until: UntilPeak, parts: &Parts) -> Peak {
    // What was there before the history: what is there at its end, less what the history has added.
    let before = ending.asked.saturating_sub(course.bytes()).max(0);
    let reserved_before = ending.reserved.saturating_sub(course.reserved()).max(0);
    let mut by_stack: HashMap<By, (u64, u64)> = HashMap::new();
    for (bytes, by) in until.live.values() {
        let (sum, count) = by_stack.entry(*by).or_default();
        *sum = sum.saturating_add(unsigned(*bytes));
        *count += 1;
    }
    let holder = |(by, (bytes, allocations)): (By, (u64, u64))| {
        let (name, module) = parts.named(by);
        StackHolder { holder: Holder { name, module, bytes, allocations }, frames: parts.frames_of(by) }
    };
    let mut stacks: Vec<StackHolder> = by_stack.into_iter().map(holder).collect();
    let known = until.live.values().fold(0_i64, |sum, (bytes, _)| sum.saturating_add(*bytes));
    let live = before.saturating_add(until.bytes);
    if live > known {
        let bytes = unsigned(live.saturating_sub(known));
        stacks
            .push(StackHolder { holder: Holder { name: BEFORE.into(), module: BEFORE.into(), bytes, allocations: 1 }, frames: Vec::new() });
    }
    let order = |one: &Holder, other: &Holder| other.bytes.cmp(&one.bytes).then_with(|| one.name.cmp(&other.name));
    stacks.sort_by(|one, other| order(&one.holder, &other.holder).then_with(|| one.frames.cmp(&other.frames)));
    let mut sums: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for StackHolder { holder, .. } in &stacks {
        let (sum, count) = sums.entry((&holder.name, &holder.module)).or_default();
        (*sum, *count) = (sum.saturating_add(holder.bytes), *count + holder.allocations);
    }
    let summed = |((name, module), (bytes, allocations)): ((&str, &str), (u64, u64))| Holder {
        name: name.into(),
        module: module.into(),
        bytes,
        allocations,
    };
    let mut holders: Vec<Holder> = sums.into_iter().map(summed).collect();
    holders.sort_by(order);
    let stack_count = stacks.len() as u64;
    stacks.truncate(STACKS);
    Peak {
        device,
        live_bytes: unsigned(live),
        reserved_bytes: unsigned(reserved_before.saturating_add(course.reserved_at_peak())),
        event: course.peak_event(),
        events: course.events(),
        out_of_memory: course.out_of_memory(),
        holders,
        stacks,
        stack_count,
        history: course.told(before, reserved_before),
        end_reserved_bytes: unsigned(ending.reserved),
        end_used_bytes: unsigned(ending.used),
        end_asked_bytes: unsigned(ending.asked),
        split_blocks: ending.split_blocks,
        split_bytes: unsigned(ending.split_bytes),
        segment_count: ending.count,
        segments: ending.largest(),
    }
}

fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

fn read(path: &Path, see: &mut impl FnMut(&Parts, usize, Found) -> ControlFlow<()>) -> Result<Parts, Error> {
    let file = untrusted::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::input(format!("{}: there is no such file", path.display())),
        _ => Error::input(format!("{}: {error}", path.display())),
    })?;
    let refused = |why: String| Error::input(format!("{}: {why}", path.display()));
    Machine::new(BufReader::with_capacity(1 << 20, file)).run(see).map_err(refused)
}
