//! The runtime interface: devices, memory, copies, streams and events, with the error codes that CUDA documents.

use std::fs;

use crate::library::{
    DEVICE_TO_HOST, Dim3, HOST_TO_DEVICE, INVALID_HANDLE, INVALID_VALUE, OUT_OF_MEMORY, in_own_process, open, passed, rtx_4090, with_memory,
};

const MIB: usize = 1 << 20;
const NO_DEVICE: i32 = 100;
const INVALID_DEVICE: i32 = 101;
const DEVICE_TO_DEVICE: i32 = 3;

#[test]
fn without_a_profile_there_is_no_device() {
    let output = in_own_process("runtime::without_a_profile_there_is_no_device", &[], || {
        let cudart = open("libcudart.so.13");
        let (mut count, mut address) = (7, 0);
        assert_eq!(call!(cudart, cudaGetDeviceCount(*mut i32), &mut count), NO_DEVICE);
        assert_eq!(count, 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut address, MIB), NO_DEVICE);
        assert_eq!(call!(open("libnvidia-ml.so.1"), nvmlInit_v2()), 9);
    });
    assert_eq!(passed(&output), "");
}

#[test]
fn a_broken_profile_is_said_in_one_line() {
    let environment = [("LOWMEM_VIRTUAL_GPU", r#"{"name": "x"}"#)];
    let output = in_own_process("runtime::a_broken_profile_is_said_in_one_line", &environment, || {
        let cudart = open("libcudart.so.13");
        let mut count = 7;
        for _ in 0..3 {
            assert_eq!(call!(cudart, cudaGetDeviceCount(*mut i32), &mut count), NO_DEVICE);
        }
    });
    let errors = passed(&output);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("LOWMEM_VIRTUAL_GPU") && errors.contains("title"), "{errors}");
}

#[test]
fn memory_ends_where_the_profile_says() {
    let profile = with_memory(100 << 20, 10 << 20);
    let output = in_own_process("runtime::memory_ends_where_the_profile_says", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let cudart = open("libcudart.so.13");
        let (mut free, mut total, mut first, mut second) = (0, 0, 0, 0);
        let mut left = || {
            assert_eq!(call!(cudart, cudaMemGetInfo(*mut usize, *mut usize), &mut free, &mut total), 0);
            assert_eq!(total, 100 * MIB);
            free
        };
        assert_eq!(left(), 90 * MIB);
        // 79 MiB take 80, in pages of 2 MiB; 90 - 80 = 10.
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut first, 79 * MIB), 0);
        assert_eq!(left(), 10 * MIB);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut second, 11 * MIB), OUT_OF_MEMORY);
        assert_eq!(left(), 10 * MIB);
        // The last error stays until it is asked for.
        assert_eq!(call!(cudart, cudaPeekAtLastError()), OUT_OF_MEMORY);
        assert_eq!(call!(cudart, cudaGetLastError()), OUT_OF_MEMORY);
        assert_eq!(call!(cudart, cudaGetLastError()), 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut second, 10 * MIB), 0);
        assert_eq!(left(), 0);
        assert_eq!(call!(cudart, cudaFree(u64), first), 0);
        assert_eq!(call!(cudart, cudaFree(u64), first), INVALID_VALUE);
        assert_eq!(call!(cudart, cudaFree(u64), second + 512), INVALID_VALUE);
        assert_eq!(call!(cudart, cudaFree(u64), 0), 0);
        assert_eq!(left(), 80 * MIB);
    });
    let errors = passed(&output);
    assert_eq!(errors, "lowmem: virtual GPU \"rtx-4090\" (0.1 GiB): memory is accounted for, nothing is computed\n");
}

#[test]
fn small_copies_are_done_and_large_ones_are_not() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("runtime::small_copies_are_done_and_large_ones_are_not", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        const SMALL: usize = 64 << 10;
        let cudart = open("libcudart.so.13");
        let copy = |to: u64, from: u64, bytes: usize, kind: i32| call!(cudart, cudaMemcpy(u64, u64, usize, i32), to, from, bytes, kind);
        let mut device = 0;
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut device, 4 * MIB), 0);
        let sent: Vec<u8> = (0..=255).cycle().take(SMALL + 1).collect();
        let mut back = vec![9_u8; SMALL + 1];

        assert_eq!(copy(device, sent.as_ptr() as u64, SMALL, HOST_TO_DEVICE), 0);
        assert_eq!(copy(device + MIB as u64, device, SMALL, DEVICE_TO_DEVICE), 0);
        assert_eq!(copy(back.as_mut_ptr() as u64, device + MIB as u64, SMALL, DEVICE_TO_HOST), 0);
        assert_eq!((&back[..SMALL], back[SMALL]), (&sent[..SMALL], 9));

        // One byte more is only data: it is not moved, in either direction.
        let mut untouched = vec![7_u8; SMALL + 1];
        assert_eq!(copy(untouched.as_mut_ptr() as u64, device, SMALL + 1, DEVICE_TO_HOST), 0);
        assert!(untouched.iter().all(|&byte| byte == 7));

        // Past the end of the allocation, and a host address as the device's.
        assert_eq!(copy(device + 4 * MIB as u64 - 1, sent.as_ptr() as u64, 2, HOST_TO_DEVICE), INVALID_VALUE);
        assert_eq!(copy(back.as_mut_ptr() as u64, sent.as_ptr() as u64, 2, HOST_TO_DEVICE), INVALID_VALUE);
        assert_eq!(call!(cudart, cudaMemset(u64, i32, usize), device, 5, 16), 0);
        assert_eq!(copy(back.as_mut_ptr() as u64, device, 17, DEVICE_TO_HOST), 0);
        assert_eq!((back[15], back[16]), (5, 16));
    });
    passed(&output);
}

