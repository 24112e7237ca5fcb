//! Who is in a communicator: how ranks join it, leave it, and split it into parts.
//!
//! # Note: how a rank knows its place in a part
//! That depends on what all ranks of the whole choose. Nobody waits while a communicator is split: each rank says its colour and its key, those of this process here,
//! those of other processes in a file in the report's folder. Only who needs a place in the part (by asking for it, or by a call on it) waits until all have chosen.
//! Where there is no such folder nothing is known of other processes, and some rank may never choose: then the part counts as large as the whole, and
//! the key is the rank in it, as it is for PyTorch.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::arrivals::Meeting;
use crate::device::{Device, Fault, Span, lock};
use crate::devices::{active_device, current, set_current};
use crate::environment::{ranks_folder, report_folder};
use crate::handle_table::HandleTable;

/// `NCCL_SPLIT_NOCOLOR`: this rank is in no part.
const NO_COLOR: i32 = -1;
/// So long a rank is waited for that has not chosen yet. A real one is waited for until somebody gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// From one look for what other processes chose to the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// `ncclUniqueId`: what ranks find each other by.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UniqueId([u8; 128]);

impl UniqueId {
    /// One that no other process of this machine makes, nor this one again.
    pub(super) fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let mut id = [0; 128];
        for (place, part) in id.chunks_exact_mut(8).zip([u64::from(process::id()), MADE.fetch_add(1, Ordering::Relaxed), now]) {
            place.copy_from_slice(&part.to_ne_bytes());
        }
        Self(id)
    }

    /// What the communicator goes by, in file names too.
    fn name(&self) -> String {
        let length = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        // As long as an identifier of ours; of a longer one a sum tells the rest apart.
        let (begin, rest) = self.0[..length].split_at(length.min(24));
        let sum = rest.iter().fold(0_u64, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        begin.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            + &if rest.is_empty() { String::new() } else { format!("{sum:x}") }
    }
}

/// One rank, as calls see it.
#[derive(Clone, Copy)]
pub(super) struct Rank {
    pub(super) device: &'static Device,
    pub(super) number: i32,
    pub(super) size: i32,
}

/// What a rank chose when it split a communicator: the part, and what ranks in it are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    color: i32,
    key: i32,
}

/// What the ranks of a whole chose, as far as it is known here.
type Choices = BTreeMap<i32, Choice>;

/// A part whose ranks may not all have chosen it yet.
#[derive(Clone)]
struct SplitPart {
    /// What the whole goes by, and its split.
    whole: String,
    split: String,
    /// The rank in the whole, and the number of its ranks.
    rank: i32,
    size: i32,
    choices: Arc<Mutex<Choices>>,
}

/// Where a rank is in its communicator.
enum Place {
    Known { rank: i32, size: i32 },
    Chosen(SplitPart),
}

struct Communicator {
    device: &'static Device,
    place: Place,
    /// What all its ranks know it by.
    name: String,
    /// Where its ranks meet, from the first time on, if they do.
    meeting: Arc<OnceLock<Option<Meeting>>>,
    /// How often it was split.
    splits: u64,
    is_finalized: bool,
}

/// The ranks of a communicator that are in this process.
struct Family {
    size: i32,
    /// Their numbers and devices.
    members: Vec<(i32, u32)>,
    /// What they chose, by split.
    choices: BTreeMap<String, Arc<Mutex<Choices>>>,
}

static COMMUNICATORS: HandleTable<Communicator> = HandleTable::of("nccl");
static FAMILIES: Mutex<BTreeMap<String, Family>> = Mutex::new(BTreeMap::new());

fn add(device: &'static Device, place: Place, name: String) -> u64 {
    COMMUNICATORS.lock().insert(Communicator { device, place, name, meeting: Arc::default(), splits: 0, is_finalized: false })
}

/// A rank is there. In one process neither it nor its device can be there twice.
fn enter(name: &str, rank: &Rank) -> Result<(), Fault> {
    let mut families = lock(&FAMILIES);
    let new = || Family { size: rank.size, members: Vec::new(), choices: BTreeMap::new() };
    let family = families.entry(name.to_owned()).or_insert_with(new);
    if family.size != rank.size {
        return Err(Fault::InvalidValue);
    }
    if family.members.iter().any(|&(number, device)| number == rank.number || device == rank.device.ordinal) {
        return Err(Fault::IllegalState);
    }
    family.members.push((rank.number, rank.device.ordinal));
    Ok(())
}

/// This thread's device as one rank.
pub(super) fn join(id: UniqueId, number: i32, size: i32) -> Result<u64, Fault> {
    let rank = Rank { device: active_device()?, number, size };
    if !(0..size).contains(&number) {
        return Err(Fault::InvalidValue);
    }
    let name = id.name();
    enter(&name, &rank)?;
    Ok(add(rank.device, Place::Known { rank: number, size }, name))
}

