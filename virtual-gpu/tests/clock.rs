//! The clock behind the C interface: what work costs, when events are passed, and what observers say of kernels.

use std::fs;

use serde_json::{Value, json};

use crate::library::{Dim3, HOST_TO_DEVICE, INVALID_HANDLE, in_own_process, open, passed, rtx_4090};

const NOT_READY: i32 = 600;
const MIB: usize = 1 << 20;

/// Round rates: memory and bf16 as the sums below say, all of each reached, and nothing else worth naming.
fn round_profile() -> String {
    let mut profile = rtx_4090();
    profile["memory_bytes_per_sec"]["value"] = json!(1e12);
    profile["flops"]["bf16"]["value"] = json!(1e14);
    profile["pcie"]["pinned_bytes_per_sec"]["value"] = json!(1e10);
    for kind in ["gemm", "attention", "convolution", "pointwise", "reduction"] {
        profile["efficiency"][kind] = json!({"low": 0.5, "expected": 1.0, "high": 1.0, "source": "round"});
    }
    profile.to_string()
}

/// A fresh library, with events between which time is taken.
struct Timed {
    cudart: crate::library::Library,
    events: [u64; 2],
}

impl Timed {
    fn new() -> Self {
        let cudart = open("libcudart.so.13");
        let mut events = [0; 2];
        for event in &mut events {
            assert_eq!(call!(cudart, cudaEventCreate(*mut u64), event), 0);
        }
        Self { cudart, events }
    }

    /// Milliseconds of the device that `work` takes on the default stream, and the interval in seconds.
    fn time(&self, work: impl FnOnce()) -> (f64, [f64; 3]) {
        let (cudart, [begun, ended]) = (&self.cudart, self.events);
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), begun, 0), 0);
        work();
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), ended, 0), 0);
        assert_eq!(call!(cudart, cudaEventSynchronize(u64), ended), 0);
        let (mut millis, mut secs) = (0.0_f32, [0.0; 3]);
        assert_eq!(call!(cudart, cudaEventElapsedTime(*mut f32, u64, u64), &mut millis, begun, ended), 0);
        assert_eq!(call!(cudart, lowmem_virtual_gpu_elapsed(u64, u64, *mut [f64; 3]), begun, ended, &mut secs), 0);
        (f64::from(millis), secs)
    }

    fn launch(&self) -> i32 {
        call!(self.cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, Dim3(1, 1, 1), Dim3(32, 1, 1), 0, 0, 0)
    }
}

/// Within a hundredth: what a launch and an empty kernel take comes on top.
fn assert_near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 0.01, "{found}, not {expected}");
}

#[test]
fn a_product_takes_its_operations_and_a_copy_its_bytes() {
    let profile = round_profile();
    let output = in_own_process("clock::a_product_takes_its_operations_and_a_copy_its_bytes", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let (timed, cublas) = (Timed::new(), open("libcublas.so.13"));
        let (mut handle, mut device, mut pinned) = (0, 0, 0);
        assert_eq!(call!(cublas, cublasCreate_v2(*mut u64), &mut handle), 0);
        assert_eq!(call!(timed.cudart, cudaMalloc(*mut u64, usize), &mut device, 100 * MIB), 0);
        assert_eq!(call!(timed.cudart, cudaHostAlloc(*mut u64, usize, u32), &mut pinned, 100 * MIB, 0), 0);
        // 2 * 5000^3 = 2.5e11 operations at 1e14 a second; half of that rate in the slow world.
        let (millis, [low, expected, high]) = timed.time(|| {
            let product = call!(
                cublas,
                cublasGemmEx(u64, i32, i32, i32, i32, i32, u64, u64, i32, i32, u64, i32, i32, u64, u64, i32, i32, i32, i32),
                handle,
                0,
                0,
                5000,
                5000,
                5000,
                0,
                device,
                14,
                5000,
                device,
                14,
                5000,
                0,
                device,
                14,
                5000,
                68,
                -1
            );
            assert_eq!(product, 0);
        });
        assert_near(millis, 2.5);
        assert_near(expected, 2.5e-3);
        assert_near(low, 2.5e-3);
        assert_near(high, 5e-3);
        // 100 MiB at 1e10 a second, from pinned memory.
        let copy = |from: u64| {
            assert_eq!(call!(timed.cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), device, from, 100 * MIB, HOST_TO_DEVICE, 0), 0);
        };
        let (millis, _) = timed.time(|| copy(pinned));
        assert_near(millis, 10.48576);
        // Memory that is not pinned: 0.4 of the rate. It is never read, since the copy is large.
        let (millis, _) = timed.time(|| copy(pinned + (1 << 45)));
        assert_near(millis, 10.48576 / 0.4);
    });
    passed(&output);
}

