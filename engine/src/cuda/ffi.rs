//! The C side of `shim.cpp` and memory that libtorch did not allocate, made safe.
//!
//! Every function that other files see is safe for every caller: it checks what it is given, or the type that it belongs to owns what it needs. It knows nothing of
//! what its callers do with streams, events and bytes: the order of copies and arithmetic is theirs.
#![expect(unsafe_code, reason = "calls into the C++ shim, and tensors over memory that libtorch did not allocate")]

use std::ffi::{CStr, c_char, c_double, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use engine_protocol::{WorkKind, WorkType};
use memmap2::{Mmap, UncheckedAdvice};
use tch::{Device, Kind, TchError, Tensor};

use crate::attribution;
use crate::error::{Error, Result};

/// The one GPU that a worker uses. Which card it is, `CUDA_VISIBLE_DEVICES` says.
pub(crate) const DEVICE: c_int = 0;

/// The caching allocator's counters, over all pools, in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) allocated: i64,
    pub(super) peak_allocated: i64,
    pub(super) reserved: i64,
    pub(super) peak_reserved: i64,
}

/// A `cudaEvent_t`.
type RawEvent = *mut c_void;

/// Hears of a block at an address: bytes allocated, or freed where negative, and bytes held from the driver.
type OnMemory = extern "C" fn(address: *mut c_void, bytes: i64, reserved: usize);
/// Hears that an allocation failed, with bytes held from the driver.
type OnOutOfMemory = extern "C" fn(reserved: usize);

/// An operation of that name begins.
type OnBegin = extern "C" fn(name: *const c_char);
/// It has made or written a tensor that is all of the allocation at an address: its shape, and of how many dimensions.
type OnResult = extern "C" fn(data: *const c_void, shape: *const i64, dimensions: usize);
/// It is over: its name, its kind and type by number, how many operations it was, how many bytes it read and wrote, and whether it was all that and not others in it.
type OnEnd = extern "C" fn(name: *const c_char, kind: c_int, dtype: c_int, operations: c_double, bytes: c_double, counts: c_int);

unsafe extern "C" {
    fn lowmem_error() -> *const c_char;
    fn lowmem_start(device: c_int) -> c_int;
    fn lowmem_leave_out_autograd();
    fn lowmem_observe(on_memory: OnMemory, on_out_of_memory: OnOutOfMemory) -> c_int;
    fn lowmem_record_history(most_events: usize) -> c_int;
    fn lowmem_annotate(label: *const c_char, length: usize) -> c_int;
    fn lowmem_snapshot(bytes: *mut *const c_char, length: *mut usize) -> c_int;
    fn lowmem_device_name(device: c_int, name: *mut *const c_char) -> c_int;
    fn lowmem_counters(device: c_int, out: *mut Counters) -> c_int;
    fn lowmem_reset_peaks(device: c_int) -> c_int;
    fn lowmem_empty_cache() -> c_int;
    fn lowmem_set_memory_fraction(device: c_int, fraction: f64) -> c_int;
    fn lowmem_device_memory(free: *mut usize, total: *mut usize) -> c_int;
    fn lowmem_synchronize() -> c_int;
    fn lowmem_current_stream(device: c_int, id: *mut i64) -> c_int;
    fn lowmem_driver_stream(id: i64, device: c_int, stream: *mut *mut c_void) -> c_int;
    fn lowmem_kernel_begins(name: *const c_char);
    fn lowmem_kernel_launched(name: *const c_char, kind: c_int, dtype: c_int, operations: c_double, bytes: c_double);
    fn lowmem_stream_from_pool(device: c_int, id: *mut i64) -> c_int;
    fn lowmem_event_new(event: *mut RawEvent, is_timed: bool) -> c_int;
    fn lowmem_event_elapsed(begun: RawEvent, ended: RawEvent, secs: *mut c_double) -> c_int;
    fn lowmem_observe_work(begins: OnBegin, ended: OnEnd, result: OnResult) -> c_int;
    fn lowmem_host_work(secs: *const c_double);
    fn lowmem_waited_for_ranks(secs: *mut c_double) -> c_int;
    fn lowmem_modelled_now(secs: *mut c_double) -> c_int;
    fn lowmem_event_free(event: RawEvent) -> c_int;
    fn lowmem_event_synchronize(event: RawEvent) -> c_int;
    fn lowmem_event_passed(event: RawEvent, passed: *mut bool) -> c_int;
    fn lowmem_event_record(event: RawEvent, device: c_int, stream: i64) -> c_int;
    fn lowmem_event_wait(event: RawEvent, device: c_int, stream: i64) -> c_int;
    fn lowmem_copy_to_device(to: *mut c_void, from: *const c_void, bytes: usize, from_device: bool, device: c_int, stream: i64) -> c_int;
    fn lowmem_cudnn_attention(query: *const c_void, key: *const c_void, value: *const c_void, result: *mut *mut c_void) -> c_int;
    fn lowmem_pinned_bytes(bytes: usize, tensor: *mut *mut c_void) -> c_int;
    fn lowmem_shared_bytes(file: c_int, offset: u64, bytes: usize, pinned: bool, counted: u64, tensor: *mut *mut c_void) -> c_int;
    fn lowmem_others_peak(bytes: *mut u64);
    fn lowmem_pinned_peak(bytes: *mut u64) -> c_int;
    fn lowmem_reset_pinned_peak() -> c_int;
}

