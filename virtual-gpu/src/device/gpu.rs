//! One virtual GPU with all of its state.
//!
//! Nothing is computed, so nothing here ever waits: how long work takes, and when it is over, is for the clock to say.

use std::collections::BTreeSet;
use std::mem::take;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use virtual_gpu_protocol::{GpuProfile, NotGivenBack, ProcessUse, Refusals, WorkKind};

use super::address_space::{AddressSpace, Block};
use super::architecture::Architecture;
use super::capacity::{Capacity, MemoryWatch};
use super::capture::Captures;
use super::clock::{Clock, Engine};
use super::counters::Counters;
use super::event::{Events, Mark};
use super::fault::Fault;
use super::graph::{Deed, Load, NodeKind, Step};
use super::host_memory::HostMemory;
use super::lock::lock;
use super::memory::DeviceMemory;
use super::pool::MemoryPool;
use super::process_memory::ProcessMemory;
use super::profile::{capability, uuid_of};
use super::rates::{KernelWork, Rates};
use super::refusals::RefusalBook;
use super::span::Span;
use super::stream::Streams;
use super::timeline::{Timeline, Track};
use super::trace::{Operation, Trace};
use super::virtual_memory::VirtualMemory;

/// What an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Memory of the device.
    Device(Block),
    /// Pinned memory of the host.
    PinnedHost(Block),
    /// Managed memory, which is both's.
    Managed(Block),
    /// Neither: ordinary memory of the process.
    Unregistered,
}

/// Where the devices of a process write down what they do.
#[derive(Clone, Default)]
pub struct Logs {
    /// In which order.
    pub trace: Arc<Trace>,
    /// And when.
    pub timeline: Arc<Timeline>,
}

/// One virtual GPU with all of its state. Locks are held for one operation and never two at a time.
pub struct Device {
    /// Its number among the devices of the machine.
    pub ordinal: u32,
    /// What kind of GPU this is.
    pub profile: GpuProfile,
    /// What its compute capability says.
    pub architecture: Architecture,
    /// What has been asked of it.
    pub counters: Counters,
    /// In which order.
    pub trace: Arc<Trace>,
    /// When each thing began and ended.
    pub timeline: Arc<Timeline>,
    /// What work costs.
    pub rates: Rates,
    is_masked: bool,
    hang: Option<PathBuf>,
    space: Box<dyn AddressSpace>,
    active: AtomicBool,
    has_code: AtomicBool,
    memory: Mutex<Memory>,
    streams: Mutex<Streams>,
    events: Mutex<Events>,
    clock: Mutex<Clock>,
    captures: Mutex<Captures>,
    peers: Mutex<BTreeSet<u32>>,
}

/// All three ways to hold device memory draw on one capacity, and pinned host memory is found by the same lookup.
struct Memory {
    capacity: Capacity,
    process: ProcessMemory,
    allocated: DeviceMemory,
    pool: MemoryPool,
    mapped: VirtualMemory,
    host: HostMemory,
    /// Managed memory lies on the host too.
    managed: HostMemory,
    /// The blocks of it that were moved to a device.
    moved: BTreeSet<u64>,
    refusals: RefusalBook,
}

impl Memory {
    /// Notes what became of a request for device memory.
    fn note<T>(&mut self, bytes: u64, result: Result<T, Fault>) -> Result<T, Fault> {
        match &result {
            Ok(_) => self.refusals.met(bytes),
            Err(Fault::OutOfMemory) => self.refusals.refuse(bytes, self.capacity.free_bytes()),
            Err(_) => {}
        }
        result
    }

    /// The device holds page tables of what is pinned now.
    fn hold_page_tables(&mut self, profile: &GpuProfile) -> Result<(), Fault> {
        let pinned_bytes = self.host.used_bytes();
        self.process.change(profile, &mut self.capacity, |used| used.pinned_bytes = pinned_bytes)
    }

    /// The block of device memory that holds this address.
    fn block_at(&self, address: u64) -> Option<Block> {
        let by_address = [self.allocated.block_at(address), self.pool.block_at(address), self.mapped.block_at(address)];
        by_address.into_iter().flatten().next()
    }
}

