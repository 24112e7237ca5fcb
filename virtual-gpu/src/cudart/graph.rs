//! CUDA graphs: no stream is ever captured. Beginning a capture is unsupported; these are the questions that ordinary
//! work asks.

use super::answer;
use crate::device::Fault;
use crate::ffi::Out;

/// `cudaStreamCaptureStatusNone`.
const NOT_CAPTURING: i32 = 0;

exports! { answer;
    fn cudaStreamIsCapturing(_stream: u64, status: Out<i32>) {
        status.set(NOT_CAPTURING)
    }

    fn cudaStreamGetCaptureInfo(
        _stream: u64, status: Out<i32>, id: Out<u64>, graph: Out<u64>, dependencies: Out<u64>, edges: Out<u64>, count: Out<usize>,
    ) {
        status.set(NOT_CAPTURING)?;
        for pointer in [id, graph, dependencies, edges] {
            pointer.set_if_wanted(0);
        }
        count.set_if_wanted(0);
        Ok(())
    }

    fn cudaThreadExchangeStreamCaptureMode(mode: Out<i32>) {
        // With nothing captured the modes differ in nothing: each thread keeps the one that it gives.
        if mode.is_null() { Err(Fault::InvalidValue) } else { Ok(()) }
    }
}
