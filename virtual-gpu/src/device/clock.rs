//! The virtual clock: when each stream has done what it was given, and how far the host has come.
//!
//! # Note: the model
//! What is put on a stream begins when the stream has done what came before it, when the host has asked for it, and when the engine that does it is free.
//! There are three engines, each of which does one thing after another in the order in which it was asked: one computes, one copies to the device, one copies to the
//! host. So arithmetic and copies overlap as on a card with two copy engines, while kernels of different streams do not: large ones have no room beside each other.
//! An event has the time of its stream when it was recorded; a stream that waits for it goes on no sooner. The host takes time to ask for something, and waits
//! when it synchronises, or when it is too far ahead: a stream takes no more than [`MOST_PENDING`] pieces of work that are not done. The default stream orders itself with no other one, as PyTorch's streams do not with it.
//!
//! # Note: what is known to come before what
//! Times alone do not say what surely came before: in another run the card may be quicker or slower. So each stream also keeps how far it knows the others to be,
//! by the events that it waited for, an event keeps what its stream knew, and the host what all that it waited for knew. A stream that was destroyed is forgotten
//! everywhere once the host knows that it has done what it was given, so that a program may make streams for as long as it runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use virtual_gpu_protocol::WorkSum;

use super::lock::lock;
use super::span::Span;

/// So much work may wait in a stream; the host that asks for more waits until the first of it is done. NVIDIA does not document it: kernels were launched about a thousand
/// deep in each stream before launching took as long as the kernel (forums.developer.nvidia.com/t/68937, stackoverflow.com/questions/53970187), and others count 1024
/// (github.com/Oneflow-Inc/oneflow/pull/890).
const MOST_PENDING: usize = 1024;

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
    /// When the host has waited for it, or for something that comes after it.
    Lazy,
}

/// How far other streams surely are.
pub type Progress = BTreeMap<u64, Span>;

fn reach(progress: &mut Progress, stream: u64, time: Span) {
    let known = progress.entry(stream).or_default();
    *known = known.max(time);
}

/// A moment in the course of a stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moment {
    /// Which stream.
    pub stream: u64,
    /// When.
    pub time: Span,
    /// Whether what the stream did last was a copy between host and device.
    pub(super) is_after_copy: bool,
    /// How far the other streams are by then.
    pub(super) before: Progress,
}

/// What a query that found nothing costs the host; each further one in a row doubles it, so that a program that polls gets on.
const POLL_SECS: f64 = 1e-6;
/// So often in a row a program may ask before something counts as passed though nobody waited for it.
const MOST_POLLS: u32 = 64;

/// What use the device was put to, as is most likely.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// How long it computed.
    pub compute_secs: f64,
    /// Bytes that it is known to have read and written.
    pub bytes: f64,
    /// How long it could have: until all that it was asked for is done.
    pub secs: f64,
}

/// Is told of it.
pub type UsageWatch = Box<dyn Fn(Usage) + Send>;

/// The clocks of one device.
pub struct Clock {
    host: Arc<HostClock>,
    order: EventOrder,
    /// Where each stream will be when it has done what it was given.
    streams: BTreeMap<u64, Moment>,
    /// When the work that each stream was given last is done, no more of it than may wait.
    pending: BTreeMap<u64, VecDeque<Span>>,
    /// Those of them that were destroyed and may have something left to do.
    destroyed: BTreeSet<u64>,
    /// What the host has waited for.
    waited: Progress,
    free: [Span; 3],
    busy: [Span; 3],
    stalled: Span,
    waited_for_ranks: Span,
    /// Seconds of arithmetic less those in which it stood still since, as is most likely: how long the card has been under load.
    load_secs: f64,
    polls: u32,
    sums: Vec<(&'static str, WorkSum)>,
    watch: Option<UsageWatch>,
}

impl Clock {
    /// At the beginning of time.
    pub fn new(host: Arc<HostClock>, order: EventOrder) -> Self {
        Self {
            host,
            order,
            streams: BTreeMap::new(),
            pending: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            waited: Progress::new(),
            free: [Span::default(); 3],
            busy: [Span::default(); 3],
            stalled: Span::default(),
            waited_for_ranks: Span::default(),
            load_secs: 0.0,
            polls: 0,
            sums: Vec::new(),
            watch: None,
        }
    }