/// Each of the devices as one rank.
pub(super) fn join_all(devices: &[i32]) -> Result<Vec<u64>, Fault> {
    let (before, id, size) = (current()?, UniqueId::new(), devices.len() as i32);
    let join_on = |(rank, &ordinal): (i32, &i32)| set_current(ordinal).and_then(|()| join(id, rank, size));
    let mut joined = Vec::new();
    let result = (0..size).zip(devices).try_for_each(|device| join_on(device).map(|handle| joined.push(handle)));
    set_current(before)?;
    match result {
        Ok(()) => Ok(joined),
        Err(fault) => {
            joined.into_iter().try_for_each(leave)?;
            Err(fault)
        }
    }
}

/// The rank is not there any more.
pub(super) fn leave(handle: u64) -> Result<(), Fault> {
    let gone = COMMUNICATORS.lock().remove(handle)?;
    let Place::Known { rank, .. } = gone.place else { return Ok(()) };
    let mut families = lock(&FAMILIES);
    if let Some(family) = families.get_mut(&gone.name) {
        family.members.retain(|&(number, _)| number != rank);
        if family.members.is_empty() {
            families.remove(&gone.name);
        }
    }
    Ok(())
}

/// Nothing more is to come from it.
pub(super) fn finalize(handle: u64) -> Result<(), Fault> {
    usable(handle)?;
    COMMUNICATORS.lock().get_mut(handle)?.is_finalized = true;
    Ok(())
}

/// Fails for a communicator that does not exist.
pub(super) fn check(handle: u64) -> Result<(), Fault> {
    COMMUNICATORS.lock().get(handle).map(drop)
}

/// The device of a communicator.
pub(super) fn device(handle: u64) -> Result<&'static Device, Fault> {
    COMMUNICATORS.lock().get(handle).map(|communicator| communicator.device)
}

/// The rank of a communicator that may still be used.
pub(super) fn usable(handle: u64) -> Result<Rank, Fault> {
    if COMMUNICATORS.lock().get(handle)?.is_finalized {
        return Err(Fault::IllegalState);
    }
    rank(handle)
}

/// The rank of a communicator. In a part this waits for the ranks of the whole: see the note above.
pub(super) fn rank(handle: u64) -> Result<Rank, Fault> {
    let (device, name, part) = {
        let communicators = COMMUNICATORS.lock();
        let communicator = communicators.get(handle)?;
        match &communicator.place {
            &Place::Known { rank: number, size } => return Ok(Rank { device: communicator.device, number, size }),
            Place::Chosen(part) => (communicator.device, communicator.name.clone(), part.clone()),
        }
    };
    let (number, size) = part.place();
    let rank = Rank { device, number, size };
    if let Some(communicator) = COMMUNICATORS.lock().get_mut(handle).ok().filter(|it| matches!(it.place, Place::Chosen(_))) {
        communicator.place = Place::Known { rank: number, size };
        // Guesses of two ranks of this process may be the same, and then the first is there.
        let _ = enter(&name, &rank);
    }
    Ok(rank)
}

/// When this rank of the communicator, which is there at `own`, and `others` are all there: at once where ranks do not meet.
pub(super) fn all_there(handle: u64, own: Span, others: impl Iterator<Item = i32> + Clone) -> Span {
    let Some(folder) = ranks_folder() else { return own };
    let Ok(Rank { number, .. }) = rank(handle) else { return own };
    let Some((name, meeting)) =
        COMMUNICATORS.lock().get(handle).ok().map(|communicator| (communicator.name.clone(), Arc::clone(&communicator.meeting)))
    else {
        return own;
    };
    let join = || {
        // Ranks of one process would wait for themselves.
        let is_alone = lock(&FAMILIES).get(&name).is_none_or(|family| family.members.len() == 1);
        let joined = is_alone.then(|| Meeting::join(folder, &name, number))?;
        joined.inspect_err(|error| eprintln!("lowmem: virtual GPU: NCCL: ranks do not meet in {}: {error}", folder.display())).ok()
    };
    meeting.get_or_init(join).as_ref().map_or(own, |meeting| meeting.all_there(own, others))
}

/// The number of the communicator's next split or its like, which all its ranks count alike.
fn next_split(handle: u64) -> Result<(String, String), Fault> {
    let mut communicators = COMMUNICATORS.lock();
    let communicator = communicators.get_mut(handle)?;
    communicator.splits += 1;
    Ok((communicator.name.clone(), format!("{}-{}", communicator.name, communicator.splits)))
}

/// `ncclCommSplit`: the part's handle, or 0 for a rank that is in none.
pub(super) fn split(handle: u64, color: i32, key: i32) -> Result<u64, Fault> {
    let Rank { device, number, size } = usable(handle)?;
    if color < NO_COLOR {
        return Err(Fault::InvalidValue);
    }
    let (whole, split) = next_split(handle)?;
    let choices = {
        let mut families = lock(&FAMILIES);
        let family = families.get_mut(&whole).ok_or(Fault::InvalidHandle)?;
        Arc::clone(family.choices.entry(split.clone()).or_default())
    };
    let choice = Choice { color, key };
    {
        let mut choices = lock(&choices);
        choices.insert(number, choice);
        if choices.len() == size as usize || report_folder().is_some() {
            // Nobody needs to find them here any more.
            lock(&FAMILIES).get_mut(&whole).map(|family| family.choices.remove(&split));
        }
    }
    tell(&split, number, choice);
    if color == NO_COLOR {
        return Ok(0);
    }
    let name = format!("{split}.{color}");
    Ok(add(device, Place::Chosen(SplitPart { whole, split, rank: number, size, choices }), name))
}