/// The shim's answer as a result, with its error text.
fn check(answer: c_int) -> Result<()> {
    if answer == 0 {
        return Ok(());
    }
    // SAFETY: the shim keeps the text of this thread's last error alive until the next one on the same thread.
    let text = unsafe { CStr::from_ptr(lowmem_error()) }.to_string_lossy().into_owned();
    Err(TchError::Torch(text).into())
}

pub(super) fn start() -> Result<()> {
    // SAFETY: takes and gives no pointer.
    check(unsafe { lowmem_start(DEVICE) })
}

/// From now on operations of this thread go to their kernels at once, on any device.
pub(crate) fn leave_out_autograd() {
    // SAFETY: takes and gives nothing, and changes what libtorch does on this thread alone. Kernels are what they were.
    unsafe { lowmem_leave_out_autograd() };
}

/// Has what this thread allocates and frees on the GPU reported to `attribution`.
pub(super) fn observe() -> Result<()> {
    extern "C" fn on_memory(address: *mut c_void, bytes: i64, reserved: usize) {
        attribution::report(address as usize, bytes, reserved as u64);
    }
    extern "C" fn on_out_of_memory(reserved: usize) {
        attribution::report_out_of_memory(reserved as u64);
    }
    // SAFETY: both functions live as long as the program, take plain numbers and call nothing of libtorch. The address is never followed.
    check(unsafe { lowmem_observe(on_memory, on_out_of_memory) })
}

/// Has libtorch keep its newest events of memory.
pub(super) fn record_history(most_events: usize) -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { lowmem_record_history(most_events) })
}

/// Has what is allocated from here on carry that label in the history.
pub(super) fn annotate(label: &str) {
    // SAFETY: the shim copies so many bytes from there. A label that could not be set is no reason to stop.
    let _ = unsafe { lowmem_annotate(label.as_ptr().cast(), label.len()) };
}

/// The history and what there is now, as libtorch pickles it.
pub(super) fn snapshot() -> Result<Vec<u8>> {
    let (mut bytes, mut length) = (std::ptr::null(), 0);
    // SAFETY: both are places for one value. The shim keeps the bytes, of that number, until this thread asks for another snapshot.
    unsafe {
        check(lowmem_snapshot(&mut bytes, &mut length))?;
        Ok(std::slice::from_raw_parts(bytes.cast::<u8>(), length).to_vec())
    }
}

/// An operation on the GPU that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedOperation<'a> {
    /// libtorch's name.
    pub(crate) name: &'a CStr,
    /// Empty where it is of no kind that is told apart.
    pub(crate) kind: Option<WorkKind>,
    pub(crate) dtype: WorkType,
    /// Multiplications and additions.
    pub(crate) operations: f64,
    /// Bytes read and written.
    pub(crate) bytes: f64,
    /// Whether it was all that itself, and not other operations in it.
    pub(crate) counts: bool,
}

