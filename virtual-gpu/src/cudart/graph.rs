//! CUDA graphs: capture, and launch of what was captured.

use std::cell::Cell;

use super::error::answer;
use crate::device::Fault;
use crate::devices::device_of;
use crate::ffi::{Handle, InOut, Out};

/// `cudaStreamCaptureStatus`.
const NOT_CAPTURING: i32 = 0;
const CAPTURING: i32 = 1;
const BROKEN: i32 = 2;
/// `cudaStreamCaptureMode`: the mode in which each thread begins, and the loosest one.
const GLOBAL: i32 = 0;
const RELAXED: i32 = 2;

thread_local! {
    static MODE: Cell<i32> = const { Cell::new(GLOBAL) };
}

fn status_of(is_broken: bool) -> i32 {
    if is_broken { BROKEN } else { CAPTURING }
}

exports! { answer;
    fn cudaStreamBeginCapture(stream: Handle, _mode: i32) {
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        device.graphs().begin(stream)
    }

    fn cudaStreamEndCapture(stream: Handle, graph: Out<u64>) {
        graph.set(0)?;
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        let made = device.graphs().end(stream)?;
        graph.set(made)
    }

    fn cudaStreamIsCapturing(stream: Handle, status: Out<i32>) {
        let captured = device_of(stream)?.graphs().captured(stream);
        status.set(captured.map_or(NOT_CAPTURING, |captured| status_of(captured.is_broken)))
    }

    fn cudaStreamGetCaptureInfo(
        stream: Handle, status: Out<i32>, id: Out<u64>, graph: Out<u64>, dependencies: Out<u64>, edges: Out<u64>, count: Out<usize>,
    ) {
        let captured = device_of(stream)?.graphs().captured(stream);
        status.set(captured.map_or(NOT_CAPTURING, |captured| status_of(captured.is_broken)))?;
        id.set_if_wanted(captured.map_or(0, |captured| captured.id));
        graph.set_if_wanted(captured.map_or(0, |captured| captured.graph));
        // A graph is a number of operations here, so none has a node that another one could depend on.
        for pointer in [dependencies, edges] {
            pointer.set_if_wanted(0);
        }
        count.set_if_wanted(0);
        Ok(())
    }

    fn cudaThreadExchangeStreamCaptureMode(mode: InOut<i32>) {
        let wanted = mode.get().filter(|wanted| (GLOBAL..=RELAXED).contains(wanted)).ok_or(Fault::InvalidValue)?;
        mode.set(MODE.replace(wanted))
    }

    fn cudaGraphGetNodes(graph: Handle, nodes: Out<u64>, count: Out<usize>) {
        let operations = device_of(graph)?.graphs().operations(graph)?;
        // They can be counted and not looked at.
        if nodes.is_null() { count.set(operations as usize) } else { Err(Fault::NotSupported) }
    }

    fn cudaGraphInstantiateWithFlags(executable: Out<u64>, graph: Handle, _flags: u64) {
        let made = device_of(graph)?.graphs().instantiate(graph)?;
        executable.set(made)
    }

    fn cudaGraphLaunch(executable: Handle, stream: Handle) {
        device_of(executable)?.launch_graph(executable, stream)
    }

    fn cudaGraphDestroy(graph: Handle) {
        device_of(graph)?.graphs().destroy(graph)
    }

    fn cudaGraphExecDestroy(executable: Handle) {
        device_of(executable)?.graphs().destroy_executable(executable)
    }
}