/// What goes both ways at once takes the longer way, and calls that are no group go one after the other.
#[test]
fn a_group_of_sends_and_receives_takes_the_link_once() {
    let mut profile: Value = serde_json::from_str(&round_profile()).expect("a profile");
    // 80% of it is taken to be reached: 1e10 a second.
    profile["nvlink_bytes_per_sec"] = json!({ "value": 1.25e10, "source": "round" });
    let (test, profile) = ("clock::a_group_of_sends_and_receives_takes_the_link_once", profile.to_string());
    let output = in_own_process(test, &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        #[repr(C)]
        struct UniqueId([u8; 128]);
        let (timed, nccl) = (Timed::new(), open("libnccl.so.2"));
        let (mut communicator, mut device) = (0, 0);
        let id = UniqueId([3; 128]);
        assert_eq!(call!(nccl, ncclCommInitRank(*mut u64, i32, UniqueId, i32), &mut communicator, 3, id, 0), 0);
        assert_eq!(call!(timed.cudart, cudaMalloc(*mut u64, usize), &mut device, 200 * MIB), 0);
        let (sends, receives) = (
            |bytes: usize, to: i32| {
                assert_eq!(call!(nccl, ncclSend(u64, usize, i32, i32, u64, u64), device, bytes, 0, to, communicator, 0), 0)
            },
            |bytes: usize, from: i32| {
                assert_eq!(call!(nccl, ncclRecv(u64, usize, i32, i32, u64, u64), device, bytes, 0, from, communicator, 0), 0)
            },
        );
        let group = |calls: &dyn Fn()| {
            assert_eq!(call!(nccl, ncclGroupStart()), 0);
            calls();
            assert_eq!(call!(nccl, ncclGroupEnd()), 0);
        };
        // 100 MiB to each of two others, and 50 from each.
        let all = || [1, 2].into_iter().for_each(|other| (sends(100 * MIB, other), receives(50 * MIB, other)).0);
        assert_near(timed.time(|| group(&all)).0, 2.0 * 10.48576);
        // A group within a group is one with it.
        assert_near(timed.time(|| group(&|| (group(&all), group(&all)).0)).0, 4.0 * 10.48576);
        assert_near(timed.time(all).0, 3.0 * 10.48576);
    });
    passed(&output);
}

#[test]
fn an_observer_says_what_a_kernel_was() {
    let profile = round_profile();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("timeline.json");
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_TIMELINE", path.to_str().expect("a plain path"))];
    let output = in_own_process("clock::an_observer_says_what_a_kernel_was", &environment, || {
        let timed = Timed::new();
        let begin = |name: &std::ffi::CStr| call!(timed.cudart, lowmem_virtual_gpu_begin(*const std::ffi::c_char), name.as_ptr());
        let end = |kind: i32, operations: f64, bytes: f64| {
            call!(timed.cudart, lowmem_virtual_gpu_end(i32, i32, f64, f64), kind, 2, operations, bytes)
        };
        // The kernel is loaded once.
        assert_eq!(timed.launch(), 0);
        // Attention inside something that launches nothing itself: 1e11 operations of bf16 at 1e14 a second, whichever of its kernels does them.
        let (millis, _) = timed.time(|| {
            assert_eq!(begin(c"outer"), 0);
            assert_eq!(begin(c"attention"), 0);
            assert_eq!((timed.launch(), timed.launch()), (0, 0));
            assert_eq!(end(2, 1e11, 1.0), 0);
            assert_eq!(end(4, 0.0, 1e15), 0);
        });
        assert_near(millis, 1.0 + 0.004);
        // Pointwise: 1e9 bytes at 1e12 a second.
        let (millis, _) = timed.time(|| {
            assert_eq!(begin(c"add"), 0);
            assert_eq!(timed.launch(), 0);
            assert_eq!(end(4, 0.0, 1e9), 0);
        });
        assert_near(millis, 1.0 + 0.004);
        // The host works for a second.
        let (millis, secs) = timed.time(|| {
            assert_eq!(call!(timed.cudart, lowmem_virtual_gpu_host_work(*const [f64; 3]), &[0.5, 1.0, 2.0]), 0);
        });
        assert_near(millis, 1000.0);
        assert_near(secs[2], 2.0);
    });
    passed(&output);
    // The list is never closed, as the format allows.
    let text = fs::read_to_string(&path).expect("written");
    let events: Vec<Value> = serde_json::from_str(&format!("{}]", text.trim_end().trim_end_matches(','))).expect("a list of events");
    let names: Vec<_> = events.iter().filter(|event| event["ph"] == "X").map(|event| event["name"].clone()).collect();
    assert_eq!(names, ["kernel", "attention", "add"]);
    assert!(events.iter().any(|event| event["args"]["name"] == "default stream"));
}