/// Hears of each operation on the GPU, on the thread that asked for it.
pub(crate) trait OperationListener {
    /// An operation of libtorch's, of that name, begins.
    fn begun(name: &'static CStr);
    /// The innermost operation has made or written a tensor of that shape, which is all of the allocation at `address`.
    fn made(address: usize, shape: &[i64]);
    /// The innermost operation is over.
    fn ended(operation: &ObservedOperation<'_>);
}

/// Has `L` hear of every operation on the GPU from here on. Once a process.
pub(super) fn observe_operations<L: OperationListener>() -> Result<()> {
    extern "C" fn on_begin<L: OperationListener>(name: *const c_char) {
        // SAFETY: the observer keeps the text as long as the program lives.
        L::begun(unsafe { CStr::from_ptr(name) });
    }
    extern "C" fn on_result<L: OperationListener>(data: *const c_void, shape: *const i64, dimensions: usize) {
        // A tensor without dimensions has no sizes to point to.
        // SAFETY: else the observer points to so many numbers, which the tensor keeps during the call.
        let shape = if dimensions == 0 { &[] } else { unsafe { std::slice::from_raw_parts(shape, dimensions) } };
        L::made(data as usize, shape);
    }
    extern "C" fn on_end<L: OperationListener>(
        name: *const c_char,
        kind: c_int,
        dtype: c_int,
        operations: c_double,
        bytes: c_double,
        counts: c_int,
    ) {
        // SAFETY: the observer keeps the text as long as the program lives.
        let name = unsafe { CStr::from_ptr(name) };
        let (kind, dtype) = (WorkKind::of(kind), WorkType::of(dtype));
        L::ended(&ObservedOperation { name, kind, dtype, operations, bytes, counts: counts != 0 });
    }
    // SAFETY: all three functions live as long as the program, take plain numbers, a text that lives as long and numbers that they copy, and unwind into nothing.
    match unsafe { lowmem_observe_work(on_begin::<L>, on_end::<L>, on_result::<L>) } {
        0 => Ok(()),
        _ => Err(Error::Torch(TchError::Torch("its operations could not be observed".into()))),
    }
}

/// What a kernel of our own does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnKernel {
    /// Its name beside those of libtorch's operations.
    pub(crate) name: &'static CStr,
    pub(crate) kind: WorkKind,
    pub(crate) dtype: WorkType,
    /// Multiplications and additions.
    pub(crate) operations: f64,
    /// Bytes read and written.
    pub(crate) bytes: f64,
}

/// Has who hears of operations hear of the kernel that `launch` launches: it says nothing of itself.
pub(crate) fn launch_observed(kernel: &OwnKernel, launch: impl FnOnce() -> Result<()>) -> Result<()> {
    let number = |index: Option<usize>| index.map_or(0, |index| index as c_int);
    // SAFETY: the name lives as long as the program.
    unsafe { lowmem_kernel_begins(kernel.name.as_ptr()) };
    let result = launch();
    let kind = number(WorkKind::NUMBERED.iter().position(|&kind| kind == kernel.kind).map(|index| index + 1).filter(|_| result.is_ok()));
    let dtype = number(WorkType::NUMBERED.iter().position(|&dtype| dtype == kernel.dtype));
    // SAFETY: as before; the rest are plain numbers.
    unsafe { lowmem_kernel_launched(kernel.name.as_ptr(), kind, dtype, kernel.operations, kernel.bytes) };
    result
}

/// The host works for so long, for all that the virtual GPU knows.
pub(super) fn host_work(secs: [f64; 3]) {
    // SAFETY: three numbers, as it expects.
    unsafe { lowmem_host_work(secs.as_ptr()) }
}

/// How long what was put into streams has waited for other ranks by the virtual GPU's clock, at least, expected and at most. Nothing where there is none.
pub(super) fn waited_for_ranks() -> Option<[f64; 3]> {
    let mut secs = [0.0; 3];
    // SAFETY: a place for three numbers.
    (unsafe { lowmem_waited_for_ranks(secs.as_mut_ptr()) } == 0).then_some(secs)
}

/// How far the host has come by the virtual GPU's clock, at least, expected and at most. Nothing where there is none.
pub(super) fn modelled_now() -> Option<[f64; 3]> {
    let mut secs = [0.0; 3];
    // SAFETY: `secs` has room for three numbers.
    let answer = unsafe { lowmem_modelled_now(secs.as_mut_ptr()) };
    (answer == 0).then_some(secs)
}

pub(super) fn device_name() -> Result<String> {
    let mut name = std::ptr::null();
    // SAFETY: `name` is a place for one pointer; the text belongs to libtorch's device properties, which are never freed.
    unsafe {
        check(lowmem_device_name(DEVICE, &mut name))?;
        Ok(CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

pub(super) fn counters() -> Result<Counters> {
    let mut counters = Counters::default();
    // SAFETY: `counters` has the layout of `LowmemCounters`.
    check(unsafe { lowmem_counters(DEVICE, &mut counters) })?;
    Ok(counters)
}

pub(super) fn reset_peaks() -> Result<()> {
    // SAFETY: takes and gives no pointer.
    check(unsafe { lowmem_reset_peaks(DEVICE) })
}

pub(super) fn empty_cache() -> Result<()> {
    // SAFETY: takes and gives no pointer.
    check(unsafe { lowmem_empty_cache() })
}

pub(super) fn set_memory_fraction(fraction: f64) -> Result<()> {
    // SAFETY: takes and gives no pointer.
    check(unsafe { lowmem_set_memory_fraction(DEVICE, fraction) })
}

/// Free and total bytes of the device, as the driver counts them.
pub(super) fn device_memory() -> Result<(u64, u64)> {
    let (mut free, mut total) = (0, 0);
    // SAFETY: both are places for one number.
    check(unsafe { lowmem_device_memory(&mut free, &mut total) })?;
    Ok((free as u64, total as u64))
}

pub(super) fn synchronize() -> Result<()> {
    // SAFETY: takes and gives no pointer.
    check(unsafe { lowmem_synchronize() })
}

/// A stream of libtorch's, which are there as long as the program. Only libtorch names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamId(i64);

impl StreamId {
    /// The one that libtorch computes on.
    pub(super) fn current() -> Result<Self> {
        let mut id = 0;
        // SAFETY: `id` is a place for one number.
        check(unsafe { lowmem_current_stream(DEVICE, &mut id) })?;
        Ok(Self(id))
    }

    /// As the driver has it: alive as long as the program.
    pub(super) fn driver(self) -> Result<*mut c_void> {
        let mut stream = std::ptr::null_mut();
        // SAFETY: `stream` is a place for one handle, and the stream is one of libtorch's.
        check(unsafe { lowmem_driver_stream(self.0, DEVICE, &mut stream) })?;
        Ok(stream)
    }

    /// Another one, from its pool.
    pub(super) fn from_pool() -> Result<Self> {
        let mut id = 0;
        // SAFETY: `id` is a place for one number.
        check(unsafe { lowmem_stream_from_pool(DEVICE, &mut id) })?;
        Ok(Self(id))
    }
}

/// An event of our own, destroyed when it goes.
#[derive(Debug)]
pub(super) struct OwnedEvent(RawEvent);

impl OwnedEvent {
    pub(super) fn new(is_timed: bool) -> Result<Self> {
        let mut event = std::ptr::null_mut();
        // SAFETY: `event` is a place for one handle.
        check(unsafe { lowmem_event_new(&mut event, is_timed) })?;
        Ok(Self(event))
    }

    /// Seconds from here to `ended`, at least, expected and at most. Both are timed and were passed.
    pub(super) fn elapsed(&self, ended: &Self) -> Result<[f64; 3]> {
        let mut secs = [0.0; 3];
        // SAFETY: both handles are alive, and `secs` has room for three numbers.
        check(unsafe { lowmem_event_elapsed(self.0, ended.0, secs.as_mut_ptr()) })?;
        Ok(secs)
    }

    pub(super) fn synchronize(&self) -> Result<()> {
        // SAFETY: the handle is alive as long as `self`.
        check(unsafe { lowmem_event_synchronize(self.0) })
    }

    pub(super) fn has_passed(&self) -> Result<bool> {
        let mut passed = false;
        // SAFETY: the handle is alive as long as `self`, and `passed` is a place for one truth value.
        check(unsafe { lowmem_event_passed(self.0, &mut passed) })?;
        Ok(passed)
    }

    pub(super) fn record(&self, stream: StreamId) -> Result<()> {
        // SAFETY: the handle is alive as long as `self`.
        check(unsafe { lowmem_event_record(self.0, DEVICE, stream.0) })
    }

    pub(super) fn wait(&self, stream: StreamId) -> Result<()> {
        // SAFETY: the handle is alive as long as `self`.
        check(unsafe { lowmem_event_wait(self.0, DEVICE, stream.0) })
    }
}

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and nobody uses it afterwards. CUDA lets work that waits for it finish first.
        let _ = unsafe { lowmem_event_free(self.0) };
    }
}

/// Attention by cuDNN, where libtorch would take that for these inputs.
pub(crate) fn cudnn_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    let [query, key, value] = [q, k, v].map(|tensor| tensor.as_ptr().cast());
    // SAFETY: the inputs are tensors that live until the call returns; `result` is a place for one pointer, to a tensor that the shim made and that is ours from there on.
    unsafe {
        check(lowmem_cudnn_attention(query, key, value, &mut result))?;
        Ok(Tensor::from_ptr(result.cast()))
    }
}

/// So many bytes of page-locked memory, not written yet: a tensor on the CPU that owns them, so that they go with the last tensor that looks into them.
pub(super) fn pinned_bytes(bytes: usize) -> Result<Tensor> {
    let mut tensor = std::ptr::null_mut();
    // SAFETY: `tensor` is a place for one pointer, to a tensor that the shim made and that is ours from there on.
    unsafe {
        check(lowmem_pinned_bytes(bytes, &mut tensor))?;
        Ok(Tensor::from_ptr(tensor.cast()))
    }
}

/// So many bytes of a file from `offset` on, where a page begins, as a tensor on the CPU, page-locked where `pinned`: other processes see what is written to it. They stay mapped
/// until the last tensor goes that looks into them. `counted` of them are this process's own; the rest others count.
pub(super) fn shared_bytes(file: &File, offset: u64, bytes: usize, pinned: bool, counted: u64) -> Result<Tensor> {
    let has = file.metadata().map_err(|error| Error::Input(format!("memory that ranks share: {error}")))?.len();
    if offset.checked_add(bytes as u64).is_none_or(|end| end > has) || counted > bytes as u64 {
        return Err(Error::Input(format!(
            "{bytes} bytes from {offset} on, {counted} of them counted: the memory that ranks share has {has}"
        )));
    }
    let mut tensor = std::ptr::null_mut();
    // SAFETY: the file is open and has so many bytes there. `tensor` is a place for one pointer, to a tensor that the shim made and that is ours from there on. Whoever
    // looks at bytes that another process writes meanwhile sees some of both; any value of them is a number.
    unsafe {
        check(lowmem_shared_bytes(file.as_raw_fd(), offset, bytes, pinned, counted, &mut tensor))?;
        Ok(Tensor::from_ptr(tensor.cast()))
    }
}

/// Bytes of such memory that other processes counted at most since the last reset.
pub(super) fn others_peak() -> u64 {
    let mut bytes = 0;
    // SAFETY: `bytes` is a place for one number.
    unsafe { lowmem_others_peak(&mut bytes) };
    bytes
}

/// Bytes of the host that were page-locked at most since the last reset, by this process through us and libtorch.
pub(super) fn pinned_peak() -> Result<u64> {
    let mut bytes = 0;
    // SAFETY: `bytes` is a place for one number.
    check(unsafe { lowmem_pinned_peak(&mut bytes) })?;
    Ok(bytes)
}

/// Begins the peak of page-locked bytes anew, at what is page-locked now.
pub(super) fn reset_pinned_peak() -> Result<()> {
    // SAFETY: takes and gives no pointer.
    check(unsafe { lowmem_reset_pinned_peak() })
}

/// Copies to the GPU in one stream. What they go into is kept until the device has done them, and what they come from on the GPU.
#[derive(Debug)]
pub(super) struct Copies {
    stream: StreamId,
    /// What is kept, each once.
    kept: Vec<Tensor>,
}

impl Copies {
    /// None yet.
    pub(super) fn new(stream: StreamId) -> Self {
        Self { stream, kept: Vec::new() }
    }

