//! The report that the library leaves behind.

use std::fs;

use crate::library::{in_own_process, open, passed, with_memory};

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
            let (mut device, mut pinned, mut plan) = (0, 0, 0);
            assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut device, 30 * MIB), 0);
            assert_eq!(call!(cudart, cudaHostAlloc(*mut u64, usize, u32), &mut pinned, 5 * MIB, 0), 0);
            assert_eq!(call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), device, pinned, 5 * MIB, 1, 0), 0);
            assert_eq!(call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), pinned, device, 3, 2, 0), 0);
            assert_eq!(call!(cudart, cudaFree(u64), device), 0);
            for _ in 0..2 {
                assert_eq!(call!(open("libcufft.so.12"), cufftCreate(*mut i32), &mut plan), 16);
            }
            assert_eq!(call!(open("libcublas.so.13"), cublasCgemm_v2()), 0);
        }));
        path
    };
    let (first, second) = (run("first.json"), run("second.json"));
    assert_eq!(fs::read(&first).expect("written"), fs::read(second).expect("written"));
    let expected = serde_json::json!({
        "unsupported": {"cufftCreate": 2},
        "peak_device_bytes": 40 * MIB,
        "memory_bytes": 100 * MIB,
        "pinned_peak_bytes": 5 * MIB,
        "h2d_bytes": 5 * MIB,
        "d2h_bytes": 3,
        "kernel_launches": 1,
    });
    assert_eq!(read(&first), expected);
}

#[test]
fn what_is_unsupported_is_on_disk_before_a_program_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.json");
    let profile = with_memory(100 << 20, 10 << 20);
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_REPORT", path.to_str().expect("a plain path"))];
    let output = in_own_process("report::what_is_unsupported_is_on_disk_before_a_program_dies", &environment, || {
        let mut plan = 0;
        assert_eq!(call!(open("libcufft.so.12"), cufftCreate(*mut i32), &mut plan), 16);
        std::process::abort();
    });
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.matches("not supported: cufftCreate").count(), 1, "{errors}");
    assert_eq!(read(&path)["unsupported"], serde_json::json!({"cufftCreate": 1}));
}