/// `cudaPointerAttributes`.
#[repr(C)]
#[derive(Default)]
struct PointerAttributes {
    kind: i32,
    device: i32,
    device_pointer: u64,
    host_pointer: u64,
    reserved: [i64; 8],
}

#[test]
fn an_address_is_known_by_what_it_belongs_to() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("runtime::an_address_is_known_by_what_it_belongs_to", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let cudart = open("libcudart.so.13");
        let kind = |address: u64| {
            // A program for CUDA 12 has other things where CUDA 13 has reserved bytes.
            let mut found = PointerAttributes { reserved: [7; 8], ..PointerAttributes::default() };
            assert_eq!(call!(cudart, cudaPointerGetAttributes(*mut PointerAttributes, u64), &mut found, address), 0);
            assert_eq!(found.reserved, [7; 8]);
            found.kind
        };
        let (mut device, mut pinned) = (0, 0);
        let mut ours = vec![0_u8; 8192];
        let ours = ours.as_mut_ptr() as u64;
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut device, 3 * MIB), 0);
        assert_eq!(call!(cudart, cudaHostAlloc(*mut u64, usize, u32), &mut pinned, 3 * MIB, 0), 0);
        assert_eq!((kind(device), kind(device + 2 * MIB as u64), kind(pinned + 5), kind(ours)), (2, 2, 1, 0));
        assert_eq!(call!(cudart, cudaHostRegister(u64, usize, u32), ours, 8192, 0), 0);
        assert_eq!(call!(cudart, cudaHostRegister(u64, usize, u32), ours + 4096, 4096, 0), 712);
        assert_eq!(kind(ours + 8191), 1);
        assert_eq!(call!(cudart, cudaHostUnregister(u64), ours), 0);
        assert_eq!(call!(cudart, cudaHostUnregister(u64), ours), 713);
        assert_eq!(call!(cudart, cudaFreeHost(u64), pinned), 0);
        assert_eq!(call!(cudart, cudaFreeHost(u64), pinned), INVALID_VALUE);
        assert_eq!((kind(ours), kind(pinned)), (0, 0));
    });
    passed(&output);
}

#[test]
fn what_was_destroyed_is_an_invalid_handle() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("runtime::what_was_destroyed_is_an_invalid_handle", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let cudart = open("libcudart.so.13");
        let (mut stream, mut start, mut end, mut millis) = (0, 0, 0, 1.0);
        assert_eq!(call!(cudart, cudaStreamCreateWithPriority(*mut u64, u32, i32), &mut stream, 1, -1), 0);
        assert_eq!(call!(cudart, cudaEventCreate(*mut u64), &mut start), 0);
        assert_eq!(call!(cudart, cudaEventCreateWithFlags(*mut u64, u32), &mut end, 0), 0);
        let elapsed = |millis: &mut f32| call!(cudart, cudaEventElapsedTime(*mut f32, u64, u64), millis, start, end);
        assert_eq!(elapsed(&mut millis), INVALID_HANDLE, "not recorded yet");
        for event in [start, end] {
            assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, stream), 0);
        }
        assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), 0, end, 0), 0);
        // The host took 4 microseconds to ask for the second one.
        assert_eq!((elapsed(&mut millis), millis), (0, 0.004));
        assert_eq!(call!(cudart, cudaStreamDestroy(u64), stream), 0);
        assert_eq!(call!(cudart, cudaEventDestroy(u64), end), 0);
        assert_eq!(call!(cudart, cudaStreamSynchronize(u64), stream), INVALID_HANDLE);
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), start, stream), INVALID_HANDLE);
        assert_eq!(call!(cudart, cudaEventQuery(u64), end), INVALID_HANDLE);
        assert_eq!(call!(cudart, cudaStreamDestroy(u64), stream), INVALID_HANDLE);
        assert_eq!(call!(cudart, cudaSetDevice(i32), 1), INVALID_DEVICE);
    });
    passed(&output);
}

