//! Several devices: each has memory, streams and events of its own, and the program sees those that `CUDA_VISIBLE_DEVICES` names.

use crate::library::{DEVICE_TO_HOST, HOST_TO_DEVICE, INVALID_HANDLE, Library, OUT_OF_MEMORY, in_own_process, open, passed, with_memory};

const MIB: usize = 1 << 20;
const INVALID_DEVICE: i32 = 101;
/// `cudaMemcpyDefault`.
const BY_ADDRESS: i32 = 4;

fn use_device(cudart: &Library, ordinal: i32) {
    assert_eq!(call!(cudart, cudaSetDevice(i32), ordinal), 0);
}

fn free_mib(cudart: &Library, ordinal: i32) -> usize {
    let (mut free, mut total) = (0, 0);
    use_device(cudart, ordinal);
    assert_eq!(call!(cudart, cudaMemGetInfo(*mut usize, *mut usize), &mut free, &mut total), 0);
    free / MIB
}

#[test]
fn each_device_has_its_own_memory_and_streams() {
    let profile = with_memory(100 << 20, 10 << 20);
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_COUNT", "3")];
    let output = in_own_process("devices::each_device_has_its_own_memory_and_streams", &environment, || {
        let cudart = open("libcudart.so.13");
        let (mut count, mut current, mut first, mut second, mut stream, mut event) = (0, 9, 0, 0, 0, 0);
        assert_eq!((call!(cudart, cudaGetDeviceCount(*mut i32), &mut count), count), (0, 3));
        assert_eq!((call!(cudart, cudaGetDevice(*mut i32), &mut current), current), (0, 0));
        assert_eq!(call!(cudart, cudaSetDevice(i32), 3), INVALID_DEVICE);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut first, 60 * MIB), 0);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut second, 60 * MIB), OUT_OF_MEMORY);
        use_device(&cudart, 1);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut second, 60 * MIB), 0);
        assert_eq!((free_mib(&cudart, 0), free_mib(&cudart, 1), free_mib(&cudart, 2)), (30, 30, 90));

        // From host to device 0, on to device 1 and back, whichever device is this thread's.
        let (sent, mut back) = ([1_u8, 2, 3], [0_u8; 3]);
        let copy = |to: u64, from: u64, kind: i32| call!(cudart, cudaMemcpy(u64, u64, usize, i32), to, from, 3, kind);
        assert_eq!(copy(first, sent.as_ptr() as u64, HOST_TO_DEVICE), 0);
        assert_eq!(call!(cudart, cudaMemcpyPeerAsync(u64, i32, u64, i32, usize, u64), second, 1, first, 0, 3, 0), 0);
        assert_eq!(copy(back.as_mut_ptr() as u64, second, DEVICE_TO_HOST), 0);
        assert_eq!(back, sent);
        assert_eq!(copy(first, second, BY_ADDRESS), 0);

        // A stream of another device can be waited for, and nothing can be launched on it.
        use_device(&cudart, 1);
        assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), &mut stream, 1), 0);
        assert_eq!(call!(cudart, cudaEventCreate(*mut u64), &mut event), 0);
        use_device(&cudart, 0);
        assert_eq!(call!(cudart, cudaStreamSynchronize(u64), stream), 0);
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, 0), INVALID_HANDLE, "an event of device 1 on a stream of device 0");
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, stream), 0);
        assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), 0, event, 0), 0);
        let dim = crate::library::Dim3(1, 1, 1);
        let launch = |stream: u64| {
            call!(cudart, cudaLaunchKernel(u64, crate::library::Dim3, crate::library::Dim3, u64, usize, u64), 1, dim, dim, 0, 0, stream)
        };
        assert_eq!((launch(stream), launch(0)), (INVALID_HANDLE, 0));
        // Freed from another device than it is on.
        assert_eq!(call!(cudart, cudaFree(u64), second), 0);
        assert_eq!((free_mib(&cudart, 0), free_mib(&cudart, 1)), (30, 90));
    });
    assert_eq!(passed(&output).matches("virtual GPU").count(), 1, "one banner");
}

#[test]
fn a_thread_begins_with_the_first_device() {
    let profile = with_memory(100 << 20, 10 << 20);
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_COUNT", "2")];
    let output = in_own_process("devices::a_thread_begins_with_the_first_device", &environment, || {
        let current = || {
            let mut current = 9;
            assert_eq!(call!(open("libcudart.so.13"), cudaGetDevice(*mut i32), &mut current), 0);
            current
        };
        use_device(&open("libcudart.so.13"), 1);
        let elsewhere = std::thread::spawn(current).join().expect("no panic");
        assert_eq!((elsewhere, current()), (0, 1));
    });
    passed(&output);
}

#[test]
fn the_program_sees_the_devices_that_are_named() {
    let profile = with_memory(100 << 20, 10 << 20);
    let environment = [("LOWMEM_VIRTUAL_GPU", profile.as_str()), ("LOWMEM_VIRTUAL_GPU_COUNT", "3"), ("CUDA_VISIBLE_DEVICES", "2,0,7,1")];
    let output = in_own_process("devices::the_program_sees_the_devices_that_are_named", &environment, || {
        let (cudart, nvml) = (open("libcudart.so.13"), open("libnvidia-ml.so.1"));
        let (mut count, mut all, mut id) = (0, 0_u32, [0_u8; 32]);
        assert_eq!((call!(cudart, cudaGetDeviceCount(*mut i32), &mut count), count), (0, 2), "up to the first that is none");
        assert_eq!(call!(cudart, cudaDeviceGetPCIBusId(*mut u8, i32, i32), id.as_mut_ptr(), 32, 0), 0);
        assert!(id.starts_with(b"0000:03:00.0\0"));
        assert_eq!((call!(nvml, nvmlDeviceGetCount_v2(*mut u32), &mut all), all), (0, 3));
    });
    passed(&output);
}

#[test]
fn cards_for_data_centres_reach_each_other() {
    const UNSUPPORTED: i32 = 217;
    const ENABLED_ALREADY: i32 = 704;
    let test = "devices::cards_for_data_centres_reach_each_other";
    let (gaming, center) = (with_memory(100 << 20, 10 << 20), with_memory(100 << 20, 10 << 20).replace("\"8.9\"", "\"9.0\""));
    assert_ne!(gaming, center);
    for profile in [&gaming, &center] {
        let output = in_own_process(test, &[("LOWMEM_VIRTUAL_GPU", profile), ("LOWMEM_VIRTUAL_GPU_COUNT", "2")], || {
            let cudart = open("libcudart.so.13");
            let (mut can, mut major) = (9, 0);
            assert_eq!(call!(cudart, cudaDeviceGetAttribute(*mut i32, i32, i32), &mut major, 75, 0), 0);
            assert_eq!(call!(cudart, cudaDeviceCanAccessPeer(*mut i32, i32, i32), &mut can, 0, 1), 0);
            let enable = |peer: i32| call!(cudart, cudaDeviceEnablePeerAccess(i32, u32), peer, 0);
            if major == 9 {
                assert_eq!((can, enable(1), enable(1), enable(0)), (1, 0, ENABLED_ALREADY, INVALID_DEVICE));
            } else {
                assert_eq!((can, enable(1)), (0, UNSUPPORTED));
            }
        });
        passed(&output);
    }
}
