//! The virtual clock: when each stream has done what it was given, and how far the host has come.
//!
//! # Note: the model
//! What is put on a stream begins when the stream has done what came before it, when the host has asked for it, and when the engine that does it is free.
//! There are three engines, each of which does one thing after another in the order in which it was asked: one computes, one copies to the device, one copies to the
//! host. So arithmetic and copies overlap as on a card with two copy engines, while kernels of different streams do not: large ones have no room beside each other.
//! An event has the time of its stream when it was recorded; a stream that waits for it goes on no sooner. The host takes time to ask for something, and waits
//! when it synchronises. The default stream orders itself with no other one, as PyTorch's streams do not with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::lock;
use super::span::Span;

/// How far the host has come: one for all devices of the process.
#[derive(Debug, Default)]
pub struct HostClock(Mutex<Span>);

impl HostClock {
    /// The time.
    pub fn now(&self) -> Span {
        *lock(&self.0)
    }

    /// The host does something that takes so long. Gives the time after it.
    pub fn spend(&self, secs: Span) -> Span {
        let mut now = lock(&self.0);
        *now += secs;
        *now
    }

    /// The host waits until then.
    pub fn wait_until(&self, time: Span) {
        let mut now = lock(&self.0);
        *now = now.max(time);
    }
}

/// What does work on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Kernels.
    Compute,
    /// Copies from the host.
    ToDevice,
    /// Copies to the host.
    ToHost,
}

/// When an event counts as passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventOrder {
    /// When the host's time has reached it.
    #[default]
    Clock,
    /// At once.
    Eager,
    /// When the host has waited for it, or for something after it in its stream.
    Lazy,
}

/// What a query that found nothing costs the host; each further one in a row doubles it, so that a program that polls gets on.
const POLL_SECS: f64 = 1e-6;
/// So often in a row a program may ask before something counts as passed though nobody waited for it.
const MOST_POLLS: u32 = 64;

/// Sums of one kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Tally {
    /// How often.
    pub calls: u64,
    /// How long.
    pub secs: Span,
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes.
    pub bytes: f64,
}

/// The clocks of one device.
#[derive(Debug)]
pub struct Clock {
    host: Arc<HostClock>,
    order: EventOrder,
    streams: HashMap<u64, Span>,
    /// Until when the host has waited for each stream.
    waited: HashMap<u64, Span>,
    free: [Span; 3],
    busy: [Span; 3],
    stalled: Span,
    polls: u32,
    tallies: BTreeMap<&'static str, Tally>,
}

impl Clock {
    /// At the beginning of time.
    pub fn new(host: Arc<HostClock>, order: EventOrder) -> Self {
        Self {
            host,
            order,
            streams: HashMap::new(),
            waited: HashMap::new(),
            free: [Span::default(); 3],
            busy: [Span::default(); 3],
            stalled: Span::default(),
            polls: 0,
            tallies: BTreeMap::new(),
        }
    }

    /// When the stream has done what it was given.
    pub fn end_of(&self, stream: u64) -> Span {
        self.streams.get(&stream).copied().unwrap_or_default()
    }

    /// The host asks, in `launch`, for work on `stream` that takes `cost`. Gives when it begins.
    pub fn run(&mut self, stream: u64, engine: Engine, launch: Span, cost: Span) -> Span {
        self.polls = 0;
        let asked = self.host.spend(launch);
        let begins = self.end_of(stream).max(asked).max(self.free[engine as usize]);
        self.finish(stream, engine, begins + cost, cost);
        begins
    }

    /// What was put last on the stream takes so much longer than was said.
    pub fn lengthen(&mut self, stream: u64, engine: Engine, cost: Span) -> Span {
        let ends = self.end_of(stream).max(self.free[engine as usize]) + cost;
        self.finish(stream, engine, ends, cost);
        ends
    }

