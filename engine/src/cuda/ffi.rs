//! The C side of `shim.cpp` and memory that libtorch did not allocate, made safe. The engine's only unsafe code.
#![expect(unsafe_code, reason = "calls into the C++ shim, and tensors over memory that libtorch did not allocate")]

use std::ffi::{CStr, c_char, c_double, c_int, c_void};
use std::fs::File;

use engine_protocol::{WorkKind, WorkType};
use memmap2::{Mmap, UncheckedAdvice};
use tch::{Device, Kind, TchError, Tensor};

use super::DEVICE;
use crate::error::{Error, Result};
use crate::profile::{self, Done};
use crate::{attribution, timing};

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
/// It is over: its name, its kind and type by number, how many operations it was, how many bytes it read and wrote, and whether it was all that and not others in it.
type OnEnd = extern "C" fn(name: *const c_char, kind: c_int, dtype: c_int, operations: c_double, bytes: c_double, counts: c_int);

unsafe extern "C" {
    fn lowmem_error() -> *const c_char;
    fn lowmem_start(device: c_int) -> c_int;
    fn lowmem_observe(on_memory: OnMemory, on_out_of_memory: OnOutOfMemory) -> c_int;
    fn lowmem_device_name(device: c_int, name: *mut *const c_char) -> c_int;
    fn lowmem_counters(device: c_int, out: *mut Counters) -> c_int;
    fn lowmem_reset_peaks(device: c_int) -> c_int;
    fn lowmem_empty_cache() -> c_int;
    fn lowmem_set_memory_fraction(device: c_int, fraction: f64) -> c_int;
    fn lowmem_device_memory(free: *mut usize, total: *mut usize) -> c_int;
    fn lowmem_synchronize() -> c_int;
    fn lowmem_current_stream(device: c_int, id: *mut i64) -> c_int;
    fn lowmem_stream_from_pool(device: c_int, id: *mut i64) -> c_int;
    fn lowmem_event_new(event: *mut RawEvent, is_timed: bool) -> c_int;
    fn lowmem_event_elapsed(begun: RawEvent, ended: RawEvent, secs: *mut c_double) -> c_int;
    fn lowmem_observe_work(begins: Option<OnBegin>, ended: OnEnd) -> c_int;
    fn lowmem_host_work(secs: *const c_double);
    fn lowmem_event_free(event: RawEvent) -> c_int;
    fn lowmem_event_synchronize(event: RawEvent) -> c_int;
    fn lowmem_event_record(event: RawEvent, device: c_int, stream: i64) -> c_int;
    fn lowmem_event_wait(event: RawEvent, device: c_int, stream: i64) -> c_int;
    fn lowmem_copy_to_device(to: *mut c_void, from: *const c_void, bytes: usize, device: c_int, stream: i64) -> c_int;
    fn lowmem_pinned_new(bytes: usize, memory: *mut *mut c_void) -> c_int;
    fn lowmem_pinned_free(memory: *mut c_void) -> c_int;
}

/// The shim's answer as a result, with its error text.
fn check(answer: c_int) -> Result<()> {
    if answer == 0 {
        return Ok(());
    }
    // SAFETY: the shim keeps the text of this thread's last error alive until the next one on the same thread.
    let text = unsafe { CStr::from_ptr(lowmem_error()) }.to_string_lossy().into_owned();
    Err(Error::Torch(TchError::Torch(text)))
}