#[test]
fn an_event_is_ready_when_the_host_has_waited_long_enough() {
    let profile = round_profile();
    for (order, at_once) in [("clock", NOT_READY), ("eager", 0), ("lazy", NOT_READY), ("sideways", NOT_READY)] {
        let environment = [
            ("LOWMEM_VIRTUAL_GPU", profile.as_str()),
            ("LOWMEM_VIRTUAL_GPU_EVENTS", order),
            ("LOWMEM_TEST_EXPECTED", if at_once == 0 { "0" } else { "600" }),
        ];
        let output = in_own_process("clock::an_event_is_ready_when_the_host_has_waited_long_enough", &environment, || {
            let timed = Timed::new();
            let (cudart, [event, after]) = (&timed.cudart, timed.events);
            let at_once: i32 = std::env::var("LOWMEM_TEST_EXPECTED").expect("given").parse().expect("a code");
            let mut device = 0;
            assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut device, 1000 * MIB), 0);
            assert_eq!(call!(cudart, cudaEventQuery(u64), event), 0, "one that was never recorded is passed");
            // About a millisecond.
            assert_eq!(call!(cudart, cudaMemsetAsync(u64, i32, usize, u64), device, 0, 1000 * MIB, 0), 0);
            assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, 0), 0);
            assert_eq!(call!(cudart, cudaEventQuery(u64), event), at_once);
            assert_eq!(call!(cudart, cudaStreamQuery(u64), 0), at_once);
            assert_eq!(call!(cudart, cudaGetLastError()), 0, "not to be ready is no error");
            assert_eq!(call!(cudart, cudaEventRecord(u64, u64), after, 0), 0);
            let mut millis = 0.0;
            assert_eq!(call!(cudart, cudaEventElapsedTime(*mut f32, u64, u64), &mut millis, event, after), at_once);
            assert_eq!(call!(cudart, cudaEventSynchronize(u64), after), 0);
            assert_eq!(call!(cudart, cudaEventQuery(u64), event), 0);
            // A program that polls gets on.
            assert_eq!(call!(cudart, cudaMemsetAsync(u64, i32, usize, u64), device, 0, 1000 * MIB, 0), 0);
            assert!((0..100).any(|_| call!(cudart, cudaStreamQuery(u64), 0) == 0));
            assert_eq!(call!(cudart, cudaEventQuery(u64), 0x999), INVALID_HANDLE);
        });
        let said = passed(&output);
        assert_eq!(said.contains("is none of clock, eager and lazy"), order == "sideways", "{said}");
    }
}

#[test]
fn a_collective_takes_what_crosses_each_ranks_link() {
    let profile = round_profile();
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_COUNT", "4")];
    passed(&in_own_process("clock::a_collective_takes_what_crosses_each_ranks_link", &environment, || {
        let (timed, nccl) = (Timed::new(), open("libnccl.so.2"));
        let (mut ranks, mut buffer) = ([0_u64; 4], 0_u64);
        assert_eq!(call!(nccl, ncclCommInitAll(*mut u64, i32, *const i32), ranks.as_mut_ptr(), 4, std::ptr::null()), 0);
        assert_eq!(call!(timed.cudart, cudaSetDevice(i32), 0), 0);
        assert_eq!(call!(timed.cudart, cudaMalloc(*mut u64, usize), &mut buffer, 400 * MIB), 0);
        // 100 MiB of fp32 at 1e10 bytes a second: one and a half times where all of four ranks reduce, three times where each gets the others' parts.
        let part = (100 * MIB) as f64 / 1e10 * 1e3;
        let count = 25 * MIB;
        let (millis, _) = timed.time(|| {
            let reduced = call!(nccl, ncclAllReduce(u64, u64, usize, i32, i32, u64, u64), buffer, buffer, count, 7, 0, ranks[0], 0);
            assert_eq!(reduced, 0);
        });
        assert_near(millis, 1.5 * part);
        let (millis, _) = timed.time(|| {
            assert_eq!(call!(nccl, ncclAllGather(u64, u64, usize, i32, u64, u64), buffer, buffer, count, 7, ranks[0], 0), 0);
        });
        assert_near(millis, 3.0 * part);
    }));
}