#[test]
fn a_launch_finds_its_configuration_and_is_counted() {
    let profile = rtx_4090().to_string();
    let output = in_own_process("runtime::a_launch_finds_its_configuration_and_is_counted", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let cudart = open("libcudart.so.13");
        let (mut grid, mut block, mut shared, mut stream) = (Dim3::default(), Dim3::default(), 0, 9);
        for depth in [1, 2] {
            let given = (Dim3(depth, 2, 3), Dim3(32, 1, 1));
            assert_eq!(call!(cudart, __cudaPushCallConfiguration(Dim3, Dim3, usize, u64), given.0, given.1, 48, 0), 0);
        }
        for depth in [2, 1] {
            let popped = call!(
                cudart,
                __cudaPopCallConfiguration(*mut Dim3, *mut Dim3, *mut usize, *mut u64),
                &mut grid,
                &mut block,
                &mut shared,
                &mut stream
            );
            assert_eq!((popped, grid, block, shared, stream), (0, Dim3(depth, 2, 3), Dim3(32, 1, 1), 48, 0));
        }
        assert_eq!(call!(cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, grid, block, 0, 0, 0), 0);
        assert_eq!(call!(cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, grid, block, 0, 0, 0x900), INVALID_HANDLE);
        let mut blocks = 0;
        let occupancy = call!(cudart, cudaOccupancyMaxActiveBlocksPerMultiprocessor(*mut i32, u64, i32, usize), &mut blocks, 1, 256, 0);
        assert_eq!((occupancy, blocks), (0, 6)); // 1536 threads of compute capability 8.9
    });
    passed(&output);
}

/// What this process holds of the machine's memory, in bytes: of what is mapped several times its share each time, so once in all.
fn held_bytes() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux has it");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("it is there");
    1024 * line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
}

#[test]
fn a_large_page_locked_block_takes_no_memory_when_it_is_written_and_a_small_one_keeps_it() {
    let profile = rtx_4090().to_string();
    let test = "runtime::a_large_page_locked_block_takes_no_memory_when_it_is_written_and_a_small_one_keeps_it";
    let output = in_own_process(test, &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        const LARGE: [usize; 3] = [4096 * MIB, 768 * MIB, 768 * MIB];
        const MANY: usize = 32;
        let (cudart, driver) = (open("libcudart.so.13"), open("libcuda.so.1"));
        let (mut first, mut second, mut third) = (0_u64, 0_u64, 0_u64);
        assert_eq!(call!(driver, cuInit(u32), 0), 0);
        assert_eq!(call!(cudart, cudaHostAlloc(*mut u64, usize, u32), &mut first, LARGE[0], 0), 0);
        assert_eq!(call!(cudart, cudaMallocHost(*mut u64, usize), &mut second, LARGE[1]), 0);
        assert_eq!(call!(driver, cuMemHostAlloc(*mut u64, usize, u32), &mut third, LARGE[2], 0), 0);
        // 1 GiB in blocks of 32 MiB: half of them may keep what is written.
        let mut blocks = [0_u64; MANY];
        for block in &mut blocks {
            assert_eq!(call!(cudart, cudaMallocHost(*mut u64, usize), block, 32 * MIB), 0);
        }
        let before = held_bytes();
        let write = |start: u64, bytes: usize| {
            for offset in (0..bytes).step_by(4096) {
                // SAFETY: the address lies in a block that was just allocated.
                unsafe { ((start as usize + offset) as *mut u64).write((start as usize + offset) as u64) };
            }
        };
        let keeps = |start: u64, bytes: usize| {
            // SAFETY: as above.
            (0..bytes)
                .step_by(4096)
                .map(|offset| start as usize + offset)
                .all(|place| unsafe { (place as *const u64).read() } == place as u64)
        };
        [first, second, third].into_iter().zip(LARGE).for_each(|(start, bytes)| write(start, bytes));
        let taken = held_bytes().saturating_sub(before);
        assert!(taken <= 64 * MIB, "5.5 GiB were written and took {taken} bytes");
        blocks.into_iter().for_each(|block| write(block, 32 * MIB));
        let kept = blocks.iter().filter(|&&block| keeps(block, 32 * MIB)).count();
        assert_eq!(kept, 16, "those keep it, up to 512 MiB");
        let mut small = [0_u64; 64];
        for block in &mut small {
            assert_eq!(call!(cudart, cudaMallocHost(*mut u64, usize), block, MIB), 0);
            write(*block, MIB);
        }
        assert!(small.iter().all(|&block| keeps(block, MIB)));
        for block in blocks.into_iter().chain(small).chain([first, second, third]) {
            assert_eq!(call!(cudart, cudaFreeHost(u64), block), 0);
        }
    });
    passed(&output);
}
