//! The trace of operations that the library leaves behind.

use std::fs;

use serde_json::{Value, json};

use crate::library::{DEVICE_TO_HOST, HOST_TO_DEVICE, in_own_process, open, passed, rtx_4090};

const BF16: i32 = 14;

/// Copies, products and waits of two streams, as PyTorch would ask for them.
fn two_streams() {
    let (cudart, cublas, cublaslt) = (open("libcudart.so.13"), open("libcublas.so.13"), open("libcublasLt.so.13"));
    let (mut device, mut stream, mut event, mut handle) = (0, 0, 0, 0);
    let host = vec![0_u8; 4096];
    assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut device, 4096), 0);
    assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), &mut stream, 1), 0);
    assert_eq!(call!(cudart, cudaEventCreateWithFlags(*mut u64, u32), &mut event, 2), 0);
    let copied = call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), device, host.as_ptr() as u64, 1000, HOST_TO_DEVICE, stream);
    assert_eq!(copied, 0);
    assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, stream), 0);
    assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), 0, event, 0), 0);

    // 3x5 times 5x7, the first one as it lies, the second one the other way round.
    assert_eq!(call!(cublas, cublasCreate_v2(*mut u64), &mut handle), 0);
    let product = call!(
        cublas,
        cublasGemmEx(u64, i32, i32, i32, i32, i32, u64, u64, i32, i32, u64, i32, i32, u64, u64, i32, i32, i32, i32),
        handle,
        0,
        1,
        3,
        7,
        5,
        0,
        device,
        BF16,
        4,
        device + 512,
        BF16,
        8,
        0,
        device + 1024,
        BF16,
        3,
        68,
        -1
    );
    assert_eq!(product, 0);

    // Again with cuBLASLt on the other stream, with a bias, and twice.
    let (mut description, mut layouts) = (0, [0; 3]);
    assert_eq!(call!(cublaslt, cublasLtMatmulDescCreate(*mut u64, i32, i32), &mut description, 68, 0), 0);
    let bias = device + 2048;
    let set = call!(cublaslt, cublasLtMatmulDescSetAttribute(u64, i32, *const u64, usize), description, 8, &bias, 8);
    assert_eq!(set, 0);
    for (layout, (rows, columns, leading)) in layouts.iter_mut().zip([(3_u64, 5_u64, 4_i64), (5, 7, 5), (3, 7, 3)]) {
        let made = call!(cublaslt, cublasLtMatrixLayoutCreate(*mut u64, i32, u64, u64, i64), layout, BF16, rows, columns, leading);
        assert_eq!(made, 0);
        let (count, distance) = (2_i32, 50_i64);
        let set = call!(cublaslt, cublasLtMatrixLayoutSetAttribute(u64, i32, *const i32, usize), *layout, 5, &count, 4);
        assert_eq!(set, 0);
        let set = call!(cublaslt, cublasLtMatrixLayoutSetAttribute(u64, i32, *const i64, usize), *layout, 6, &distance, 8);
        assert_eq!(set, 0);
    }
    let [a, b, c] = layouts;
    let product = call!(
        cublaslt,
        cublasLtMatmul(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, usize, u64),
        0,
        description,
        0,
        device,
        a,
        device + 512,
        b,
        0,
        device + 1024,
        c,
        device + 1024,
        c,
        0,
        0,
        0,
        stream
    );
    assert_eq!(product, 0);

    let copied = call!(cudart, cudaMemcpy(u64, u64, usize, i32), host.as_ptr() as u64, device, 8, DEVICE_TO_HOST);
    assert_eq!(copied, 0);
    assert_eq!(call!(cudart, cudaEventSynchronize(u64), event), 0);
    assert_eq!(call!(cudart, cudaStreamSynchronize(u64), stream), 0);
    assert_eq!(call!(cudart, cudaDeviceSynchronize()), 0);
    // What is refused is no operation.
    assert_ne!(call!(cudart, cudaStreamSynchronize(u64), 7), 0);
    assert_eq!(call!(cudart, cudaFree(u64), device), 0);
}

#[test]
fn operations_are_written_in_the_order_in_which_they_were_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    let profile = rtx_4090().to_string();
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_TRACE", path.to_str().expect("a plain path"))];
    passed(&in_own_process("trace::operations_are_written_in_the_order_in_which_they_were_asked_for", &environment, two_streams));

    let text = fs::read_to_string(&path).expect("the trace was written");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let device = lines[0]["address"].as_u64().expect("an address");
    let (stream, event) = (lines[1]["stream"].clone(), lines[2]["event"].clone());
    for line in &mut lines {
        let thread = line.as_object_mut().expect("an object").remove("thread");
        assert_eq!(thread, Some(json!(0)), "there is one");
    }
    let expected = [
        json!({"op": "allocate", "address": device, "bytes": 4096}),
        json!({"op": "copy_to_device", "stream": stream, "writes": [[device, 1000]]}),
        json!({"op": "record_event", "event": event, "stream": stream}),
        json!({"op": "wait_event", "stream": 0, "event": event}),
        json!({"op": "product", "stream": 0,
            "reads": [[device, 2 * (4 * 4 + 3)], [device + 512, 2 * (4 * 8 + 7)]], "writes": [[device + 1024, 2 * 21]]}),
        json!({"op": "product", "stream": stream,
            "reads": [[device, 2 * (50 + 4 * 4 + 3)], [device + 512, 2 * (50 + 35)], [device + 2048, 2 * 3]],
            "writes": [[device + 1024, 2 * (50 + 21)]]}),
        json!({"op": "copy_to_host", "stream": 0, "reads": [[device, 8]]}),
        json!({"op": "synchronize_stream", "stream": 0}),
        json!({"op": "synchronize_event", "event": event}),
        json!({"op": "synchronize_stream", "stream": stream}),
        json!({"op": "synchronize_device"}),
        json!({"op": "free", "address": device}),
    ];
    assert_eq!(lines, expected);
}