    fn finish(&mut self, stream: u64, engine: Engine, ends: Span, cost: Span) {
        self.streams.insert(stream, ends);
        self.free[engine as usize] = ends;
        self.busy[engine as usize] += cost;
    }

    /// Adds to the sums of a kind of work.
    pub fn count(&mut self, name: &'static str, calls: u64, secs: Span, operations: f64, bytes: f64) {
        let tally = self.tallies.entry(name).or_default();
        tally.calls += calls;
        tally.secs += secs;
        tally.operations += operations;
        tally.bytes += bytes;
    }

    /// Marks the stream, which the host asks for in `launch`: the time of the event.
    pub fn record(&mut self, stream: u64, launch: Span) -> Span {
        self.polls = 0;
        let time = self.end_of(stream).max(self.host.spend(launch));
        self.streams.insert(stream, time);
        time
    }

    /// What the stream is given from here on begins no sooner than at `time`.
    pub fn wait(&mut self, stream: u64, time: Span, launch: Span) {
        self.polls = 0;
        let now = self.end_of(stream).max(self.host.spend(launch));
        let later = now.max(time);
        self.stalled += later - now;
        self.streams.insert(stream, later);
    }

    /// The host waits for what the stream was given until `time`; for all of it without.
    pub fn synchronize(&mut self, stream: u64, time: Option<Span>) {
        self.polls = 0;
        let time = time.unwrap_or_else(|| self.end_of(stream));
        self.host.wait_until(time);
        let waited = self.waited.entry(stream).or_default();
        *waited = waited.max(time);
    }

