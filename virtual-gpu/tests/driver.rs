//! The libraries beside the runtime: they share its state, and are found by name as PyTorch finds them.

use crate::library::{Library, OUT_OF_MEMORY, in_own_process, open, passed, with_memory};

const MIB: u64 = 1 << 20;

fn free_bytes(cuda: &Library) -> u64 {
    let (mut free, mut total) = (0, 0);
    assert_eq!(call!(cuda, cuMemGetInfo_v2(*mut u64, *mut u64), &mut free, &mut total), 0);
    assert_eq!(total, 100 * MIB);
    free
}

#[test]
fn every_library_sees_the_same_device() {
    let profile = with_memory(100 * MIB, 10 * MIB);
    let output = in_own_process("driver::every_library_sees_the_same_device", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let (cudart, cuda, nvml) = (open("libcudart.so.13"), open("libcuda.so.1"), open("libnvidia-ml.so.1"));
        let (mut active, mut address, mut handle, mut memory) = (9, 0, 0, [0_u64; 3]);
        assert_eq!(call!(cuda, cuInit(u32), 0), 0);
        let state = |active: &mut i32| call!(cuda, cuDevicePrimaryCtxGetState(i32, *mut u32, *mut i32), 0, std::ptr::null_mut(), active);
        assert_eq!((state(&mut active), active), (0, 0));
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, u64), &mut address, 20 * MIB), 0);
        assert_eq!((state(&mut active), active), (0, 1));
        assert_eq!(free_bytes(&cuda), 70 * MIB);
        assert_eq!(call!(nvml, nvmlInit_v2()), 0);
        assert_eq!(call!(nvml, nvmlDeviceGetHandleByIndex_v2(u32, *mut u64), 0, &mut handle), 0);
        assert_eq!(call!(nvml, nvmlDeviceGetMemoryInfo(u64, *mut [u64; 3]), handle, &mut memory), 0);
        assert_eq!(memory, [100 * MIB, 70 * MIB, 30 * MIB]);
    });
    passed(&output);
}

#[test]
fn memory_is_mapped_piece_by_piece() {
    /// `CUmemAllocationProp`: pinned memory of device 0.
    const PROPERTIES: [i32; 8] = [1, 0, 1, 0, 0, 0, 0, 0];
    let profile = with_memory(100 * MIB, 10 * MIB);
    let output = in_own_process("driver::memory_is_mapped_piece_by_piece", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
        let (cudart, cuda) = (open("libcudart.so.13"), open("libcuda.so.1"));
        let (mut base, mut first, mut second, mut none) = (0, 0, 0, 0);
        assert_eq!(call!(cuda, cuInit(u32), 0), 0);
        let create =
            |handle: &mut u64, bytes: u64| call!(cuda, cuMemCreate(*mut u64, u64, *const [i32; 8], u64), handle, bytes, &PROPERTIES, 0);
        let map = |address: u64, bytes: u64, handle: u64| call!(cuda, cuMemMap(u64, u64, u64, u64, u64), address, bytes, 0, handle, 0);
        // Addresses are free of charge, and there may be more of them than memory.
        assert_eq!(call!(cuda, cuMemAddressReserve(*mut u64, u64, u64, u64, u64), &mut base, 1000 * MIB, 0, 0, 0), 0);
        assert_eq!(free_bytes(&cuda), 90 * MIB);
        assert_eq!((create(&mut first, 20 * MIB), create(&mut second, 20 * MIB)), (0, 0));
        assert_eq!(create(&mut none, 60 * MIB), OUT_OF_MEMORY);
        assert_eq!((map(base, 20 * MIB, first), map(base + 20 * MIB, 20 * MIB, second)), (0, 0));
        assert_eq!(free_bytes(&cuda), 50 * MIB);

        // A small copy may cross from one piece to the next.
        let sent = [1_u8, 2, 3, 4];
        let mut back = [0_u8; 4];
        let seam = base + 20 * MIB - 2;
        assert_eq!(call!(cudart, cudaMemcpy(u64, u64, usize, i32), seam, sent.as_ptr() as u64, 4, 1), 0);
        assert_eq!(call!(cudart, cudaMemcpy(u64, u64, usize, i32), back.as_mut_ptr() as u64, seam, 4, 2), 0);
        assert_eq!(back, sent);
        assert_eq!(call!(cudart, cudaMemcpy(u64, u64, usize, i32), base + 40 * MIB - 2, sent.as_ptr() as u64, 4, 1), 1);

        for handle in [first, second] {
            assert_eq!(call!(cuda, cuMemRelease(u64), handle), 0);
        }
        assert_eq!(free_bytes(&cuda), 50 * MIB, "released memory stays while it is mapped");
        assert_eq!(call!(cuda, cuMemUnmap(u64, u64), base, 20 * MIB), 0);
        assert_eq!(free_bytes(&cuda), 70 * MIB);
        assert_eq!(call!(cuda, cuMemUnmap(u64, u64), base + 20 * MIB, 20 * MIB), 0);
        assert_eq!(call!(cuda, cuMemAddressFree(u64, u64), base, 1000 * MIB), 0);
        assert_eq!(free_bytes(&cuda), 90 * MIB);
    });
    passed(&output);
}