    /// Keeps `tensor` until the device has done all that the stream was given.
    pub(super) fn keep(&mut self, tensor: &Tensor) {
        let is_there = |kept: &Tensor| kept.data_ptr() == tensor.data_ptr() && kept.numel() >= tensor.numel();
        if !self.kept.iter().any(is_there) {
            self.kept.push(tensor.shallow_clone());
        }
    }

    /// Puts a copy of the first `bytes` bytes of `from`, on the host or on the GPU, to `to`, on the GPU, into the stream. What is written to `from` before the stream is there
    /// may be copied too.
    pub(super) fn put(&mut self, to: &Tensor, from: &Tensor, bytes: i64) -> Result<()> {
        let from_device = from.device() == Device::Cuda(DEVICE as usize);
        assert!(to.device() == Device::Cuda(DEVICE as usize) && (from_device || from.device() == Device::Cpu), "to the GPU");
        assert!(to.is_contiguous() && from.is_contiguous(), "slabs are contiguous");
        assert!(to.kind() == Kind::Uint8 && from.kind() == Kind::Uint8, "slabs are bytes");
        assert!(0 <= bytes && bytes as usize <= to.numel().min(from.numel()), "the slab is too small");
        self.keep(to);
        if from_device {
            self.keep(from);
        }
        // SAFETY: both hold at least `bytes` bytes, as just checked. `to` lives until the stream has done the copy: see `drop`. So does `from` on the GPU. On the host, ordinary
        // memory has been read when the call returns, and page-locked memory is given back after a wait for it, or by libtorch's allocator, which keeps it.
        check(unsafe { lowmem_copy_to_device(to.data_ptr(), from.data_ptr(), bytes as usize, from_device, DEVICE, self.stream.0) })
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // A copy may still be on its way into memory that libtorch is about to give to somebody else. Where waiting fails the device is lost, and so is its memory.
        let _ = synchronize();
    }
}

/// Reads all bytes of `target`, which is on the CPU and whose elements lie in order, from `offset` on.
pub(crate) fn read_from_file(file: &File, offset: u64, target: &mut Tensor) -> std::io::Result<()> {
    assert!(target.device() == Device::Cpu && target.is_contiguous(), "what is read lies in order on the host");
    let bytes = target.numel() * target.kind().elt_size_in_bytes();
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: so many bytes from there on are the tensor's, which lives until this returns, and any value of them is a number of its type. They are written and not
    // read. Whoever looks at them meanwhile through another tensor sees some of both, as with libtorch's own copies.
    let bytes = unsafe { std::slice::from_raw_parts_mut(target.data_ptr().cast::<u8>(), bytes) };
    file.read_exact_at(bytes, offset)
}

/// Where a tensor lies in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceInFile<'a> {
    /// Bytes from the file's beginning to its first element.
    pub(crate) offset: u64,
    /// Bytes from there to the end of its last element.
    pub(crate) span: u64,
    pub(crate) kind: Kind,
    pub(crate) shape: &'a [i64],
    /// Elements from one to the next along each side; empty where they lie in order.
    pub(crate) strides: &'a [i64],
}

