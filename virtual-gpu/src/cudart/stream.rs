//! Streams and events.

use std::ffi::c_void;

use super::error::answer;
use crate::device::{Deed, EventKind, Fault, LEAST_PRIORITY, NodeKind, Step};
use crate::devices::{active_device, device_of};
use crate::ffi::{Handle, Out, call_host};

/// `cudaEventDisableTiming`.
const DISABLE_TIMING: u32 = 2;
/// `cudaEventRecordExternal` and `cudaEventWaitExternal`.
const EXTERNAL: u32 = 1;

/// Records an event; one that is `external` is a node where the stream is captured.
pub(crate) fn record_event(event: u64, stream: u64, flags: u32) -> Result<(), Fault> {
    match flags {
        0 => device_of(stream)?.record_event(event, stream),
        EXTERNAL => {
            device_of(event)?.events().mark(event)?;
            device_of(stream)?.capture_event(stream, NodeKind::RecordEvent, Step::Record(event))
        }
        _ => Err(Fault::InvalidValue),
    }
}

/// Has a stream wait for an event; one that is `external` is a node where the stream is captured.
pub(crate) fn wait_event(stream: u64, event: u64, flags: u32) -> Result<(), Fault> {
    match flags {
        0 => device_of(stream)?.wait_event(stream, event, device_of(event)?),
        EXTERNAL => {
            device_of(event)?.events().mark(event)?;
            device_of(stream)?.capture_event(stream, NodeKind::WaitEvent, Step::Wait(event))
        }
        _ => Err(Fault::InvalidValue),
    }
}

/// Calls a function of the host in the order of a stream: at once, or when the graph is launched that it is captured in.
///
/// # Safety
/// The function may be called with that data, whenever that is.
pub(crate) unsafe fn call_on(stream: u64, function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) -> Result<(), Fault> {
    let device = device_of(stream)?;
    device.streams().check(stream)?;
    let kept = Deed::Call { function: function.ok_or(Fault::InvalidValue)? as usize, data: data as usize };
    // SAFETY: as the caller says.
    if device.captures_call(stream, kept) { Ok(()) } else { unsafe { call_host(function, data) } }
}

exports! { answer;
    fn cudaStreamCreate(stream: Out<u64>) {
        stream.set(active_device()?.create_stream(0, LEAST_PRIORITY)?)
    }

    fn cudaStreamCreateWithFlags(stream: Out<u64>, flags: u32) {
        stream.set(active_device()?.create_stream(flags, LEAST_PRIORITY)?)
    }

    fn cudaStreamCreateWithPriority(stream: Out<u64>, flags: u32, priority: i32) {
        stream.set(active_device()?.create_stream(flags, priority)?)
    }

    fn cudaStreamDestroy(stream: Handle) {
        device_of(stream)?.destroy_stream(stream)
    }

    fn cudaStreamGetPriority(stream: Handle, priority: Out<i32>) {
        priority.set(device_of(stream)?.streams().priority(stream)?)
    }

    fn cudaStreamGetFlags(stream: Handle, flags: Out<u32>) {
        flags.set(device_of(stream)?.streams().flags(stream)?)
    }

    fn cudaStreamQuery(stream: Handle) {
        device_of(stream)?.query_stream(stream)
    }

    fn cudaStreamSynchronize(stream: Handle) {
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        device.synchronize_stream(stream)
    }

    fn cudaStreamWaitEvent(stream: Handle, event: Handle, flags: u32) {
        wait_event(stream, event, flags)
    }

    fn cudaEventCreate(event: Out<u64>) {
        event.set(active_device()?.events().create(EventKind::Timed))
    }

    fn cudaEventCreateWithFlags(event: Out<u64>, flags: u32) {
        let kind = if flags & DISABLE_TIMING == 0 { EventKind::Timed } else { EventKind::Untimed };
        event.set(active_device()?.events().create(kind))
    }

    fn cudaEventDestroy(event: Handle) {
        device_of(event)?.events().destroy(event)
    }

    fn cudaEventRecord(event: Handle, stream: Handle) {
        device_of(stream)?.record_event(event, stream)
    }

    fn cudaEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) {
        record_event(event, stream, flags)
    }

    fn cudaEventQuery(event: Handle) {
        device_of(event)?.query_event(event)
    }

    fn cudaEventSynchronize(event: Handle) {
        device_of(event)?.synchronize_event(event)
    }

    fn cudaEventElapsedTime(millis: Out<f32>, start: Handle, end: Handle) {
        millis.set(device_of(start)?.elapsed_millis(start, end)?)
    }
}

unsafe_exports! { answer;
    fn cudaLaunchHostFunc(stream: Handle, function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) {
        call_on(stream, function, data)
    }

    fn cudaStreamAddCallback(
        stream: Handle, callback: Option<unsafe extern "C" fn(u64, i32, *mut c_void)>, data: *mut c_void, _flags: u32,
    ) {
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        // A graph has no node that tells how the stream is.
        device.captures().wait(Some(stream))?;
        callback.ok_or(Fault::InvalidValue)?(stream, 0, data);
        Ok(())
    }
}
