//! CUDA graphs: what is captured is not done, and counts when its graph is launched.

use std::fs;

use crate::library::{Dim3, INVALID_VALUE, in_own_process, open, passed, rtx_4090};

#[test]
fn a_graph_counts_when_it_is_launched() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.json");
    let profile = rtx_4090().to_string();
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_REPORT", report.to_str().expect("a plain path"))];
    let output = in_own_process("graph::a_graph_counts_when_it_is_launched", &environment, || {
        let cudart = open("libcudart.so.13");
        let (mut first, mut second, mut event, mut graph, mut executable) = (0, 0, 0, 0, 0);
        for stream in [&mut first, &mut second] {
            assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), stream, 1), 0);
        }
        assert_eq!(call!(cudart, cudaEventCreate(*mut u64), &mut event), 0);
        let status = |stream: u64| {
            let mut status = 9;
            assert_eq!(call!(cudart, cudaStreamIsCapturing(u64, *mut i32), stream, &mut status), 0);
            status
        };
        let launch =
            |stream: u64| call!(cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, Dim3(1, 1, 1), Dim3(32, 1, 1), 0, 0, stream);
        let fork = |from: u64, to: u64| {
            assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, from), 0);
            assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), to, event, 0), 0);
        };
        assert_eq!(call!(cudart, cudaStreamBeginCapture(u64, i32), first, 0), 0);
        assert_eq!((status(first), status(second), status(0)), (1, 0, 0));
        assert_eq!(launch(first), 0);
        fork(first, second);
        assert_eq!(status(second), 1);
        assert_eq!((launch(second), launch(second)), (0, 0));
        fork(second, first);
        assert_eq!(call!(cudart, cudaStreamEndCapture(u64, *mut u64), first, &mut graph), 0);
        assert_eq!((status(first), status(second)), (0, 0));
        let mut count = 0_usize;
        let counted = call!(cudart, cudaGraphGetNodes(u64, *mut u64, *mut usize), graph, std::ptr::null_mut(), &mut count);
        assert_eq!((counted, count), (0, 3));
        assert_eq!(call!(cudart, cudaGraphInstantiateWithFlags(*mut u64, u64, u64), &mut executable, graph, 0), 0);
        assert_eq!(call!(cudart, cudaGraphDestroy(u64), graph), 0);
        assert_eq!(call!(cudart, cudaGraphDestroy(u64), graph), INVALID_VALUE);
        for _ in 0..5 {
            assert_eq!(call!(cudart, cudaGraphLaunch(u64, u64), executable, first), 0);
        }
        assert_eq!(call!(cudart, cudaGraphExecDestroy(u64), executable), 0);
        assert_eq!(call!(cudart, cudaGraphLaunch(u64, u64), executable, first), INVALID_VALUE);
    });
    passed(&output);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).expect("the report")).expect("JSON");
    assert_eq!(report["devices"]["0"]["kernel_launches"], 15);
}

#[test]
fn waiting_inside_a_capture_spoils_it() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("graph::waiting_inside_a_capture_spoils_it", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        const ILLEGAL_STATE: i32 = 401;
        const UNSUPPORTED: i32 = 900;
        const INVALIDATED: i32 = 901;
        let cudart = open("libcudart.so.13");
        let (mut stream, mut graph) = (0, 0);
        assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), &mut stream, 1), 0);
        assert_eq!(call!(cudart, cudaStreamBeginCapture(u64, i32), 0, 0), UNSUPPORTED, "the default stream");
        assert_eq!(call!(cudart, cudaStreamEndCapture(u64, *mut u64), stream, &mut graph), ILLEGAL_STATE);
        assert_eq!(call!(cudart, cudaStreamBeginCapture(u64, i32), stream, 0), 0);
        assert_eq!(call!(cudart, cudaStreamSynchronize(u64), 0), 0, "another stream");
        assert_eq!(call!(cudart, cudaStreamSynchronize(u64), stream), UNSUPPORTED);
        assert_eq!(call!(cudart, cudaStreamEndCapture(u64, *mut u64), stream, &mut graph), INVALIDATED);
        assert_eq!(graph, 0);
        assert_eq!(call!(cudart, cudaDeviceSynchronize()), 0);
        // Each thread has a mode, which is exchanged.
        for (given, before) in [(2, 0), (0, 2)] {
            let mut mode = given;
            assert_eq!(call!(cudart, cudaThreadExchangeStreamCaptureMode(*mut i32), &mut mode), 0);
            assert_eq!(mode, before);
        }
    });
    passed(&output);
}

/// Kinds of `cudaGraphNodeType`.
const KERNEL: i32 = 0;
const FILL: i32 = 2;
const WAIT_EVENT: i32 = 6;
const RECORD_EVENT: i32 = 7;