/// A file mapped for reading. No tensor over it leaves this file, since whoever has a tensor may write to it and keep it.
#[derive(Debug)]
pub(crate) struct FileMapping(Mmap);

impl FileMapping {
    pub(crate) fn new(file: &File) -> std::io::Result<Self> {
        // SAFETY: somebody may write to the file meanwhile, which no program can keep from happening; its bytes are then other numbers, any of which is a valid
        // weight, and headers are checked as they are read. A file that is cut shorter meanwhile ends this process, which is one case's own.
        Ok(Self(unsafe { Mmap::map(file) }?))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether so many bytes from `offset` on are in the file.
    fn holds(&self, offset: u64, bytes: u64) -> bool {
        offset.checked_add(bytes).is_some_and(|end| end <= self.0.len() as u64)
    }

    /// Says that these bytes are not needed for now, so that their pages are not this process's any more. Who reads them again gets them from the file.
    pub(crate) fn let_go(&self, offset: u64, bytes: u64) {
        if !self.holds(offset, bytes) {
            return;
        }
        // SAFETY: the range is in the mapping, which is only ever read and is of a file, so a page that is dropped comes back with what it had.
        let advised = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, offset as usize, bytes as usize) };
        // It is advice: where the system takes none, memory is held for longer.
        drop(advised);
    }

    /// Writes the tensor at `place` into `target`, which has as many elements, may have another type and may lie on the GPU.
    pub(crate) fn copy_to(&self, place: PlaceInFile<'_>, target: &mut Tensor) -> Result<()> {
        let PlaceInFile { offset, span, kind, shape, strides } = place;
        if !self.holds(offset, span) {
            return Err(Error::Input(format!("{span} bytes from {offset} on: the file has {}", self.0.len())));
        }
        let bytes = &self.0[offset as usize..(offset + span) as usize];
        // SAFETY: the tensor has the bytes of that slice. It and its views are gone when this function returns, before the mapping is, and are only read.
        let bytes = unsafe { Tensor::from_blob(bytes.as_ptr(), &[bytes.len() as i64], &[1], Kind::Uint8, Device::Cpu) };
        // Elements must lie at multiples of their size; a writer that does not see to that costs a copy.
        let is_aligned = offset.is_multiple_of(kind.elt_size_in_bytes() as u64);
        let bytes = if is_aligned { bytes } else { copied(&bytes)? };
        let flat = bytes.f_view_dtype(kind)?;
        let values = match strides {
            [] => flat,
            strides => flat.f_as_strided(shape, strides, 0)?,
        };
        target.f_copy_(&values.f_reshape(target.size().as_slice())?)?;
        Ok(())
    }
}

