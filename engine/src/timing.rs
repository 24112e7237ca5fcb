//! How long things take on the device, and what it does meanwhile. What each operation takes is `operation_times`'.
//!
//! A time is what lies between two events of the stream that libtorch computes on. So the same code measures a real GPU and asks the virtual one's
//! clock. On the CPU it is the time that went by. Each operation of the GPU is reported on the thread that asked for it (see `cuda/observer.cpp`).

use std::cell::RefCell;
use std::time::Instant;

use engine_protocol::{Secs, StageTime, StageWork};
use tch::Device;

use crate::cuda::{self, Event, Stream};
use crate::error::Result;
use crate::signs;

/// Where a time begins.
#[derive(Debug)]
enum Stopwatch {
    OnHost(Instant),
    OnGpu(Event),
}

impl Stopwatch {
    fn start(device: Device) -> Result<Self> {
        Ok(if device.is_cuda() { Self::OnGpu(mark(Stream::current()?)?) } else { Self::OnHost(Instant::now()) })
    }

    /// The time until now; the next one begins here. Waits for what the device was given.
    fn lap(&mut self) -> Result<Secs> {
        match self {
            Self::OnHost(begun) => {
                let now = Instant::now();
                Ok(Secs::measured((now - std::mem::replace(begun, now)).as_secs_f64()))
            }
            Self::OnGpu(begun) => {
                let now = mark(Stream::current()?)?;
                now.synchronize()?;
                let secs = begun.until(&now)?;
                *begun = now;
                Ok(secs)
            }
        }
    }
}

/// A mark in `stream` that knows when it is passed.
pub(crate) fn mark(stream: Stream) -> Result<Event> {
    let event = Event::timed()?;
    event.record(stream)?;
    Ok(event)
}

/// The stage that runs on this thread.
#[derive(Debug, Default)]
struct StageClock {
    /// Since the stage began, and since its last step ended.
    watches: Option<[Stopwatch; 2]>,
    work: StageWork,
    /// Each wait: before and after it in the stream of arithmetic. How long it took is read when the device has passed it.
    waits: Vec<(WaitsFor, [Event; 2])>,
    /// For copies.
    stalled: Secs,
    /// For what ranks exchange, where they do, and in that for those that were not there yet, where that is known.
    exchanged: Option<Secs>,
    waited: Option<Secs>,
    /// What was loaded meanwhile took so long: in the step until now, and in the stage before that step.
    loading: [Secs; 2],
    /// Something was left out, and nobody knows how long it would have taken.
    is_unknown: bool,
}

/// What arithmetic waits for.
#[derive(Debug, Clone, Copy)]
enum WaitsFor {
    Copy,
    Ranks,
}

thread_local! {
    static CLOCK: RefCell<StageClock> = RefCell::default();
}

/// The GPU was asked for so much.
pub(crate) fn report(operations: f64, bytes: f64) {
    CLOCK.with_borrow_mut(|clock| {
        clock.work.operations += operations;
        clock.work.bytes += bytes;
    });
}

/// The host leaves out something that would take so long, where that is known.
pub(crate) fn leave_out(secs: Option<Secs>) {
    match secs {
        Some(secs) => cuda::host_work(secs),
        None => CLOCK.with_borrow_mut(|clock| clock.is_unknown = true),
    }
}

/// Has the arithmetic in `compute` wait until a copy has `arrived`, and keeps for how long.
pub(crate) fn wait_for_copy(compute: Stream, arrived: &Event) -> Result<()> {
    wait(WaitsFor::Copy, compute, || compute.wait(arrived))
}

/// Runs `exchange`, by which ranks send each other tensors in the stream of arithmetic, and keeps how long that takes, and how much of it they wait for each other.
pub(crate) fn exchange(exchange: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = cuda::waited_for_ranks();
    wait(WaitsFor::Ranks, Stream::current()?, exchange)?;
    if let Some((before, after)) = before.zip(cuda::waited_for_ranks()) {
        CLOCK.with_borrow_mut(|clock| clock.waited = Some(clock.waited.unwrap_or_default() + (after - before)));
    }
    Ok(())
}

fn wait(waits_for: WaitsFor, compute: Stream, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = mark(compute)?;
    run()?;
    let after = mark(compute)?;
    CLOCK.with_borrow_mut(|clock| clock.waits.push((waits_for, [before, after])));
    Ok(())
}

/// Runs `load` in the middle of a stage, whose time is without what that takes: loading is apart wherever it happens.
pub(crate) fn apart<R>(device: Device, load: impl FnOnce() -> Result<R>) -> Result<R> {
    signs::interrupt_step();
    let mut watch = Stopwatch::start(device)?;
    let loaded = load()?;
    let secs = watch.lap()?;
    CLOCK.with_borrow_mut(|clock| clock.loading[0] = clock.loading[0] + secs);
    Ok(loaded)
}

/// A stage begins on `device`.
pub(crate) fn begin_stage(device: Device) -> Result<()> {
    let watches = Some([Stopwatch::start(device)?, Stopwatch::start(device)?]);
    CLOCK.set(StageClock { watches, ..StageClock::default() });
    signs::begin_stage();
    Ok(())
}

/// The time since the last step ended, or the stage began.
pub(crate) fn end_step() -> Result<Option<Secs>> {
    CLOCK.with_borrow_mut(|clock| {
        clock.pass_exchanges()?;
        let secs = clock.watches.as_mut().map(|[_, step]| step.lap()).transpose()?;
        clock.add_up_waits()?;
        let loading = std::mem::take(&mut clock.loading[0]);
        clock.loading[1] = clock.loading[1] + loading;
        signs::end_step();
        Ok(secs.filter(|_| !clock.is_unknown).map(|secs| secs - loading))
    })
}

/// The stage is over: its time, where that is known.
pub(crate) fn end_stage() -> Result<Option<StageTime>> {
    CLOCK.take().end()
}

impl StageClock {
    fn end(mut self) -> Result<Option<StageTime>> {
        self.pass_exchanges()?;
        let Some([whole, _]) = &mut self.watches else { return Ok(None) };
        let secs = whole.lap()? - self.loading[0] - self.loading[1];
        let on_gpu = matches!(whole, Stopwatch::OnGpu(_));
        self.add_up_waits()?;
        let time = StageTime {
            secs,
            copy_stall: on_gpu.then_some(self.stalled),
            exchange: self.exchanged.map(|all| (all - self.waited.unwrap_or_default()).max(Secs::default()).in_order()),
            waiting: self.waited.map(Secs::in_order),
            work: on_gpu.then_some(self.work),
        };
        Ok((!self.is_unknown).then_some(time))
    }

    /// Waits until the device has passed each exchange, one after the other, so that others see which one it stands in.
    fn pass_exchanges(&self) -> Result<()> {
        for (_, [before, after]) in self.waits.iter().filter(|(waits_for, _)| matches!(waits_for, WaitsFor::Ranks)) {
            if after.has_passed()? {
                signs::met_without_waiting();
                continue;
            }
            before.synchronize()?;
            signs::wait_for_ranks(|| after.synchronize())?;
        }
        Ok(())
    }

    /// Adds up the waits, all of which the device has passed: the stream that they are in was waited for.
    fn add_up_waits(&mut self) -> Result<()> {
        for (waits_for, [before, after]) in self.waits.drain(..) {
            let secs = before.until(&after)?;
            match waits_for {
                WaitsFor::Copy => self.stalled = self.stalled + secs,
                WaitsFor::Ranks => self.exchanged = Some(self.exchanged.unwrap_or_default() + secs),
            }
        }
        Ok(())
    }
}