    /// Has `watch` told now, and whenever there was work or the host waited.
    pub fn watch(&mut self, watch: UsageWatch) {
        self.watch = Some(watch);
        self.tell();
    }

    fn tell(&self) {
        if let Some(watch) = &self.watch {
            watch(self.usage());
        }
    }

    /// What use the device was put to.
    pub fn usage(&self) -> Usage {
        Usage {
            compute_secs: self.busy[Engine::Compute as usize].expected(),
            bytes: self.sums.iter().map(|(_, sum)| sum.bytes).sum(),
            secs: self.end().expected(),
        }
    }

    /// When the stream has done what it was given.
    pub fn end_of(&self, stream: u64) -> Span {
        self.streams.get(&stream).map(|end| end.time).unwrap_or_default()
    }

    fn stream(&mut self, stream: u64) -> &mut Moment {
        self.streams.entry(stream).or_insert_with(|| Moment { stream, ..Moment::default() })
    }

    /// The host asks, in `launch`, for work on `stream` that takes `cost`. Gives when it begins.
    pub fn run(&mut self, stream: u64, engine: Engine, launch: Span, cost: Span) -> Span {
        let begins = self.arrive(stream, engine, launch);
        self.run_at(begins, stream, engine, cost);
        begins
    }

    /// The host asks, in `launch`, for work on `stream`: when it may begin.
    pub fn arrive(&mut self, stream: u64, engine: Engine, launch: Span) -> Span {
        self.polls = 0;
        self.wait_for_room(stream);
        let asked = self.host.spend(launch);
        self.end_of(stream).max(asked).max(self.free[engine as usize])
    }

    /// What was asked for begins then.
    fn run_at(&mut self, begins: Span, stream: u64, engine: Engine, cost: Span) {
        self.finish(stream, engine, begins + cost, cost);
        self.pending.entry(stream).or_default().push_back(begins + cost);
    }

    /// What was asked for and may begin at `arrived` begins later, when other ranks are there.
    pub fn run_with_others(&mut self, [arrived, begins]: [Span; 2], stream: u64, engine: Engine, cost: Span) {
        self.waited_for_ranks += begins - arrived;
        self.run_at(begins, stream, engine, cost);
    }

    /// The host waits until the stream takes one more piece of work.
    fn wait_for_room(&mut self, stream: u64) {
        let Some(pending) = self.pending.get_mut(&stream) else { return };
        let Some(first) = (pending.len() >= MOST_PENDING).then(|| pending.pop_front()).flatten() else { return };
        self.host.wait_until(first);
        reach(&mut self.waited, stream, first);
    }

    /// What was put last on the stream takes so much longer than was said.
    pub fn lengthen(&mut self, stream: u64, engine: Engine, cost: Span) -> Span {
        let ends = self.end_of(stream).max(self.free[engine as usize]) + cost;
        self.finish(stream, engine, ends, cost);
        if let Some(last) = self.pending.get_mut(&stream).and_then(VecDeque::back_mut) {
            *last = ends;
        }
        ends
    }

    /// How long the card has been under load: it cools down as fast as it warms up, a rule.
    pub fn load_secs(&self) -> f64 {
        self.load_secs
    }

    fn finish(&mut self, stream: u64, engine: Engine, ends: Span, cost: Span) {
        if engine == Engine::Compute {
            let stood = (ends - cost - self.free[engine as usize]).expected().max(0.0);
            self.load_secs = (self.load_secs - stood).max(0.0) + cost.expected();
        }
        let end = self.stream(stream);
        end.time = ends;
        end.is_after_copy = engine != Engine::Compute;
        self.free[engine as usize] = ends;
        self.busy[engine as usize] += cost;
        self.tell();
    }