fn copied(bytes: &Tensor) -> Result<Tensor> {
    let mut copy = bytes.f_empty_like()?;
    copy.f_copy_(bytes)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A file of the numbers 0 to 7 as fp32 after one odd byte.
    fn mapping() -> FileMapping {
        let mut file = tempfile::tempfile().unwrap();
        let numbers: Vec<u8> = (0..8).flat_map(|number| (number as f32).to_le_bytes()).collect();
        file.write_all(&[&[7], numbers.as_slice()].concat()).unwrap();
        FileMapping::new(&file).unwrap()
    }

    fn place(offset: u64, span: u64) -> PlaceInFile<'static> {
        PlaceInFile { offset, span, kind: Kind::Float, shape: &[2, 2], strides: &[1, 2] }
    }

    #[test]
    fn a_tensor_is_copied_from_wherever_it_lies() {
        let mut target = Tensor::zeros([2, 2], (Kind::Double, Device::Cpu));
        mapping().copy_to(place(5, 16), &mut target).unwrap();
        assert_eq!(target, Tensor::from_slice2(&[[1.0, 3.0], [2.0, 4.0]]));
    }

    #[test]
    fn what_is_not_in_the_file_is_refused_or_left_alone() {
        let mapping = mapping();
        let mut target = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        for (offset, span) in [(20, 16), (64, 4), (u64::MAX, 16), (4, u64::MAX)] {
            let said = mapping.copy_to(place(offset, span), &mut target).unwrap_err().to_string();
            assert_eq!(said, format!("{span} bytes from {offset} on: the file has 33"));
            mapping.let_go(offset, span);
        }
        // Strides that lead out of the span are libtorch's to refuse.
        let outside = PlaceInFile { strides: &[1, 900], ..place(1, 16) };
        assert!(mapping.copy_to(outside, &mut target).is_err());
        assert_eq!(mapping.bytes()[0], 7);
    }

    #[test]
    #[should_panic(expected = "to the GPU")]
    fn no_copy_goes_to_what_is_not_on_the_gpu() {
        let slab = || Tensor::zeros([4], (Kind::Uint8, Device::Cpu));
        let _ = Copies::new(StreamId(0)).put(&slab(), &slab(), 4);
    }
}
