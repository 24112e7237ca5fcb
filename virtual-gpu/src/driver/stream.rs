//! Streams and events.

use std::ffi::c_void;

use super::error::{answer, ready};
use crate::cudart::{call_on, record_event, wait_event};
use crate::device::{EventKind, Fault, GREATEST_PRIORITY, LEAST_PRIORITY};
use crate::devices::{active_device, device_of};
use crate::ffi::{Handle, Out};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;

fn elapsed(millis: Out<f32>, start: u64, end: u64) -> Result<(), Fault> {
    millis.set(device_of(start)?.elapsed_millis(start, end)?)
}

exports! { answer, ready;
    fn cuStreamCreate(stream: Out<u64>, flags: u32) {
        stream.set(active_device()?.create_stream(flags, LEAST_PRIORITY)?)
    }

    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, priority: i32) {
        stream.set(active_device()?.create_stream(flags, priority)?)
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        active_device()?;
        least.set_if_wanted(LEAST_PRIORITY);
        greatest.set_if_wanted(GREATEST_PRIORITY);
        Ok(())
    }

    fn cuStreamDestroy_v2(stream: Handle) {
        device_of(stream)?.destroy_stream(stream)
    }

    fn cuStreamQuery(stream: Handle) {
        device_of(stream)?.query_stream(stream)
    }

    fn cuStreamSynchronize(stream: Handle) {
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        device.synchronize_stream(stream)
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32) {
        wait_event(stream, event, flags)
    }

    fn cuEventCreate(event: Out<u64>, flags: u32) {
        let kind = if flags & DISABLE_TIMING == 0 { EventKind::Timed } else { EventKind::Untimed };
        event.set(active_device()?.events().create(kind))
    }

    fn cuEventDestroy_v2(event: Handle) {
        device_of(event)?.events().destroy(event)
    }

    fn cuEventRecord(event: Handle, stream: Handle) {
        device_of(stream)?.record_event(event, stream)
    }

    fn cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) {
        record_event(event, stream, flags)
    }

    fn cuEventQuery(event: Handle) {
        device_of(event)?.query_event(event)
    }

    fn cuEventSynchronize(event: Handle) {
        device_of(event)?.synchronize_event(event)
    }

    fn cuEventElapsedTime(millis: Out<f32>, start: Handle, end: Handle) {
        elapsed(millis, start, end)
    }

    fn cuEventElapsedTime_v2(millis: Out<f32>, start: Handle, end: Handle) {
        elapsed(millis, start, end)
    }
}

unsafe_exports! { answer, ready;
    fn cuLaunchHostFunc(stream: Handle, function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) {
        call_on(stream, function, data)
    }
}