impl Device {
    /// A device of this kind, unused: it holds nothing, not even a context.
    pub fn new(profile: GpuProfile, ordinal: u32, space: Box<dyn AddressSpace>, logs: Logs, clock: Clock) -> Self {
        let memory = Memory {
            capacity: Capacity::new(profile.memory_bytes.value),
            process: ProcessMemory::default(),
            allocated: DeviceMemory::default(),
            pool: MemoryPool::default(),
            mapped: VirtualMemory::of_device(ordinal),
            host: HostMemory::default(),
            managed: HostMemory::default(),
            moved: BTreeSet::new(),
            refusals: RefusalBook::default(),
        };
        Self {
            ordinal,
            architecture: Architecture::of(capability(&profile)),
            counters: Counters::default(),
            trace: logs.trace,
            timeline: logs.timeline,
            rates: Rates::of(&profile),
            is_masked: false,
            hang: None,
            space,
            active: AtomicBool::new(false),
            has_code: AtomicBool::new(false),
            memory: Mutex::new(memory),
            streams: Mutex::new(Streams::of_device(ordinal)),
            events: Mutex::new(Events::of_device(ordinal)),
            clock: Mutex::new(clock),
            captures: Mutex::new(Captures::of_device(ordinal)),
            peers: Mutex::new(BTreeSet::new()),
            profile,
        }
    }

    /// Makes the primary context where there is none yet. True the first time.
    pub fn activate(&self) -> Result<bool, Fault> {
        if self.active.load(Ordering::Acquire) {
            return Ok(false);
        }
        let memory = &mut *lock(&self.memory);
        if self.active.load(Ordering::Acquire) {
            return Ok(false);
        }
        memory.process.begin(&self.profile, &mut memory.capacity)?;
        self.active.store(true, Ordering::Release);
        Ok(true)
    }

    /// Sixteen bytes that no other device has, the same in every run.
    pub fn uuid(&self) -> [u8; 16] {
        let mut uuid = uuid_of(&self.profile);
        uuid[15] ^= self.ordinal as u8;
        uuid
    }

