//! Streams and events.

use std::ffi::c_void;

use super::error::answer;
use crate::device::{EventKind, Fault, LEAST_PRIORITY};
use crate::devices::{active_device, device_of};
use crate::ffi::{Handle, Out, call_host};

/// `cudaEventDisableTiming`.
const DISABLE_TIMING: u32 = 2;

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

    fn cudaStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) {
        device_of(stream)?.wait_event(stream, event, device_of(event)?)
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

    fn cudaEventRecordWithFlags(event: Handle, stream: Handle, _flags: u32) {
        device_of(stream)?.record_event(event, stream)
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
        device_of(stream)?.streams().check(stream)?;
        call_host(function, data)
    }

    fn cudaStreamAddCallback(
        stream: Handle, callback: Option<unsafe extern "C" fn(u64, i32, *mut c_void)>, data: *mut c_void, _flags: u32,
    ) {
        device_of(stream)?.streams().check(stream)?;
        callback.ok_or(Fault::InvalidValue)?(stream, 0, data);
        Ok(())
    }
}
