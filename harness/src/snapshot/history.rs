//! How a GPU's memory went, as the events of a snapshot go by: the peak, and by modules so many moments as a page has room for. Sums saturate: a file may say anything.

use std::collections::HashMap;

use engine_protocol::Thinned;

use super::parts::{Action, By, Parts};

/// What was before the history begins.
pub(super) const BEFORE: &str = "before the history begins";

/// Parts of a history.
const MOST: usize = 512;
/// Modules that are told apart, in the order in which they come; the last one stands for all that come after.
const MODULES: usize = 64;
const OTHERS: &str = "others";

/// A GPU's history until now.
#[derive(Debug)]
pub(super) struct Course {
    live: HashMap<i64, (i64, usize)>,
    bytes: i64,
    reserved: i64,
    peak: i64,
    peak_event: u64,
    reserved_at_peak: i64,
    events: u64,
    out_of_memory: u64,
    /// Names of modules, and the place of each who asks. What was there before has the first place.
    modules: Vec<String>,
    places: HashMap<By, usize>,
    sums: Vec<i64>,
    moments: Thinned<Vec<i64>>,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            live: HashMap::new(),
            bytes: 0,
            reserved: 0,
            peak: 0,
            peak_event: 0,
            reserved_at_peak: 0,
            events: 0,
            out_of_memory: 0,
            modules: vec![BEFORE.to_owned()],
            places: HashMap::new(),
            sums: vec![0],
            moments: Thinned::new(MOST),
        }
    }
}

/// How memory went: of each list, a figure a moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct History {
    /// After how many events each moment was.
    pub(crate) at: Vec<u64>,
    pub(crate) reserved_bytes: Vec<u64>,
    /// Live bytes of each module.
    pub(crate) modules: Vec<(String, Vec<u64>)>,
}

/// Sums may fall below nothing where what was there before is let go of: they are kept as numbers above it.
const GROUND: i64 = 1 << 61;

impl Course {
    pub(super) fn see(&mut self, parts: &Parts, action: Action, address: i64, bytes: i64, by: By) {
        self.events += 1;
        match action {
            Action::Alloc => {
                let place = self.place(parts, by);
                self.live.insert(address, (bytes, place));
                self.add(place, bytes);
            }
            Action::Free => {
                // Where it was allocated earlier than the history goes, it was there before.
                let place = self.live.remove(&address).map_or(0, |(_, place)| place);
                self.add(place, bytes.saturating_neg());
            }
            Action::Reserve => self.reserved = self.reserved.saturating_add(bytes),
            Action::GiveBack => self.reserved = self.reserved.saturating_sub(bytes),
            Action::OutOfMemory => self.out_of_memory += 1,
        }
        if self.bytes > self.peak {
            (self.peak, self.peak_event, self.reserved_at_peak) = (self.bytes, self.events, self.reserved);
        }
        self.moments.see(above(self.bytes), above(self.reserved), &self.sums);
    }

    fn add(&mut self, place: usize, bytes: i64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(sum) = self.sums.get_mut(place) {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// The place of a module.
    fn place(&mut self, parts: &Parts, by: By) -> usize {
        if let Some(place) = self.places.get(&by) {
            return *place;
        }
        let module = parts.named(by).1;
        let module = if self.modules.len() < MODULES || self.modules.contains(&module) { module } else { OTHERS.to_owned() };
        let place = self.modules.iter().position(|there| *there == module).unwrap_or_else(|| {
            self.modules.push(module);
            self.sums.push(0);
            self.modules.len() - 1
        });
        self.places.insert(by, place);
        place
    }

    pub(super) fn bytes(&self) -> i64 {
        self.bytes
    }

    pub(super) fn reserved(&self) -> i64 {
        self.reserved
    }

    pub(super) fn reserved_at_peak(&self) -> i64 {
        self.reserved_at_peak
    }

    pub(super) fn peak_event(&self) -> u64 {
        self.peak_event
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn out_of_memory(&self) -> u64 {
        self.out_of_memory
    }

    /// All of it, with so much that was live and reserved before it began.
    pub(super) fn told(self, live_before: i64, reserved_before: i64) -> History {
        let unsigned = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        let of = |place: usize| {
            let before = if place == 0 { live_before } else { 0 };
            // A module that came later has nothing at the moments before.
            self.moments.moments().map(|moment| unsigned(moment.state.get(place).copied().unwrap_or(0).saturating_add(before))).collect()
        };
        let modules: Vec<(String, Vec<u64>)> = self.modules.iter().enumerate().map(|(place, name)| (name.clone(), of(place))).collect();
        History {
            at: self.moments.moments().map(|moment| moment.at + 1).collect(),
            reserved_bytes: self.moments.moments().map(|moment| unsigned(below(moment.reserved).saturating_add(reserved_before))).collect(),
            modules: modules.into_iter().filter(|(_, bytes)| bytes.iter().any(|bytes| *bytes > 0)).collect(),
        }
    }
}

fn above(bytes: i64) -> u64 {
    u64::try_from(bytes.clamp(-GROUND, GROUND) + GROUND).unwrap_or(0)
}

fn below(height: u64) -> i64 {
    i64::try_from(height).unwrap_or(GROUND) - GROUND
}