pub(super) fn start() -> Result<()> {
    // SAFETY: takes and gives no pointer.
    check(unsafe { lowmem_start(DEVICE) })
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

/// Has the work of every operation on the GPU reported to `timing`, and to `profile` where it is wanted there, from here on. Once a process.
pub(super) fn observe_work(is_profiled: bool) -> Result<()> {
    extern "C" fn on_begin(_name: *const c_char) {
        profile::begin();
    }
    extern "C" fn on_end(name: *const c_char, kind: c_int, dtype: c_int, operations: c_double, bytes: c_double, counts: c_int) {
        if counts != 0 {
            timing::report(operations, bytes);
        }
        profile::end(|| {
            let kind = WorkKind::of(kind).filter(|_| counts != 0)?;
            // SAFETY: the observer keeps the text as long as the program lives.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
            Some(Done { name, kind, dtype: WorkType::of(dtype), operations, bytes })
        });
    }
    // SAFETY: both functions live as long as the program, take plain numbers and a text that lives as long, and unwind into nothing.
    match unsafe { lowmem_observe_work(is_profiled.then_some(on_begin as OnBegin), on_end) } {
        0 => Ok(()),
        _ => Err(Error::Torch(TchError::Torch("its operations could not be observed".into()))),
    }
}

/// The host works for so long, for all that the virtual GPU knows.
pub(super) fn host_work(secs: [f64; 3]) {
    // SAFETY: three numbers, as it expects.
    unsafe { lowmem_host_work(secs.as_ptr()) }
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

pub(super) fn current_stream() -> Result<i64> {
    let mut id = 0;
    // SAFETY: `id` is a place for one number.
    check(unsafe { lowmem_current_stream(DEVICE, &mut id) })?;
    Ok(id)
}

pub(super) fn stream_from_pool() -> Result<i64> {
    let mut id = 0;
    // SAFETY: `id` is a place for one number.
    check(unsafe { lowmem_stream_from_pool(DEVICE, &mut id) })?;
    Ok(id)
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

    pub(super) fn record(&self, stream: i64) -> Result<()> {
        // SAFETY: the handle is alive as long as `self`.
        check(unsafe { lowmem_event_record(self.0, DEVICE, stream) })
    }

    pub(super) fn wait(&self, stream: i64) -> Result<()> {
        // SAFETY: the handle is alive as long as `self`.
        check(unsafe { lowmem_event_wait(self.0, DEVICE, stream) })
    }
}

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and nobody uses it afterwards. CUDA lets work that waits for it finish first.
        let _ = unsafe { lowmem_event_free(self.0) };
    }
}

/// Page-locked memory as a tensor of bytes. The tensor is a view: it must not be used once this is gone.
#[derive(Debug)]
pub(super) struct OwnedPinned {
    memory: *mut c_void,
    bytes: usize,
}

impl OwnedPinned {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        let mut memory = std::ptr::null_mut();
        // SAFETY: `memory` is a place for one pointer.
        check(unsafe { lowmem_pinned_new(bytes, &mut memory) })?;
        Ok(Self { memory, bytes })
    }

    /// The memory as a tensor; the caller keeps `self` for as long as the tensor.
    pub(super) fn tensor(&self) -> Tensor {
        // SAFETY: the memory is ours, has so many bytes and outlives the tensor, as the caller promises.
        unsafe { Tensor::from_blob(self.memory.cast(), &[self.bytes as i64], &[1], Kind::Uint8, Device::Cpu) }
    }
}

impl Drop for OwnedPinned {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` and freed once. `cudaFreeHost` waits for copies that still read it.
        let _ = unsafe { lowmem_pinned_free(self.memory) };
    }
}

/// A file mapped for reading, and a tensor of its bytes. The tensor is a view: it must not be used once this is gone, and never be written to.
#[derive(Debug)]
pub(crate) struct FileMapping(Mmap);

impl FileMapping {
    pub(crate) fn new(file: &File) -> std::io::Result<Self> {
        // SAFETY: bytes may change under us when somebody writes to the file meanwhile; they are numbers to us, any of which is a valid weight.
        // A file that is cut shorter meanwhile ends this process, which is one case's own.
        Ok(Self(unsafe { Mmap::map(file) }?))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Says that these bytes are not needed for now, so that their pages are not this process's any more. Who reads them again gets them from the file.
    pub(crate) fn let_go(&self, offset: u64, bytes: u64) {
        // SAFETY: the mapping is only ever read and is of a file, so a page that is dropped comes back with what it had.
        let advised = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, offset as usize, bytes as usize) };
        // It is advice: where the system takes none, memory is held for longer.
        drop(advised);
    }

    /// The file as a tensor; the caller keeps `self` for as long as the tensor, and reads only.
    pub(crate) fn tensor(&self) -> Tensor {
        // SAFETY: the mapping has so many bytes and outlives the tensor, as the caller promises.
        unsafe { Tensor::from_blob(self.0.as_ptr(), &[self.0.len() as i64], &[1], Kind::Uint8, Device::Cpu) }
    }
}

/// Puts a copy from `from` on the host to `to` on the GPU into `stream`. Both stay alive until the stream has done it.
pub(super) fn copy_to_device(to: &Tensor, from: &Tensor, bytes: i64, stream: i64) -> Result<()> {
    assert!(to.is_contiguous() && from.is_contiguous(), "slabs are contiguous");
    assert!(bytes <= to.size()[0] && bytes <= from.size()[0], "the slab is too small");
    assert!(to.kind() == Kind::Uint8 && from.kind() == Kind::Uint8, "slabs are bytes");
    // SAFETY: both hold at least `bytes` bytes, as just checked.
    check(unsafe { lowmem_copy_to_device(to.data_ptr(), from.data_ptr(), bytes as usize, DEVICE, stream) })
}