    /// The UUID as NVML spells it.
    pub fn uuid_text(&self) -> String {
        let hex: String = self.uuid().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// What the device calls itself. "Virtual" stands first so that no listing is mistaken for a real GPU's, unless a mask is asked for.
    pub fn name(&self) -> String {
        if self.is_masked { self.profile.title.clone() } else { format!("Virtual {}", self.profile.title) }
    }

    /// Has the device call itself by the real GPU's name where that is wanted: for programs that choose by it.
    #[must_use]
    pub fn masked(self, is_masked: bool) -> Self {
        Self { is_masked, ..self }
    }

    /// Has its host page-lock so much at most, where that is wanted: for programs that go on with less.
    #[must_use]
    pub fn locking_at_most(self, bytes: Option<u64>) -> Self {
        if let Some(bytes) = bytes {
            lock(&self.memory).host.limit(bytes);
        }
        self
    }

    /// Has the device go on where its memory is at an end, where that is wanted: what a program needs shows in one run then.
    #[must_use]
    pub fn beyond(self, goes_beyond: bool) -> Self {
        if goes_beyond {
            lock(&self.memory).capacity.go_beyond();
        }
        self
    }

    /// Has it hang as long as that file is there, where one is named: for programs that find out.
    #[must_use]
    pub fn hanging_with(self, hang: Option<PathBuf>) -> Self {
        Self { hang, ..self }
    }

    fn hangs(&self) -> bool {
        self.hang.as_ref().is_some_and(|file| file.exists())
    }

    /// Where it sits on the PCI bus: domain, bus, device. One bus for each device of the machine.
    pub fn pci_address(&self) -> (i32, i32, i32) {
        (0, 1 + i32::try_from(self.ordinal).unwrap_or(0), 0)
    }

    /// The same as text.
    pub fn pci_bus_id(&self) -> String {
        let (domain, bus, device) = self.pci_address();
        format!("{domain:04X}:{bus:02X}:{device:02X}.0")
    }

    /// Whether it can reach the memory of that device, which is of its kind: cards for data centres can, others have to go through the host.
    pub fn can_access(&self, peer: &Self) -> bool {
        self.architecture.has_peer_access() && peer.ordinal != self.ordinal
    }

    /// `cudaDeviceEnablePeerAccess`.
    pub fn enable_peer(&self, peer: &Self) -> Result<(), Fault> {
        if peer.ordinal == self.ordinal {
            return Err(Fault::InvalidDevice);
        }
        if !self.can_access(peer) {
            return Err(Fault::PeerAccess);
        }
        if lock(&self.peers).insert(peer.ordinal) { Ok(()) } else { Err(Fault::PeerAccessEnabled) }
    }

    /// Whether the primary context exists.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// `cudaMalloc`.
    pub fn allocate(&self, bytes: u64) -> Result<u64, Fault> {
        let memory = &mut *lock(&self.memory);
        let result = memory.allocated.allocate(bytes, &mut memory.capacity, &*self.space);
        let address = memory.note(bytes, result)?;
        self.trace.note(|| Operation::Allocate { address, bytes, stream: None });
        Ok(address)
    }

    /// `cudaFree` of an address that `allocate`, `allocate_async` or `allocate_managed` gave.
    pub fn free(&self, address: u64) -> Result<(), Fault> {
        let memory = &mut *lock(&self.memory);
        if memory.managed.block_at(address).is_some() {
            memory.moved.remove(&address);
            return memory.managed.free(address);
        }
        if memory.pool.block_at(address).is_some() {
            memory.pool.free(address, None)?;
        } else {
            memory.allocated.free(address, &mut memory.capacity)?;
        }
        self.trace.note(|| Operation::Free { address, stream: None });
        Ok(())
    }

    /// `cudaMallocAsync`.
    pub fn allocate_async(&self, bytes: u64, stream: u64) -> Result<u64, Fault> {
        let memory = &mut *lock(&self.memory);
        let result = memory.pool.allocate(bytes, stream, &mut memory.capacity, &*self.space);
        let address = memory.note(bytes, result)?;
        self.trace.note(|| Operation::Allocate { address, bytes, stream: Some(stream) });
        Ok(address)
    }

    /// `cudaFreeAsync`.
    pub fn free_async(&self, address: u64, stream: u64) -> Result<(), Fault> {
        lock(&self.memory).pool.free(address, Some(stream))?;
        self.trace.note(|| Operation::Free { address, stream: Some(stream) });
        Ok(())
    }

    /// Does something with the memory pool.
    pub fn with_pool<T>(&self, work: impl FnOnce(&mut MemoryPool, &mut Capacity) -> T) -> T {
        let memory = &mut *lock(&self.memory);
        work(&mut memory.pool, &mut memory.capacity)
    }

    /// The process uses so much more or less of what takes memory beside its allocations.
    fn change_process_use(&self, change: impl FnOnce(&mut ProcessUse)) -> Result<(), Fault> {
        let memory = &mut *lock(&self.memory);
        memory.process.change(&self.profile, &mut memory.capacity, change)
    }

    /// `cudaStreamCreateWithPriority`.
    pub fn create_stream(&self, flags: u32, priority: i32) -> Result<u64, Fault> {
        self.change_process_use(|used| used.streams += 1)?;
        Ok(self.streams().create(flags, priority))
    }

    /// `cudaStreamDestroy`: what it was given is still done.
    pub fn destroy_stream(&self, stream: u64) -> Result<(), Fault> {
        self.streams().destroy(stream)?;
        self.change_process_use(|used| used.streams -= 1)?;
        self.clock().destroy(stream);
        Ok(())
    }

    /// The host waits for what the stream was given.
    pub fn synchronize_stream(&self, stream: u64) -> Result<(), Fault> {
        self.captures().wait(Some(stream))?;
        self.trace.note(|| Operation::SynchronizeStream { stream });
        self.clock_once_it_goes_on().synchronize_stream(one_default(stream));
        self.with_pool(|pool, capacity| pool.synchronized(Some(stream), capacity));
        Ok(())
    }

    /// The host waits for what all streams were given.
    pub fn synchronize(&self) -> Result<(), Fault> {
        self.captures().wait(None)?;
        self.trace.note(|| Operation::SynchronizeDevice);
        self.clock_once_it_goes_on().synchronize_all();
        self.with_pool(|pool, capacity| pool.synchronized(None, capacity));
        Ok(())
    }

    /// What `work` takes beside a kernel that does nothing.
    fn cost(&self, work: KernelWork) -> Span {
        if work.kind == Some(WorkKind::Gemm) {
            self.counters.multiplied(work.dtype);
        }
        let is_settled = self.rates.settles_secs().is_none_or(|secs| self.clock().load_secs() >= secs);
        self.rates.cost(work, is_settled)
    }

    /// A kernel, or a library call that would have run some, on a stream that exists. Where it is captured it counts when its graph is launched.
    /// Gives when it begins and when it ends; nothing where it was captured.
    pub fn launch(&self, stream: u64, work: KernelWork) -> Result<Option<[Span; 2]>, Fault> {
        self.streams().check(stream)?;
        // A library that says what it does, whose machine code is loaded.
        if work.kind.is_some() && !self.has_code.swap(true, Ordering::Relaxed) {
            self.change_process_use(|used| used.has_code = true).inspect_err(|_| self.has_code.store(false, Ordering::Relaxed))?;
        }
        Ok(self.run_kernel(stream, work, self.rates.kernel() + self.cost(work)))
    }

    /// A kernel that waits for so many cycles of the device's clock.
    pub fn spin(&self, stream: u64, cycles: u64) -> Result<Option<[Span; 2]>, Fault> {
        self.streams().check(stream)?;
        let secs = cycles as f64 / self.profile.clock_hz.value;
        Ok(self.run_kernel(stream, KernelWork::UNKNOWN, self.rates.kernel() + Span([secs; 3])))
    }

    fn run_kernel(&self, stream: u64, work: KernelWork, secs: Span) -> Option<[Span; 2]> {
        if self.captures().capture(stream, NodeKind::Kernel, || vec![Step::Run(Load { kernels: 1, secs })]) {
            return None;
        }
        self.counters.launched(1);
        let mut clock = self.clock();
        clock.count(work.label(), 1, secs, work.operations, work.bytes);
        let begins = clock.run(one_default(stream), Engine::Compute, self.rates.launch(), secs);
        Some([begins, begins + secs])
    }

    /// The kernel that was launched last on the stream did so much: it said nothing of itself. Gives when it ends.
    pub fn explain(&self, stream: u64, work: KernelWork) -> Option<Span> {
        let secs = self.cost(work);
        if self.captures().extend_last(stream, secs) {
            return None;
        }
        let mut clock = self.clock();
        clock.count(work.label(), 1, secs, work.operations, work.bytes);
        Some(clock.lengthen(one_default(stream), Engine::Compute, secs))
    }

    /// A copy of so many bytes between host and device by that engine, or, by [`Engine::Compute`], so many read and written by a copy on the device.
    /// What is not `pinned` keeps the host waiting. True where it is under way; false where it was captured, and `deed` is done when its graph is launched.
    pub fn transfer(&self, stream: u64, engine: Engine, bytes: u64, pinned: bool, deed: Option<Deed>) -> Result<bool, Fault> {
        let (name, secs) = match engine {
            Engine::ToDevice => ("copy to device", self.rates.link(bytes as f64, pinned)),
            Engine::ToHost => ("copy to host", self.rates.link(bytes as f64, pinned)),
            Engine::Compute => ("copy on device", self.rates.on_device(bytes as f64)),
        };
        let is_under_way = self.move_bytes(stream, (NodeKind::Copy, deed), engine, name, bytes, secs);
        if is_under_way && engine != Engine::Compute && !pinned {
            self.clock_once_it_goes_on().synchronize_stream(one_default(stream));
        }
        Ok(is_under_way)
    }

    /// A fill of so many bytes of the device. True where it is under way, as for [`Device::transfer`].
    pub fn fill(&self, stream: u64, bytes: u64, deed: Option<Deed>) -> bool {
        self.move_bytes(stream, (NodeKind::Fill, deed), Engine::Compute, "copy on device", bytes, self.rates.on_device(bytes as f64))
    }

    /// Whether it is under way, and not captured as a node of that kind, which does that.
    fn move_bytes(
        &self,
        stream: u64,
        (kind, deed): (NodeKind, Option<Deed>),
        engine: Engine,
        name: &'static str,
        bytes: u64,
        secs: Span,
    ) -> bool {
        let steps = || [Step::Run(Load { kernels: 0, secs })].into_iter().chain(deed.map(Step::Do)).collect();
        if self.captures().capture(stream, kind, steps) {
            return false;
        }
        let begins = {
            let mut clock = self.clock();
            clock.count(name, 1, secs, 0.0, bytes as f64);
            clock.run(one_default(stream), engine, self.rates.launch(), secs)
        };
        self.timeline.note(self.ordinal, Track::of(engine, stream), name, begins, begins + secs);
        true
    }

    /// A function of the host is called in the order of the stream. True where it is captured, and called when its graph is launched.
    pub fn captures_call(&self, stream: u64, deed: Deed) -> bool {
        self.captures().capture(stream, NodeKind::Host, || vec![Step::Do(deed)])
    }

    /// So many bytes to other devices, and as many from them. They take turns with copies to the device, also where NVLink carries them. `meet` is told when it may begin here,
    /// and says when it may with all others.
    pub fn exchange(&self, stream: u64, bytes: u64, meet: impl FnOnce(Span) -> Span) {
        const NAME: &str = "collective";
        let (engine, secs) = (Engine::ToDevice, self.rates.between_devices(bytes as f64));
        if self.captures().capture(stream, NodeKind::Kernel, || vec![Step::Run(Load { kernels: 0, secs })]) {
            return;
        }
        let arrived = self.clock().arrive(one_default(stream), engine, self.rates.launch());
        let begins = meet(arrived);
        {
            let mut clock = self.clock();
            clock.count(NAME, 1, secs, 0.0, bytes as f64);
            clock.run_with_others([arrived, begins], one_default(stream), engine, secs);
        }
        self.timeline.note(self.ordinal, Track::of(engine, stream), NAME, begins, begins + secs);
    }

    /// `cudaGraphLaunch`: what is to be done with values then.
    pub fn launch_graph(&self, executable: u64, stream: u64) -> Result<Vec<Deed>, Fault> {
        self.streams().check(stream)?;
        let steps = self.captures().graphs.launched(executable)?.to_vec();
        if self.captures().capture(stream, NodeKind::Graph, || steps.clone()) {
            return Ok(Vec::new());
        }
        let stream = one_default(stream);
        // The host asks once, for all of it.
        let (mut asks, mut calls, mut deeds) = (self.rates.launch(), 1, Vec::new());
        for step in steps {
            match step {
                Step::Run(load) => {
                    self.counters.launched(load.kernels);
                    let mut clock = self.clock();
                    clock.count("graph", take(&mut calls), load.secs, 0.0, 0.0);
                    clock.run(stream, Engine::Compute, take(&mut asks), load.secs);
                }
                // An event that was never recorded, or is gone, is not waited for.
                Step::Wait(event) => {
                    if let Ok(Some(mark)) = self.events().mark(event) {
                        self.clock().wait(stream, &mark.moment, take(&mut asks));
                    }
                }
                Step::Record(event) => {
                    let moment = self.clock().record(stream, take(&mut asks));
                    let _ = self.events().record(event, Mark { moment, place: None });
                }
                Step::Do(deed) => deeds.push(deed),
            }
        }
        Ok(deeds)
    }

    /// `cudaEventRecord`. A capture has no node of it; others of its streams may go on after it.
    pub fn record_event(&self, event: u64, stream: u64) -> Result<(), Fault> {
        self.streams().check(stream)?;
        let place = self.captures().place(stream);
        let moment = self.clock().record(one_default(stream), self.rates.launch());
        self.events().record(event, Mark { moment, place })?;
        self.trace.note(|| Operation::RecordEvent { event, stream });
        Ok(())
    }

    /// `cudaEventRecordExternal` and `cudaEventWaitExternal`: a node of a graph that records an event for others, or waits for theirs. Outside of a capture there is no such thing.
    pub fn capture_event(&self, stream: u64, kind: NodeKind, step: Step) -> Result<(), Fault> {
        self.streams().check(stream)?;
        if self.captures().capture(stream, kind, || vec![step]) { Ok(()) } else { Err(Fault::InvalidValue) }
    }

    /// Where an event was recorded; what was captured never comes about, so nothing can be asked of it.
    fn mark_outside_captures(&self, event: u64) -> Result<Option<Mark>, Fault> {
        let mark = self.events().mark(event)?;
        if mark.as_ref().is_some_and(|mark| mark.place.is_some()) { Err(Fault::CapturedEvent) } else { Ok(mark) }
    }

    /// `cudaEventSynchronize`.
    pub fn synchronize_event(&self, event: u64) -> Result<(), Fault> {
        if let Some(mark) = self.mark_outside_captures(event)? {
            self.clock_once_it_goes_on().synchronize(&mark.moment);
        }
        self.trace.note(|| Operation::SynchronizeEvent { event });
        Ok(())
    }

    /// `cudaEventQuery`: fails for an event that is not passed yet.
    pub fn query_event(&self, event: u64) -> Result<(), Fault> {
        let mark = self.mark_outside_captures(event)?;
        mark.map_or(Ok(()), |mark| self.ready(|clock| clock.has_passed(&mark.moment)))
    }

    /// `cudaEventElapsedTime`: milliseconds between two events that are passed.
    pub fn elapsed_millis(&self, start: u64, end: u64) -> Result<f32, Fault> {
        let secs = self.events().elapsed(start, end)?;
        self.query_event(end)?;
        Ok((secs.expected() * 1e3) as f32)
    }

    /// `cudaStreamQuery`: fails for a stream that has something left to do.
    pub fn query_stream(&self, stream: u64) -> Result<(), Fault> {
        self.streams().check(stream)?;
        self.captures().wait(Some(stream))?;
        self.ready(|clock| clock.is_done(one_default(stream)))
    }

    /// `cudaStreamWaitEvent`: an event of any device.
    pub fn wait_event(&self, stream: u64, event: u64, of: &Self) -> Result<(), Fault> {
        self.streams().check(stream)?;
        let mark = of.events().mark(event)?;
        if let Some(Mark { moment, place }) = mark {
            let launch = self.rates.launch();
            if of.ordinal == self.ordinal {
                match place {
                    Some(place) => self.captures().join(stream, &place)?,
                    None => self.captures().keep_apart(stream)?,
                }
                self.clock().wait(one_default(stream), &moment, launch);
            } else {
                self.clock().wait_for_another_device(one_default(stream), &moment, launch);
            }
        }
        self.trace.note(|| Operation::WaitEvent { stream, event });
        Ok(())
    }

    /// Free and total bytes, as the driver tells them: the context counts as used.
    pub fn free_and_total_bytes(&self) -> (u64, u64) {
        let memory = lock(&self.memory);
        (memory.capacity.free_bytes(), memory.capacity.capacity_bytes())
    }

    /// Whether its last request for memory failed.
    pub fn has_just_refused(&self) -> bool {
        lock(&self.memory).refusals.is_open()
    }

    /// Bytes in use and their peak, both with what the process itself holds.
    pub fn used_and_peak_bytes(&self) -> (u64, u64) {
        let memory = lock(&self.memory);
        (memory.capacity.used_bytes(), memory.capacity.peak_bytes())
    }

    /// What of the peak the process itself held, and the most that it used of what takes such memory.
    pub fn process_at_peak(&self) -> (u64, ProcessUse) {
        let memory = lock(&self.memory);
        (memory.capacity.process_bytes_at_peak(), memory.process.most_used())
    }

    /// Has `watch` told how many bytes are in use, now and whenever that changes.
    pub fn watch_memory(&self, watch: MemoryWatch) {
        lock(&self.memory).capacity.watch(watch);
    }

    /// What became of the requests that did not fit.
    pub fn refusals(&self) -> Refusals {
        lock(&self.memory).refusals.settled()
    }

    /// Pinned host memory now, and the most at one time.
    pub fn pinned_and_peak_bytes(&self) -> (u64, u64) {
        let memory = lock(&self.memory);
        (memory.host.used_bytes(), memory.host.peak_bytes())
    }

    /// What the program has not given back yet.
    pub fn not_given_back(&self) -> NotGivenBack {
        let (bytes, pool_bytes, reservations) = {
            let memory = lock(&self.memory);
            (memory.capacity.allocated_bytes(), memory.pool.reserved.current, memory.mapped.reservations())
        };
        NotGivenBack {
            bytes,
            pool_bytes,
            reservations,
            streams: self.streams().count(),
            events: self.events().count(),
            graphs: self.captures().graphs.count(),
        }
    }

    /// What the address belongs to; an address inside a block counts.
    pub fn owner_of(&self, address: u64) -> Owner {
        let memory = lock(&self.memory);
        if let Some(block) = memory.block_at(address) {
            Owner::Device(block)
        } else if let Some(block) = memory.host.block_at(address) {
            Owner::PinnedHost(block)
        } else if let Some(block) = memory.managed.block_at(address) {
            Owner::Managed(block)
        } else {
            Owner::Unregistered
        }
    }

    /// Whether the address is part of a reservation of the driver's virtual-memory interface, mapped or not.
    pub fn has_reserved(&self, address: u64) -> bool {
        lock(&self.memory).mapped.has_reserved(address)
    }

    /// Pinned host memory, `cudaHostAlloc`.
    pub fn pin_new(&self, bytes: u64) -> Result<u64, Fault> {
        let memory = &mut *lock(&self.memory);
        let address = memory.host.allocate(bytes, &*self.space).inspect_err(|&fault| self.counters.host_refused(fault))?;
        memory.hold_page_tables(&self.profile).or_else(|fault| memory.host.free(address).and(Err(fault)))?;
        Ok(address)
    }

    /// `cudaFreeHost`.
    pub fn free_pinned(&self, address: u64) -> Result<(), Fault> {
        let memory = &mut *lock(&self.memory);
        memory.host.free(address)?;
        memory.hold_page_tables(&self.profile)
    }

    /// `cudaMallocManaged`.
    pub fn allocate_managed(&self, bytes: u64) -> Result<u64, Fault> {
        lock(&self.memory).managed.allocate(bytes, &*self.space)
    }

    /// A managed block is to be on a device, or on the host. Whether it has to be moved for that.
    pub fn moves_managed(&self, block: u64, to_device: bool) -> bool {
        let moved = &mut lock(&self.memory).moved;
        if to_device { moved.insert(block) } else { moved.remove(&block) }
    }

    /// `cudaHostRegister`: pins memory that the process has already.
    pub fn register_host(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        let memory = &mut *lock(&self.memory);
        memory.host.register(address, bytes).inspect_err(|&fault| self.counters.host_refused(fault))?;
        memory.hold_page_tables(&self.profile).or_else(|fault| memory.host.unregister(address).and(Err(fault)))
    }

    /// `cudaHostUnregister`.
    pub fn unregister_host(&self, address: u64) -> Result<(), Fault> {
        let memory = &mut *lock(&self.memory);
        memory.host.unregister(address)?;
        memory.hold_page_tables(&self.profile)
    }

    /// Streams.
    pub fn streams(&self) -> MutexGuard<'_, Streams> {
        lock(&self.streams)
    }

