//! Streams and events.

use std::ffi::c_void;

use super::answer;
use crate::device::{EventKind, Fault, LEAST_PRIORITY, Operation};
use crate::ffi::{Out, call_host};
use crate::process::active_device;

/// `cudaEventDisableTiming`.
const DISABLE_TIMING: u32 = 2;

fn record(event: u64, stream: u64) -> Result<(), Fault> {
    let device = active_device()?;
    device.streams().check(stream)?;
    device.events().record(event)?;
    device.trace.note(|| Operation::RecordEvent { event, stream });
    Ok(())
}

exports! { answer;
    fn cudaStreamCreate(stream: Out<u64>) {
        stream.set(active_device()?.streams().create(0, LEAST_PRIORITY))
    }

    fn cudaStreamCreateWithFlags(stream: Out<u64>, flags: u32) {
        stream.set(active_device()?.streams().create(flags, LEAST_PRIORITY))
    }

    fn cudaStreamCreateWithPriority(stream: Out<u64>, flags: u32, priority: i32) {
        stream.set(active_device()?.streams().create(flags, priority))
    }

    fn cudaStreamDestroy(stream: u64) {
        active_device()?.streams().destroy(stream)
    }

    fn cudaStreamGetPriority(stream: u64, priority: Out<i32>) {
        priority.set(active_device()?.streams().priority(stream)?)
    }

    fn cudaStreamGetFlags(stream: u64, flags: Out<u32>) {
        flags.set(active_device()?.streams().flags(stream)?)
    }

    fn cudaStreamQuery(stream: u64) {
        active_device()?.streams().check(stream)
    }

    fn cudaStreamSynchronize(stream: u64) {
        let device = active_device()?;
        device.streams().check(stream)?;
        device.synchronize_stream(stream);
        Ok(())
    }

    fn cudaStreamWaitEvent(stream: u64, event: u64, _flags: u32) {
        let device = active_device()?;
        device.streams().check(stream)?;
        device.events().check(event)?;
        device.trace.note(|| Operation::WaitEvent { stream, event });
        Ok(())
    }

    fn cudaLaunchHostFunc(stream: u64, function: Option<extern "C" fn(*mut c_void)>, data: *mut c_void) {
        active_device()?.streams().check(stream)?;
        call_host(function, data)
    }

    fn cudaStreamAddCallback(
        stream: u64, callback: Option<extern "C" fn(u64, i32, *mut c_void)>, data: *mut c_void, _flags: u32,
    ) {
        active_device()?.streams().check(stream)?;
        callback.ok_or(Fault::InvalidValue)?(stream, 0, data);
        Ok(())
    }

    fn cudaEventCreate(event: Out<u64>) {
        event.set(active_device()?.events().create(EventKind::Timed))
    }

    fn cudaEventCreateWithFlags(event: Out<u64>, flags: u32) {
        let kind = if flags & DISABLE_TIMING == 0 { EventKind::Timed } else { EventKind::Untimed };
        event.set(active_device()?.events().create(kind))
    }

    fn cudaEventDestroy(event: u64) {
        active_device()?.events().destroy(event)
    }

    fn cudaEventRecord(event: u64, stream: u64) {
        record(event, stream)
    }

    fn cudaEventRecordWithFlags(event: u64, stream: u64, _flags: u32) {
        record(event, stream)
    }

    fn cudaEventQuery(event: u64) {
        active_device()?.events().check(event)
    }

    fn cudaEventSynchronize(event: u64) {
        let device = active_device()?;
        device.events().check(event)?;
        device.trace.note(|| Operation::SynchronizeEvent { event });
        Ok(())
    }

    fn cudaEventElapsedTime(millis: Out<f32>, start: u64, end: u64) {
        millis.set(active_device()?.events().elapsed_millis(start, end)?)
    }
}