    /// The host waits for all streams.
    pub fn synchronize_all(&mut self) {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.synchronize(stream, None));
    }

    /// Whether the stream has passed `time`, or all that it was given, as the host asks.
    pub fn has_passed(&mut self, stream: u64, time: Option<Span>) -> bool {
        let time = time.unwrap_or_else(|| self.end_of(stream));
        let passed = match self.order {
            EventOrder::Eager => true,
            EventOrder::Clock => time.expected() <= self.host.now().expected(),
            EventOrder::Lazy => {
                let waited = self.waited.get(&stream).copied().unwrap_or_default();
                time.expected() <= waited.expected() || self.polls >= MOST_POLLS
            }
        };
        if passed {
            self.polls = 0;
        } else {
            // No further than to what is asked for.
            let left = (time - self.host.now()).max(Span::default());
            let poll = POLL_SECS * f64::from(1 << self.polls.min(30));
            self.host.spend(Span(left.0.map(|left| left.min(poll))));
            self.polls += 1;
        }
        passed
    }

    /// How long each engine has worked.
    pub fn busy(&self) -> [Span; 3] {
        self.busy
    }

    /// How long streams have waited for events that had not come.
    pub fn stalled(&self) -> Span {
        self.stalled
    }

    /// When all that was asked for until now is done.
    pub fn end(&self) -> Span {
        self.streams.values().fold(self.host.now(), |latest, &time| latest.max(time))
    }

    /// The sums of each kind of work.
    pub fn tallies(&self) -> &BTreeMap<&'static str, Tally> {
        &self.tallies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Span = Span([1.0; 3]);

    fn secs(secs: f64) -> Span {
        Span([secs; 3])
    }

    fn clock(order: EventOrder) -> Clock {
        Clock::new(Arc::default(), order)
    }

    #[test]
    fn copies_overlap_with_arithmetic_and_a_wait_orders_them() {
        let mut clock = clock(EventOrder::Clock);
        // Asked for at 1, copied until 11; asked for at 2, computed until 7.
        assert_eq!(clock.run(7, Engine::ToDevice, ASK, secs(10.0)), secs(1.0));
        assert_eq!(clock.run(0, Engine::Compute, ASK, secs(5.0)), secs(2.0));
        let arrived = clock.record(7, ASK);
        assert_eq!(arrived, secs(11.0));
        clock.wait(0, arrived, ASK);
        // The stream was at 7 and stood still for 4.
        assert_eq!(clock.stalled(), secs(4.0));
        assert_eq!(clock.run(0, Engine::Compute, ASK, secs(1.0)), secs(11.0));
        assert_eq!((clock.end(), clock.busy()), (secs(12.0), [secs(6.0), secs(10.0), secs(0.0)]));
    }

    #[test]
    fn one_engine_does_one_thing_after_another() {
        let mut clock = clock(EventOrder::Clock);
        clock.run(7, Engine::Compute, ASK, secs(10.0));
        assert_eq!(clock.run(8, Engine::Compute, ASK, secs(1.0)), secs(11.0));
        assert_eq!(clock.lengthen(8, Engine::Compute, secs(2.0)), secs(14.0));
        assert_eq!(clock.run(7, Engine::Compute, ASK, secs(1.0)), secs(14.0));
    }

    #[test]
    fn an_event_is_passed_when_its_order_says_so() {
        for (order, before, after_another) in
            [(EventOrder::Eager, true, true), (EventOrder::Clock, false, true), (EventOrder::Lazy, false, false)]
        {
            let mut clock = clock(order);
            clock.run(7, Engine::Compute, ASK, secs(10.0));
            let event = clock.record(7, ASK);
            assert_eq!(clock.has_passed(7, Some(event)), before, "{order:?}");
            // By then the host has waited longer than the event takes, but for another stream.
            clock.run(8, Engine::Compute, ASK, secs(5.0));
            clock.synchronize(8, None);
            assert_eq!(clock.has_passed(7, Some(event)), after_another, "{order:?}");
            clock.synchronize(7, Some(event));
            assert!(clock.has_passed(7, Some(event)), "{order:?}");
        }
    }

    #[test]
    fn a_program_that_polls_gets_on() {
        for order in [EventOrder::Clock, EventOrder::Lazy] {
            let mut clock = clock(order);
            clock.run(7, Engine::Compute, ASK, secs(1000.0));
            let asked = (1..).find(|_| clock.has_passed(7, None)).expect("at last");
            assert!(asked <= MOST_POLLS as i32 + 1, "{order:?}: {asked}");
        }
    }

    /// Numbers that look random, the same each time.
    fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        })
    }

    #[test]
    fn time_never_runs_backwards_and_nothing_is_done_in_less_than_its_busiest_engine_takes() {
        for seed in 0..200 {
            let mut numbers = numbers(seed);
            let mut next = |below: u64| numbers.next().expect("endless") % below;
            let mut clock = clock(EventOrder::Clock);
            let mut events = vec![Span::default()];
            let mut host = Span::default();
            let mut ends = [Span::default(); 4];
            for _ in 0..200 {
                let stream = next(4);
                match next(5) {
                    0 | 1 => {
                        let engine = [Engine::Compute, Engine::ToDevice, Engine::ToHost][next(3) as usize];
                        let cost = Span([1.0, 2.0, 3.0]) * next(10) as f64;
                        clock.run(stream, engine, ASK, cost);
                    }
                    2 => events.push(clock.record(stream, ASK)),
                    3 => clock.wait(stream, events[next(events.len() as u64) as usize], ASK),
                    _ => clock.synchronize(stream, None),
                }
                let now = clock.host.now();
                assert!((0..3).all(|world| now.0[world] >= host.0[world]), "seed {seed}");
                host = now;
                for (stream, end) in ends.iter_mut().enumerate() {
                    let later = clock.end_of(stream as u64);
                    assert!((0..3).all(|world| later.0[world] >= end.0[world]), "seed {seed}");
                    *end = later;
                }
            }
            for world in 0..3 {
                let busiest = clock.busy().map(|busy| busy.0[world]).into_iter().fold(0.0, f64::max);
                assert!(clock.end().0[world] >= busiest, "seed {seed}");
            }
        }
    }
}
