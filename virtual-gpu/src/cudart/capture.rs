//! Captures of streams into CUDA graphs.

use std::cell::Cell;

use super::error::answer;
use super::version::is_cuda_12;
use crate::device::Fault;
use crate::devices::device_of;
use crate::ffi::{Address, Given, Handle, InOut, Out};

/// `cudaStreamCaptureStatus`.
const NOT_CAPTURING: i32 = 0;
const CAPTURING: i32 = 1;
const BROKEN: i32 = 2;
/// `cudaStreamCaptureMode`: the mode in which each thread begins, and the loosest one.
const GLOBAL: i32 = 0;
const RELAXED: i32 = 2;
/// `cudaStreamUpdateCaptureDependenciesFlags`.
const ADD: u32 = 0;
const SET: u32 = 1;

thread_local! {
    static MODE: Cell<i32> = const { Cell::new(GLOBAL) };
}

/// What is known of a stream, where the caller wants it.
pub(crate) struct Asked<'call> {
    pub(crate) status: Out<'call, i32>,
    pub(crate) id: Out<'call, u64>,
    pub(crate) graph: Out<'call, u64>,
    pub(crate) nodes: Out<'call, u64>,
    pub(crate) count: Out<'call, usize>,
}

/// Begins a capture.
pub(crate) fn begin(stream: u64) -> Result<(), Fault> {
    let device = device_of(stream)?;
    device.streams().check(stream)?;
    device.captures().begin(stream)
}

/// Ends a capture. Who captured to a graph that was there need not ask for it.
pub(crate) fn end(stream: u64, graph: Out<u64>) -> Result<(), Fault> {
    graph.set_if_wanted(0);
    let device = device_of(stream)?;
    device.streams().check(stream)?;
    let made = device.captures().end(stream)?;
    graph.set_if_wanted(made);
    Ok(())
}

/// Whether a stream is captured.
pub(crate) fn status(stream: u64) -> Result<i32, Fault> {
    let captures = device_of(stream)?.captures();
    Ok(captures.captured(stream).map_or(NOT_CAPTURING, |captured| if captured.is_broken { BROKEN } else { CAPTURING }))
}

/// What is known of a stream. The nodes stay where they are until something else is asked of the stream, as CUDA has it.
pub(crate) fn tell(stream: u64, asked: &Asked) -> Result<(), Fault> {
    asked.status.set(status(stream)?)?;
    let captures = device_of(stream)?.captures();
    let captured = captures.captured(stream);
    asked.id.set_if_wanted(captured.map_or(0, |captured| captured.id));
    asked.graph.set_if_wanted(captured.map_or(0, |captured| captured.graph));
    asked.nodes.set_if_wanted(captured.map_or(0, |captured| captured.ends.as_ptr() as u64));
    asked.count.set_if_wanted(captured.map_or(0, |captured| captured.ends.len()));
    Ok(())
}

/// Has a stream go on after other nodes.
pub(crate) fn go_on_after(stream: u64, nodes: &[u64], flags: u32) -> Result<(), Fault> {
    match flags {
        ADD | SET => device_of(stream)?.captures().go_on_after(stream, nodes, flags == SET),
        _ => Err(Fault::InvalidValue),
    }
}

exports! { answer;
    fn cudaStreamBeginCapture(stream: Handle, _mode: i32) {
        begin(stream)
    }

    fn cudaStreamEndCapture(stream: Handle, graph: Out<u64>) {
        end(stream, graph)
    }

    fn cudaStreamIsCapturing(stream: Handle, captured: Out<i32>) {
        captured.set(status(stream)?)
    }

    // CUDA 12 means the first version by this name, which has no more than three parameters.
    fn cudaStreamGetCaptureInfo(
        stream: Handle, status: Out<i32>, id: Out<u64>, graph: Out<u64>, nodes: Out<u64>, edges: Out<u64>, count: Out<usize>,
    ) {
        if is_cuda_12() {
            return tell(stream, &Asked { status, id, graph: Out::unwanted(), nodes: Out::unwanted(), count: Out::unwanted() });
        }
        tell(stream, &Asked { status, id, graph, nodes, count })?;
        // None of them has data.
        edges.set_if_wanted(0);
        Ok(())
    }

    fn cudaStreamGetCaptureInfo_v2(
        stream: Handle, status: Out<i32>, id: Out<u64>, graph: Out<u64>, nodes: Out<u64>, count: Out<usize>,
    ) {
        tell(stream, &Asked { status, id, graph, nodes, count })
    }

    fn cudaStreamGetCaptureInfo_v3(
        stream: Handle, status: Out<i32>, id: Out<u64>, graph: Out<u64>, nodes: Out<u64>, edges: Out<u64>, count: Out<usize>,
    ) {
        tell(stream, &Asked { status, id, graph, nodes, count })?;
        edges.set_if_wanted(0);
        Ok(())
    }

    fn cudaThreadExchangeStreamCaptureMode(mode: InOut<i32>) {
        let wanted = mode.get().filter(|wanted| (GLOBAL..=RELAXED).contains(wanted)).ok_or(Fault::InvalidValue)?;
        mode.set(MODE.replace(wanted))
    }
}

unsafe_exports! { answer;
    fn cudaStreamBeginCaptureToGraph(
        stream: Handle, graph: Handle, dependencies: Given<u64>, _data: Address, count: usize, _mode: i32,
    ) {
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        device.captures().begin_to_graph(stream, graph, dependencies.to_vec(count))
    }

    // CUDA 12 has no data of edges, so that what follows stands one place before.
    fn cudaStreamUpdateCaptureDependencies(stream: Handle, dependencies: Given<u64>, data: Address, count: usize, flags: u32) {
        let (count, flags) = if is_cuda_12() { (data as usize, count as u32) } else { (count, flags) };
        go_on_after(stream, &dependencies.to_vec(count), flags)
    }
}
