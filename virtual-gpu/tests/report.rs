//! The report that the library leaves behind.

use std::fs;

use crate::library::{Dim3, OUT_OF_MEMORY, in_own_process, open, passed, with_memory};

const MIB: usize = 1 << 20;

fn read(path: &std::path::Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).expect("the report was written")).expect("the report is JSON")
}

#[test]
fn the_same_calls_leave_the_same_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = with_memory(100 << 20, 10 << 20);
    let run = |name: &str| {
        let path = folder.path().join(name);
        let report = path.to_str().expect("a plain path");
        let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_REPORT", report)];
        passed(&in_own_process("report::the_same_calls_leave_the_same_report", &environment, || {
            let cudart = open("libcudart.so.13");
            let (mut device, mut pinned) = (0, 0);
            let begin = |name: &'static std::ffi::CStr| call!(cudart, lowmem_virtual_gpu_begin(*const i8), name.as_ptr());
            let end = || call!(cudart, lowmem_virtual_gpu_end(i32, i32, f64, f64), 0, 0, 0.0, 0.0);
            assert_eq!((begin(c"aten::linear"), begin(c"aten::empty")), (0, 0));
            assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut device, 30 * MIB), 0);
            assert_eq!((end(), end()), (0, 0));
            assert_eq!(call!(cudart, cudaHostAlloc(*mut u64, usize, u32), &mut pinned, 5 * MIB, 0), 0);
            assert_eq!(call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), device, pinned, 5 * MIB, 1, 0), 0);
            assert_eq!(call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), pinned, device, 3, 2, 0), 0);
            // An observer says what reads: the outermost operation counts.
            assert_eq!((begin(c"aten::unique_dim"), begin(c"aten::nonzero")), (0, 0));
            for _ in 0..2 {
                assert_eq!(call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), pinned, device, 4, 2, 0), 0);
            }
            assert_eq!((end(), end()), (0, 0));
            assert_eq!(call!(cudart, cudaFree(u64), device), 0);
            for _ in 0..2 {
                assert_eq!(call!(open("libnccl.so.2"), ncclCommSuspend()), 5);
            }
            assert_eq!(call!(open("libcublas.so.13"), cublasCgemm_v2()), 0);
        }));
        path
    };
    let (first, second) = (run("first.json"), run("second.json"));
    assert_eq!(fs::read(&first).expect("written"), fs::read(second).expect("written"));
    let expected = serde_json::json!({
        "unsupported": {"ncclCommSuspend": 2},
        "stopped": false,
        "decided": {},
        "pinned_peak_bytes": 5 * MIB,
        "pinned_left_bytes": 5 * MIB,
        "host_refusals": 0,
        "handles_left": {},
        "devices": {"0": {
            "peak_device_bytes": 40 * MIB,
            "peak_operation": "linear",
            "has_score_matrix": false,
            "number": 0,
            "asked_free": false,
            "process_bytes": 10 * MIB,
            "process_use": {"has_code": false, "streams": 0, "pinned_bytes": 5 * MIB},
            "memory_bytes": 100 * MIB,
            "h2d_bytes": 5 * MIB,
            "d2h_bytes": 11,
            "kernel_launches": 1,
            "values_read": 3,
            "values_read_by": {"unique_dim": 2},
            "products": [],
            "refusals": {"refused": 0, "met_later": 0, "last": null},
            "left": {"bytes": 0, "pool_bytes": 0, "reservations": 0, "streams": 0, "events": 0, "graphs": 0},
        }},
    });
    let mut report = read(&first);
    // What the clock says is `clock`'s to test.
    assert!(report.as_object_mut().expect("an object").remove("host_secs").is_some());
    for name in ["busy_secs", "copy_stall_secs", "end_secs", "work"] {
        assert!(report["devices"]["0"].as_object_mut().expect("an object").remove(name).is_some(), "{name}");
    }
    assert_eq!(report, expected);
}

#[test]
fn what_is_unsupported_is_on_disk_before_a_program_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.json");
    let profile = with_memory(100 << 20, 10 << 20);
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_REPORT", path.to_str().expect("a plain path"))];
    let output = in_own_process("report::what_is_unsupported_is_on_disk_before_a_program_dies", &environment, || {
        assert_eq!(call!(open("libnccl.so.2"), ncclCommSuspend()), 5);
        std::process::abort();
    });
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.matches("not supported: ncclCommSuspend").count(), 1, "{errors}");
    assert_eq!(read(&path)["unsupported"], serde_json::json!({"ncclCommSuspend": 1}));
}

#[test]
fn in_a_folder_a_process_that_dies_leaves_what_it_held_and_what_was_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = with_memory(100 << 20, 10 << 20);
    let environment =
        [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_REPORT", folder.path().to_str().expect("a plain path"))];
    let output = in_own_process("report::in_a_folder_a_process_that_dies_leaves_what_it_held_and_what_was_refused", &environment, || {
        let cudart = open("libcudart.so.13");
        let (mut first, mut second) = (0, 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut first, 30 * MIB), 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut second, 80 * MIB), OUT_OF_MEMORY);
        assert_eq!(call!(cudart, cudaFree(u64), first), 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut second, 80 * MIB), 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut first, 15 * MIB), OUT_OF_MEMORY);
        std::process::abort();
    });
    assert!(!output.status.success());
    let files = fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("a file").path());
    let reports: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    assert_eq!(reports.len(), 1, "{reports:?}");
    let device = &read(&reports[0])["devices"]["0"];
    assert_eq!(device["peak_device_bytes"], 90 * MIB);
    // The first request that failed was met after something was freed; the second one never was.
    let last = serde_json::json!({"requested_bytes": 16 * MIB, "free_bytes": 10 * MIB});
    assert_eq!(device["refusals"], serde_json::json!({"refused": 1, "met_later": 1, "last": last}));
}