    /// Events.
    pub fn events(&self) -> MutexGuard<'_, Events> {
        lock(&self.events)
    }

    /// Its clocks.
    pub fn clock(&self) -> MutexGuard<'_, Clock> {
        lock(&self.clock)
    }

    /// The same for a host that waits for the device: not while that hangs.
    fn clock_once_it_goes_on(&self) -> MutexGuard<'_, Clock> {
        while self.hangs() {}
        self.clock()
    }

    /// Whether the device has come so far, which it does not while it hangs.
    fn ready(&self, is_so: impl FnOnce(&mut Clock) -> bool) -> Result<(), Fault> {
        if !self.hangs() && is_so(&mut self.clock()) { Ok(()) } else { Err(Fault::NotReady) }
    }

    /// `cuMemCreate`: memory without an address.
    pub fn create(&self, bytes: u64) -> Result<u64, Fault> {
        let memory = &mut *lock(&self.memory);
        let result = memory.mapped.create(bytes, &mut memory.capacity);
        memory.note(bytes, result)
    }

    /// Captures, and graphs.
    pub fn captures(&self) -> MutexGuard<'_, Captures> {
        lock(&self.captures)
    }

    /// Does something with the driver's virtual-memory interface.
    pub fn with_virtual_memory<T>(&self, work: impl FnOnce(&mut VirtualMemory, &mut Capacity, &dyn AddressSpace) -> T) -> T {
        let memory = &mut *lock(&self.memory);
        work(&mut memory.mapped, &mut memory.capacity, &*self.space)
    }
}

/// The default stream under the one of its two names that the clock knows.
fn one_default(stream: u64) -> u64 {
    if stream == 1 { 0 } else { stream }
}