/// What PyTorch 2.13 looks up at run time, from the texts in `libc10_cuda.so` and `libtorch_cuda.so`.
const LOOKED_UP: [&str; 30] = [
    "cuCtxFromGreenCtx",
    "cuCtxPopCurrent",
    "cuCtxPushCurrent",
    "cuDevResourceGenerateDesc",
    "cuDevSmResourceSplitByCount",
    "cuDeviceGetDevResource",
    "cuGreenCtxCreate",
    "cuGreenCtxDestroy",
    "cuGreenCtxStreamCreate",
    "cuMemAddressFree",
    "cuMemAddressReserve",
    "cuMemCreate",
    "cuMemExportToShareableHandle",
    "cuMemGetAddressRange",
    "cuMemGetAllocationGranularity",
    "cuMemGetAllocationPropertiesFromHandle",
    "cuMemImportFromShareableHandle",
    "cuMemMap",
    "cuMemRelease",
    "cuMemRetainAllocationHandle",
    "cuMemSetAccess",
    "cuMemUnmap",
    "cuMemsetD32Async",
    "cuMulticastAddDevice",
    "cuMulticastBindMem",
    "cuMulticastCreate",
    "cuMulticastUnbind",
    "cuStreamWriteValue32",
    "cuTensorMapEncodeTiled",
    "cuGetErrorString",
];

#[test]
fn what_pytorch_looks_up_by_name_is_found() {
    let profile = with_memory(100 * MIB, 10 * MIB);
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_QUIET", "1")];
    let output = in_own_process("driver::what_pytorch_looks_up_by_name_is_found", &environment, || {
        let cudart = open("libcudart.so.13");
        let look_up = |name: &str| {
            let (name, mut function, mut status) = (std::ffi::CString::new(name).expect("no zero inside"), 0, 9);
            let answer = call!(
                cudart,
                cudaGetDriverEntryPointByVersion(*const std::ffi::c_char, *mut u64, u32, u64, *mut i32),
                name.as_ptr(),
                &mut function,
                13000,
                0,
                &mut status
            );
            (answer, status, function != 0)
        };
        for name in LOOKED_UP {
            assert_eq!(look_up(name), (0, 0, true), "{name}");
        }
        assert_eq!(look_up("cuNoSuchFunction"), (0, 1, false));
    });
    assert_eq!(passed(&output), "lowmem: virtual GPU: not supported: cuNoSuchFunction\n");
}

#[test]
fn the_driver_answers_nothing_before_it_is_initialised() {
    let profile = with_memory(100 * MIB, 10 * MIB);
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_QUIET", "1")];
    let output = in_own_process("driver::the_driver_answers_nothing_before_it_is_initialised", &environment, || {
        const NOT_INITIALISED: i32 = 3;
        let driver = open("libcuda.so.1");
        let (mut count, mut device, mut version) = (-1, -1, 0);
        assert_eq!(call!(driver, cuDeviceGetCount(*mut i32), &mut count), NOT_INITIALISED);
        assert_eq!(call!(driver, cuDeviceGet(*mut i32, i32), &mut device, 0), NOT_INITIALISED);
        assert_eq!((call!(driver, cuDriverGetVersion(*mut i32), &mut version), version), (0, 13000));
        assert_eq!(call!(driver, cuInit(u32), 0), 0);
        assert_eq!((call!(driver, cuDeviceGetCount(*mut i32), &mut count), count), (0, 1));
    });
    passed(&output);
}