#[test]
fn the_nodes_of_a_graph_have_kinds_and_dependencies() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("graph::the_nodes_of_a_graph_have_kinds_and_dependencies", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let cudart = open("libcudart.so.13");
        let (mut first, mut second, mut event, mut graph, mut memory) = (0, 0, 0, 0, 0);
        for stream in [&mut first, &mut second] {
            assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), stream, 1), 0);
        }
        assert_eq!(call!(cudart, cudaEventCreate(*mut u64), &mut event), 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut memory, 4096), 0);
        let launch =
            |stream: u64| call!(cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, Dim3(1, 1, 1), Dim3(32, 1, 1), 0, 0, stream);
        let fork = |from: u64, to: u64| {
            assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, from), 0);
            assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), to, event, 0), 0);
        };
        // The second stream fills beside a kernel of the first; then an event outside is waited for and another one recorded.
        assert_eq!(call!(cudart, cudaStreamBeginCapture(u64, i32), first, 0), 0);
        assert_eq!(launch(first), 0);
        fork(first, second);
        assert_eq!(call!(cudart, cudaMemsetAsync(u64, i32, usize, u64), memory, 7, 16, second), 0);
        assert_eq!(launch(first), 0);
        fork(second, first);
        let mut outside = 0;
        assert_eq!(call!(cudart, cudaEventCreate(*mut u64), &mut outside), 0);
        assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), first, outside, 1), 0);
        assert_eq!(call!(cudart, cudaEventRecordWithFlags(u64, u64, u32), outside, first, 1), 0);
        assert_eq!(call!(cudart, cudaEventQuery(u64), outside), 0, "nothing has recorded it");
        assert_eq!(call!(cudart, cudaEventQuery(u64), event), 907, "it is a mark in the capture");
        assert_eq!(call!(cudart, cudaStreamEndCapture(u64, *mut u64), first, &mut graph), 0);

        let (mut nodes, mut count) = ([9_u64; 8], 8_usize);
        assert_eq!(call!(cudart, cudaGraphGetNodes(u64, *mut u64, *mut usize), graph, nodes.as_mut_ptr(), &mut count), 0);
        assert_eq!((count, &nodes[5..]), (5, &[0; 3][..]), "where there is room for more the rest is empty");
        let kinds = nodes[..5].iter().map(|&node| {
            let mut kind = 99;
            assert_eq!(call!(cudart, cudaGraphNodeGetType(u64, *mut i32), node, &mut kind), 0);
            kind
        });
        assert_eq!(kinds.collect::<Vec<_>>(), [KERNEL, FILL, KERNEL, WAIT_EVENT, RECORD_EVENT]);
        let (mut before, mut count) = ([0_u64; 4], 4_usize);
        let asked = call!(
            cudart,
            cudaGraphNodeGetDependencies(u64, *mut u64, *mut u64, *mut usize),
            nodes[3],
            before.as_mut_ptr(),
            std::ptr::null_mut(),
            &mut count
        );
        assert_eq!((asked, count, &before[..2]), (0, 2, &[nodes[2], nodes[1]][..]));
        let mut count = 0;
        assert_eq!(call!(cudart, cudaGraphGetRootNodes(u64, *mut u64, *mut usize), graph, std::ptr::null_mut(), &mut count), 0);
        assert_eq!(count, 1);

        // What was captured is done at each launch, and not before.
        let read = || {
            let mut value = 99_u8;
            assert_eq!(call!(cudart, cudaMemcpy(*mut u8, u64, usize, i32), &mut value, memory, 1, 2), 0);
            value
        };
        let (mut executable, mut flags) = (0, 99);
        assert_eq!(call!(cudart, cudaGraphInstantiate(*mut u64, u64, u64), &mut executable, graph, 8), 0);
        assert_eq!(call!(cudart, cudaGraphExecGetFlags(u64, *mut u64), executable, &mut flags), 0);
        assert_eq!((read(), flags), (0, 8));
        assert_eq!(call!(cudart, cudaGraphLaunch(u64, u64), executable, second), 0);
        assert_eq!(read(), 7);
    });
    passed(&output);
}

#[test]
fn what_a_capture_cannot_hold_is_refused() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("graph::what_a_capture_cannot_hold_is_refused", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        const UNJOINED: i32 = 904;
        const ISOLATION: i32 = 905;
        let cudart = open("libcudart.so.13");
        let (mut first, mut second, mut event, mut graph) = (0, 0, 0, 9);
        for stream in [&mut first, &mut second] {
            assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), stream, 1), 0);
        }
        assert_eq!(call!(cudart, cudaEventCreate(*mut u64), &mut event), 0);
        let launch =
            |stream: u64| call!(cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, Dim3(1, 1, 1), Dim3(32, 1, 1), 0, 0, stream);
        // An external event is one of a capture alone.
        assert_eq!(call!(cudart, cudaEventRecordWithFlags(u64, u64, u32), event, first, 1), INVALID_VALUE);
        // A stream that does not come back.
        assert_eq!(call!(cudart, cudaStreamBeginCapture(u64, i32), first, 0), 0);
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, first), 0);
        assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), second, event, 0), 0);
        assert_eq!(launch(second), 0);
        assert_eq!(call!(cudart, cudaStreamEndCapture(u64, *mut u64), first, &mut graph), UNJOINED);
        assert_eq!(graph, 0);
        // An event of work that is not captured.
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, second), 0);
        assert_eq!(call!(cudart, cudaStreamBeginCapture(u64, i32), first, 0), 0);
        assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), first, event, 0), ISOLATION);
        assert_eq!(call!(cudart, cudaStreamEndCapture(u64, *mut u64), first, &mut graph), 901);
    });
    passed(&output);
}