    /// Adds to the sums of a kind of work.
    pub fn count(&mut self, name: &'static str, calls: u64, secs: Span, operations: f64, bytes: f64) {
        // They are few, and counted with every kernel: nearly always the place of a name's text tells which it is.
        let index = self.sums.iter().position(|(other, _)| std::ptr::eq(*other, name) || *other == name).unwrap_or_else(|| {
            self.sums.push((name, WorkSum::default()));
            self.sums.len() - 1
        });
        let sum = &mut self.sums[index].1;
        sum.calls += calls;
        sum.secs = (Span(sum.secs) + secs).0;
        sum.operations += operations;
        sum.bytes += bytes;
    }

    /// Marks the stream, which the host asks for in `launch`: the moment of the event.
    pub fn record(&mut self, stream: u64, launch: Span) -> Moment {
        self.polls = 0;
        let asked = self.host.spend(launch);
        let end = self.stream(stream);
        end.time = end.time.max(asked);
        end.clone()
    }

    /// What the stream is given from here on comes after `moment`.
    pub fn wait(&mut self, stream: u64, moment: &Moment, launch: Span) {
        self.wait_until(stream, moment.time, launch, moment.is_after_copy);
        let known = self.known(moment);
        let end = self.stream(stream);
        known.into_iter().for_each(|(other, time)| reach(&mut end.before, other, time));
    }

    /// How far streams surely are by that moment, those that are not forgotten.
    fn known(&self, moment: &Moment) -> Vec<(u64, Span)> {
        let before = moment.before.iter().map(|(&stream, &time)| (stream, time));
        before.chain([(moment.stream, moment.time)]).filter(|(stream, _)| self.streams.contains_key(stream)).collect()
    }

    /// The same, where the moment is one of another device's: of its streams nothing more is known here.
    pub fn wait_for_another_device(&mut self, stream: u64, moment: &Moment, launch: Span) {
        self.wait_until(stream, moment.time, launch, moment.is_after_copy);
    }

    fn wait_until(&mut self, stream: u64, time: Span, launch: Span, is_for_copy: bool) {
        self.polls = 0;
        let asked = self.host.spend(launch);
        let end = self.stream(stream);
        let now = end.time.max(asked);
        end.time = now.max(time);
        if is_for_copy && !end.is_after_copy {
            let stood = end.time - now;
            self.stalled += stood;
        }
    }

    /// The host waits for a moment of a stream.
    pub fn synchronize(&mut self, moment: &Moment) {
        self.polls = 0;
        self.host.wait_until(moment.time);
        self.know(moment);
        self.tell();
    }

    fn know(&mut self, moment: &Moment) {
        for (stream, time) in self.known(moment) {
            reach(&mut self.waited, stream, time);
        }
        self.forget();
    }

    /// The stream is no more; what it was given is still done.
    pub fn destroy(&mut self, stream: u64) {
        if self.streams.contains_key(&stream) {
            self.destroyed.insert(stream);
        }
        self.forget();
    }

    /// Forgets the destroyed streams that the host knows to be done.
    fn forget(&mut self) {
        let now = self.host.now();
        let is_done = |stream: &u64| {
            let end = self.streams.get(stream).map(|end| end.time).unwrap_or_default();
            let waited = self.waited.get(stream).copied().unwrap_or_default();
            end.max(now) == now && (self.order != EventOrder::Lazy || end.max(waited) == waited)
        };
        let done: BTreeSet<u64> = self.destroyed.iter().copied().filter(is_done).collect();
        if done.is_empty() {
            return;
        }
        let is_left = |stream: &u64| !done.contains(stream);
        self.destroyed.retain(is_left);
        self.streams.retain(|stream, _| is_left(stream));
        self.pending.retain(|stream, _| is_left(stream));
        self.waited.retain(|stream, _| is_left(stream));
        self.streams.values_mut().for_each(|end| end.before.retain(|stream, _| is_left(stream)));
    }