#[test]
fn in_a_folder_processes_see_what_others_hold_and_do() {
    let folder = tempfile::tempdir().expect("a folder");
    // What is held, how long it computed, bytes read and written, and how long it could have computed.
    let holds = |process: u32, bytes: u64| {
        let numbers = [bytes, 0.004_f64.to_bits(), 1e9_f64.to_bits(), 0.008_f64.to_bits()];
        fs::write(folder.path().join(format!("{process}.use")), numbers.map(u64::to_ne_bytes).concat())
    };
    // One that lives, and one that cannot: its id is larger than any.
    holds(std::process::id(), 5 << 20).and_then(|()| holds(u32::MAX, 7 << 20)).expect("written");
    let profile = with_memory(100 << 20, 10 << 20);
    let environment =
        [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_REPORT", folder.path().to_str().expect("a plain path"))];
    let output = in_own_process("report::in_a_folder_processes_see_what_others_hold_and_do", &environment, || {
        let (cudart, nvml) = (open("libcudart.so.13"), open("libnvidia-ml.so.1"));
        let (mut address, mut handle) = (0, 0);
        assert_eq!(call!(nvml, nvmlDeviceGetHandleByIndex_v2(u32, *mut u64), 0, &mut handle), 0);
        let used_mib = || {
            let mut memory = [0_u64; 3];
            assert_eq!(call!(nvml, nvmlDeviceGetMemoryInfo(u64, *mut u64), handle, memory.as_mut_ptr()), 0);
            assert_eq!(memory[0] - memory[1], memory[2], "total, free and used");
            memory[2] >> 20
        };
        assert_eq!(used_mib(), 5);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut address, 30 * MIB), 0);
        assert_eq!(used_mib(), 5 + 10 + 30);
        // What can be had is a matter of the own process alone.
        let (mut free, mut total) = (0, 0);
        assert_eq!(call!(cudart, cudaMemGetInfo(*mut usize, *mut usize), &mut free, &mut total), 0);
        assert_eq!((free / MIB, total / MIB), (60, 100));
        assert_eq!(call!(cudart, cudaFree(u64), address), 0);
        let (mut count, mut list) = (2_u32, [[0_u64; 3]; 2]);
        assert_eq!(
            call!(nvml, nvmlDeviceGetComputeRunningProcesses_v3(u64, *mut u32, *mut [u64; 3]), handle, &mut count, list.as_mut_ptr()),
            0
        );
        let mut held = list.map(|process| process[1] >> 20);
        held.sort_unstable();
        assert_eq!((count, held), (2, [5, 10]));

        let used = || {
            let mut shares = [9_u32; 2];
            assert_eq!(call!(nvml, nvmlDeviceGetUtilizationRates(u64, *mut [u32; 2]), handle, &mut shares), 0);
            shares
        };
        // 10^9 bytes take 1 of 8 milliseconds at the bandwidth of an RTX 4090.
        assert_eq!(used(), [50, 12]);
        // A thousand kernels of 2 microseconds, which are asked for before that is over.
        let one = Dim3(1, 1, 1);
        for _ in 0..1000 {
            assert_eq!(call!(cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, one, one, 0, 0, 0), 0);
        }
        assert_eq!(used(), [75, 12]);
    });
    passed(&output);
    let left = fs::read_dir(folder.path())
        .expect("the folder")
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|it| it == "use")));
    assert_eq!(left.count(), 2, "what ended holds nothing");
}

#[test]
fn strictness_makes_the_first_unsupported_call_fail_for_good() {
    let profile = with_memory(100 << 20, 10 << 20);
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_STRICT", "1"), ("LOWMEM_VIRTUAL_GPU_QUIET", "1")];
    let output = in_own_process("report::strictness_makes_the_first_unsupported_call_fail_for_good", &environment, || {
        const NOT_SUPPORTED: i32 = 801;
        let (cudart, nvml) = (open("libcudart.so.13"), open("libnvidia-ml.so.1"));
        let mut address = 0;
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut address, MIB), 0);
        // A device may lack a sensor: no program stumbles over that.
        assert_eq!(call!(nvml, nvmlDeviceGetTemperature()), 3);
        assert_eq!(call!(cudart, cudaGetLastError()), 0);
        assert_eq!(call!(open("libnccl.so.2"), ncclCommResume()), 5);
        assert_eq!(call!(open("libnccl.so.2"), ncclCommSuspend()), 5);
        for _ in 0..2 {
            assert_eq!(call!(cudart, cudaGetLastError()), NOT_SUPPORTED);
            assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut address, MIB), NOT_SUPPORTED);
        }
    });
    let said = passed(&output);
    let strict = "lowmem: virtual GPU: not supported: ncclCommResume. Since --strict was asked for, the GPU fails from here on\n";
    assert_eq!(
        said,
        format!(
            "lowmem: virtual GPU: not supported: nvmlDeviceGetTemperature\n{strict}lowmem: virtual GPU: not supported: ncclCommSuspend\n"
        )
    );
}