/// `ncclCommShrink`: what is left without these ranks.
pub(super) fn shrink(handle: u64, excluded: &[i32]) -> Result<u64, Fault> {
    let Rank { device, number, size } = usable(handle)?;
    if excluded.iter().any(|rank| !(0..size).contains(rank) || *rank == number) {
        return Err(Fault::InvalidValue);
    }
    let before = excluded.iter().filter(|&&rank| rank < number).count() as i32;
    let rank = Rank { device, number: number - before, size: size - excluded.len() as i32 };
    let (_, name) = next_split(handle)?;
    enter(&name, &rank)?;
    Ok(add(device, Place::Known { rank: rank.number, size: rank.size }, name))
}

/// Where a rank of another process leaves what it chose.
fn file_of(split: &str, rank: i32) -> Option<PathBuf> {
    Some(report_folder()?.join(format!("{split}.{rank}.split")))
}

/// Tells other processes.
fn tell(split: &str, rank: i32, Choice { color, key }: Choice) {
    let Some(file) = file_of(split, rank) else { return };
    let draft = file.with_extension("draft");
    // In one step, so that nobody reads half of it. A folder that is gone has no reader.
    let _ = fs::write(&draft, format!("{color} {key}")).and_then(|()| fs::rename(&draft, &file));
}

/// What a rank of another process chose.
fn told(split: &str, rank: i32) -> Option<Choice> {
    let text = fs::read_to_string(file_of(split, rank)?).ok()?;
    let (color, key) = text.split_once(' ')?;
    Some(Choice { color: color.parse().ok()?, key: key.parse().ok()? })
}

impl SplitPart {
    /// The rank in it and its size.
    fn place(&self) -> (i32, i32) {
        let begin = Instant::now();
        loop {
            let missing: Vec<i32> = (0..self.size).filter(|rank| !lock(&self.choices).contains_key(rank)).collect();
            let found: Vec<(i32, Choice)> = missing.iter().filter_map(|&rank| Some((rank, told(&self.split, rank)?))).collect();
            let is_complete = found.len() == missing.len();
            lock(&self.choices).extend(found);
            if is_complete {
                return place_in(&lock(&self.choices), self.rank);
            }
            if !self.may_come(&missing) {
                return self.guess();
            }
            if begin.elapsed() > PATIENCE {
                eprintln!("lowmem: virtual GPU: NCCL: not all ranks of a communicator have split it, so its part counts as large as it is");
                return self.guess();
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Whether one of those ranks may still choose: it is in this process, or is another's that can tell.
    fn may_come(&self, missing: &[i32]) -> bool {
        let is_here = |family: &Family| family.members.iter().any(|(rank, _)| missing.contains(rank));
        report_folder().is_some() || lock(&FAMILIES).get(&self.whole).is_some_and(is_here)
    }

    fn guess(&self) -> (i32, i32) {
        let key = lock(&self.choices).get(&self.rank).map_or(self.rank, |own| own.key);
        (if (0..self.size).contains(&key) { key } else { self.rank }, self.size)
    }
}

/// A rank's place among those of its colour: by key, and by rank in the whole where that is the same.
fn place_in(choices: &Choices, rank: i32) -> (i32, i32) {
    let Some(own) = choices.get(&rank) else { return (rank, choices.len() as i32) };
    let members = choices.iter().filter(|(_, other)| other.color == own.color);
    let before = members.clone().filter(|&(&number, other)| (other.key, number) < (own.key, rank));
    (before.count() as i32, members.count() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_colour_are_ordered_by_key_and_then_as_they_were() {
        let chosen = [(1, 5), (0, 0), (1, -3), (1, 5), (NO_COLOR, 0), (0, 0)];
        let choices: Choices = (0..).zip(chosen.map(|(color, key)| Choice { color, key })).collect();
        assert_eq!([0, 1, 2, 3, 5].map(|rank| place_in(&choices, rank)), [(1, 3), (0, 2), (0, 3), (2, 3), (1, 2)]);
    }

    #[test]
    fn identifiers_have_names_of_their_own() {
        let (first, second) = (UniqueId::new(), UniqueId::new());
        assert_ne!(first.name(), second.name());
        let mut long = [7; 128];
        let before = UniqueId(long).name();
        long[127] = 8;
        assert_ne!(before, UniqueId(long).name());
        assert!(before.len() < 70 && UniqueId([0; 128]).name().is_empty());
    }
}