    /// The host waits for all that the stream was given.
    pub fn synchronize_stream(&mut self, stream: u64) {
        let end = self.stream(stream).clone();
        self.synchronize(&end);
    }

    /// The host waits for all streams.
    pub fn synchronize_all(&mut self) {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.synchronize_stream(stream));
    }

    /// Whether all that the stream was given is done, as the host asks.
    pub fn is_done(&mut self, stream: u64) -> bool {
        let end = self.stream(stream).clone();
        self.has_passed(&end)
    }

    /// Whether the moment has come, as the host asks.
    pub fn has_passed(&mut self, moment: &Moment) -> bool {
        let passed = match self.order {
            EventOrder::Eager => true,
            EventOrder::Clock => moment.time.expected() <= self.host.now().expected(),
            EventOrder::Lazy => {
                if self.polls >= MOST_POLLS {
                    // From here on, whoever asks.
                    self.know(moment);
                }
                let known = self.waited.get(&moment.stream).copied().unwrap_or_default();
                // What was forgotten was done.
                moment.time.expected() <= known.expected() || !self.streams.contains_key(&moment.stream)
            }
        };
        if passed {
            self.polls = 0;
        } else {
            // No further than to what is asked for.
            let left = (moment.time - self.host.now()).max(Span::default());
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

    /// How long arithmetic has stood still for copies: a stream whose last work was no copy between host and device waited for an event before which that of its own
    /// stream was one.
    pub fn stalled(&self) -> Span {
        self.stalled
    }

    /// How long work has waited for other ranks.
    pub fn waited_for_ranks(&self) -> Span {
        self.waited_for_ranks
    }

    /// When all that was asked for until now is done.
    pub fn end(&self) -> Span {
        self.streams.values().fold(self.host.now(), |latest, end| latest.max(end.time))
    }

    /// The sums of each kind of work.
    pub fn sums(&self) -> BTreeMap<String, WorkSum> {
        self.sums.iter().map(|&(name, sum)| (name.to_owned(), sum)).collect()
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
        assert_eq!(arrived.time, secs(11.0));
        clock.wait(0, &arrived, ASK);
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
    fn a_host_that_is_far_ahead_waits_until_there_is_room() {
        for order in [EventOrder::Clock, EventOrder::Lazy] {
            let mut clock = clock(order);
            clock.run(7, Engine::Compute, Span::default(), secs(1.0));
            clock.lengthen(7, Engine::Compute, secs(9.0));
            let first = clock.record(7, Span::default());
            for _ in 1..MOST_PENDING {
                clock.run(7, Engine::Compute, Span::default(), secs(1.0));
            }
            assert_eq!(clock.host.now(), secs(0.0), "{order:?}: there is room for so many");
            clock.run(8, Engine::ToHost, Span::default(), secs(1.0));
            assert_eq!(clock.host.now(), secs(0.0), "{order:?}: another stream has room of its own");
            clock.run(7, Engine::Compute, Span::default(), secs(1.0));
            assert_eq!(clock.host.now(), secs(10.0), "{order:?}: until the first is done");
            assert!(clock.has_passed(&first), "{order:?}");
            clock.run(7, Engine::Compute, Span::default(), secs(1.0));
            assert_eq!(clock.host.now(), secs(11.0), "{order:?}: until the next one is");
        }
    }

    #[test]
    fn an_event_is_passed_when_its_order_says_so() {
        for (order, before, after_another) in
            [(EventOrder::Eager, true, true), (EventOrder::Clock, false, true), (EventOrder::Lazy, false, false)]
        {
            let mut clock = clock(order);
            clock.run(7, Engine::Compute, ASK, secs(10.0));
            let event = clock.record(7, ASK);
            assert_eq!(clock.has_passed(&event), before, "{order:?}");
            // By then the host has waited longer than the event takes, but for another stream.
            clock.run(8, Engine::Compute, ASK, secs(5.0));
            clock.synchronize_stream(8);
            assert_eq!(clock.has_passed(&event), after_another, "{order:?}");
            clock.synchronize(&event);
            assert!(clock.has_passed(&event), "{order:?}");
        }
    }

    #[test]
    fn what_comes_before_what_the_host_has_waited_for_is_passed() {
        let mut clock = clock(EventOrder::Lazy);
        clock.run(7, Engine::ToHost, ASK, secs(10.0));
        let copied = clock.record(7, ASK);
        clock.run(7, Engine::ToHost, ASK, secs(10.0));
        // Stream 9 comes after stream 8, and that after the first copy.
        clock.wait(8, &copied, ASK);
        let between = clock.record(8, ASK);
        clock.wait(9, &between, ASK);
        let last = clock.record(9, ASK);
        assert!(!clock.has_passed(&copied));
        clock.synchronize(&last);
        assert!(clock.has_passed(&copied) && clock.has_passed(&between));
        assert!(!clock.is_done(7), "the second copy comes after all of that");
    }

    #[test]
    fn a_destroyed_stream_is_forgotten_once_it_is_known_to_be_done() {
        for order in [EventOrder::Clock, EventOrder::Eager, EventOrder::Lazy] {
            let mut clock = clock(order);
            clock.run(7, Engine::Compute, ASK, secs(10.0));
            let event = clock.record(7, ASK);
            clock.wait(8, &event, ASK);
            clock.destroy(7);
            assert_eq!(clock.end(), secs(11.0), "{order:?}: its work is still done");
            assert_eq!(clock.has_passed(&event), order == EventOrder::Eager, "{order:?}");
            assert_eq!((clock.streams.len(), clock.destroyed.len()), (2, 1), "{order:?}");
            clock.synchronize_stream(8);
            assert_eq!(clock.end(), secs(11.0), "{order:?}");
            assert_eq!((clock.streams.len(), clock.destroyed.len()), (1, 0), "{order:?}");
            assert!(!clock.waited.contains_key(&7) && clock.streams[&8].before.is_empty(), "{order:?}");
            // Its event is passed, and whoever waits for it learns of it no more.
            assert!(clock.has_passed(&event), "{order:?}");
            clock.wait(8, &event, ASK);
            clock.synchronize(&event);
            assert!(!clock.waited.contains_key(&7) && clock.streams[&8].before.is_empty(), "{order:?}");
        }
    }

    #[test]
    fn a_destroyed_stream_that_is_waited_for_with_all_others_is_forgotten() {
        let mut clock = clock(EventOrder::Lazy);
        for stream in 7..100 {
            clock.run(stream, Engine::Compute, ASK, secs(10.0));
            clock.destroy(stream);
        }
        clock.synchronize_all();
        assert_eq!((clock.streams.len(), clock.waited.len(), clock.end()), (0, 0, secs(931.0)));
    }

    #[test]
    fn arithmetic_stands_still_for_copies_alone() {
        let mut clock = clock(EventOrder::Clock);
        // Computed from 1 until 11, copied from 2 until 7.
        clock.run(0, Engine::Compute, ASK, secs(10.0));
        clock.run(7, Engine::ToDevice, ASK, secs(5.0));
        let computed = clock.record(0, ASK);
        // A copy that waits for arithmetic, and arithmetic that waits for arithmetic.
        clock.wait(7, &computed, ASK);
        clock.wait(8, &computed, ASK);
        assert_eq!(clock.stalled(), secs(0.0));
        // Copied from 11 until 16: arithmetic has stood since 11.
        clock.run(7, Engine::ToDevice, ASK, secs(5.0));
        let copied = clock.record(7, ASK);
        clock.wait(0, &copied, ASK);
        assert_eq!(clock.stalled(), secs(5.0));
        // Another device's arithmetic has waited since it was asked to at 9.
        clock.wait_for_another_device(9, &copied, ASK);
        assert_eq!(clock.stalled(), secs(5.0 + 7.0));
    }

    #[test]
    fn what_waits_for_other_ranks_begins_when_they_are_there() {
        let mut clock = clock(EventOrder::Clock);
        let arrived = clock.arrive(7, Engine::ToDevice, ASK);
        assert_eq!(arrived, secs(1.0));
        clock.run_with_others([arrived, secs(4.0)], 7, Engine::ToDevice, secs(2.0));
        assert_eq!((clock.end_of(7), clock.waited_for_ranks()), (secs(6.0), secs(3.0)));
        let arrived = clock.arrive(7, Engine::ToDevice, ASK);
        clock.run_with_others([arrived; 2], 7, Engine::ToDevice, secs(2.0));
        assert_eq!((clock.end_of(7), clock.waited_for_ranks()), (secs(8.0), secs(3.0)));
    }

    #[test]
    fn a_program_that_polls_gets_on() {
        for order in [EventOrder::Clock, EventOrder::Lazy] {
            let mut clock = clock(order);
            clock.run(7, Engine::Compute, ASK, secs(1000.0));
            let asked = (1..).find(|_| clock.is_done(7)).expect("at last");
            assert!(asked <= MOST_POLLS as i32 + 1, "{order:?}: {asked}");
            assert!(clock.is_done(7), "{order:?}: what is done stays so");
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

    /// Whether in no world `a` is before `b`.
    fn later(a: Span, b: Span) -> bool {
        (0..3).all(|world| a.0[world] >= b.0[world])
    }

    #[test]
    fn time_never_runs_backwards_and_lies_between_the_longest_chain_and_one_thing_after_another() {
        for seed in 0..200 {
            let mut numbers = numbers(seed);
            let mut next = |below: u64| numbers.next().expect("endless") % below;
            let mut clock = clock(EventOrder::Clock);
            // Of each moment how long the chain of what has to come before it is, whatever engines do it.
            let mut events = vec![(Moment::default(), Span::default())];
            let (mut chains, mut chain_of_host) = ([Span::default(); 4], Span::default());
            let (mut host, mut ends) = (Span::default(), [Span::default(); 4]);
            let mut one_after_another = Span::default();
            for _ in 0..200 {
                let stream = next(4);
                let chain = &mut chains[stream as usize];
                let work = next(5);
                if work < 4 {
                    one_after_another += ASK;
                    chain_of_host += ASK;
                    *chain = chain.max(chain_of_host);
                }
                match work {
                    0 | 1 => {
                        let engine = [Engine::Compute, Engine::ToDevice, Engine::ToHost][next(3) as usize];
                        let cost = Span([1.0, 2.0, 3.0]) * next(10) as f64;
                        clock.run(stream, engine, ASK, cost);
                        one_after_another += cost;
                        *chain += cost;
                    }
                    2 => events.push((clock.record(stream, ASK), *chain)),
                    3 => {
                        let (moment, before) = &events[next(events.len() as u64) as usize];
                        clock.wait(stream, moment, ASK);
                        *chain = chain.max(*before);
                    }
                    _ => {
                        clock.synchronize_stream(stream);
                        chain_of_host = chain_of_host.max(*chain);
                    }
                }
                let now = clock.host.now();
                assert!(later(now, host), "seed {seed}");
                host = now;
                for (stream, end) in ends.iter_mut().enumerate() {
                    let moved = clock.end_of(stream as u64);
                    assert!(later(moved, *end), "seed {seed}");
                    *end = moved;
                }
            }
            let end = clock.end();
            assert!(clock.busy().into_iter().all(|busy| later(end, busy)), "seed {seed}");
            assert!(chains.into_iter().all(|chain| later(end, chain)), "seed {seed}");
            assert!(later(one_after_another, end), "seed {seed}");
        }
    }
}
