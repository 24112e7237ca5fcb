//! Streams, events, and graphs that are captured from streams.

use std::ffi::c_void;

use super::error::answer;
use crate::device::{EventKind, Fault, GREATEST_PRIORITY, LEAST_PRIORITY};
use crate::devices::{active_device, device_of};
use crate::ffi::{Handle, Out, call_host};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// `CUstreamCaptureStatus`.
const NOT_CAPTURING: i32 = 0;
const CAPTURING: i32 = 1;
const BROKEN: i32 = 2;

fn elapsed(millis: Out<f32>, start: u64, end: u64) -> Result<(), Fault> {
    millis.set(device_of(start)?.elapsed_millis(start, end)?)
}

exports! { answer;
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

    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) {
        device_of(stream)?.wait_event(stream, event, device_of(event)?)
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

    fn cuStreamBeginCapture_v2(stream: Handle, _mode: i32) {
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        device.graphs().begin(stream)
    }

    fn cuStreamEndCapture(stream: Handle, graph: Out<u64>) {
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        let made = device.graphs().end(stream)?;
        graph.set(made)
    }

    fn cuStreamIsCapturing(stream: Handle, status: Out<i32>) {
        let captured = device_of(stream)?.graphs().captured(stream);
        status.set(captured.map_or(NOT_CAPTURING, |captured| if captured.is_broken { BROKEN } else { CAPTURING }))
    }

    fn cuGraphInstantiateWithFlags(executable: Out<u64>, graph: Handle, _flags: u64) {
        let made = device_of(graph)?.graphs().instantiate(graph)?;
        executable.set(made)
    }

    fn cuGraphLaunch(executable: Handle, stream: Handle) {
        device_of(executable)?.launch_graph(executable, stream)
    }

    fn cuGraphUpload(executable: Handle, stream: Handle) {
        device_of(stream)?.streams().check(stream)?;
        device_of(executable)?.graphs().launched(executable).map(drop)
    }

    fn cuGraphDestroy(graph: Handle) {
        device_of(graph)?.graphs().destroy(graph)
    }

    fn cuGraphExecDestroy(executable: Handle) {
        device_of(executable)?.graphs().destroy_executable(executable)
    }
}

unsafe_exports! { answer;
    fn cuLaunchHostFunc(stream: Handle, function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) {
        device_of(stream)?.streams().check(stream)?;
        call_host(function, data)
    }
}
