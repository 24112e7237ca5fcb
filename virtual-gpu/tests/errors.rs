//! Misuse of the runtime, and the codes that CUDA documents for it.

use crate::library::{
    DEVICE_TO_HOST, Dim3, HOST_TO_DEVICE, INVALID_HANDLE, INVALID_VALUE, Library, in_own_process, open, passed, rtx_4090,
};

const MIB: usize = 1 << 20;
const INVALID_DEVICE: i32 = 101;
const INVALID_DIRECTION: i32 = 21;
const NOT_REGISTERED: i32 = 713;
/// `cudaEventDisableTiming`.
const UNTIMED: u32 = 2;

fn launch(cudart: &Library, stream: u64) -> i32 {
    call!(cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, Dim3(1, 1, 1), Dim3(32, 1, 1), 0, 0, stream)
}

fn new_stream(cudart: &Library) -> u64 {
    let mut stream = 0;
    assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), &mut stream, 1), 0);
    stream
}

fn new_event(cudart: &Library, flags: u32) -> u64 {
    let mut event = 0;
    assert_eq!(call!(cudart, cudaEventCreateWithFlags(*mut u64, u32), &mut event, flags), 0);
    event
}

fn allocate(cudart: &Library) -> u64 {
    let mut address = 0;
    assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), &mut address, MIB), 0);
    address
}

/// Runs `body` where there are two devices.
fn with_two_devices(test: &str, body: fn()) {
    passed(&in_own_process(test, &[("LOWMEM_VIRTUAL_GPU", &rtx_4090().to_string()), ("LOWMEM_VIRTUAL_GPU_COUNT", "2")], body));
}

#[test]
fn nothing_goes_onto_a_destroyed_stream() {
    with_two_devices("errors::nothing_goes_onto_a_destroyed_stream", || {
        let cudart = open("libcudart.so.13");
        let (stream, event, device) = (new_stream(&cudart), new_event(&cudart, 0), allocate(&cudart));
        let (mut host, mut address) = ([0_u8; 4], 7);
        assert_eq!(launch(&cudart, stream), 0);
        assert_eq!(call!(cudart, cudaStreamDestroy(u64), stream), 0);
        let answers = [
            launch(&cudart, stream),
            call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), host.as_mut_ptr() as u64, device, 4, DEVICE_TO_HOST, stream),
            call!(cudart, cudaMemsetAsync(u64, i32, usize, u64), device, 0, 4, stream),
            call!(cudart, cudaMallocAsync(*mut u64, usize, u64), &mut address, 4, stream),
            call!(cudart, cudaEventRecord(u64, u64), event, stream),
            call!(cudart, cudaStreamWaitEvent(u64, u64, u32), stream, event, 0),
            call!(cudart, cudaStreamQuery(u64), stream),
            call!(cudart, cudaStreamSynchronize(u64), stream),
            call!(cudart, cudaStreamDestroy(u64), stream),
        ];
        assert_eq!(answers, [INVALID_HANDLE; 9]);
        assert_eq!(address, 7, "nothing is written where nothing was allocated");
        // The error is the thread's last one, once, and the device is none the worse for it.
        assert_eq!(call!(cudart, cudaGetLastError()), INVALID_HANDLE);
        assert_eq!((call!(cudart, cudaGetLastError()), launch(&cudart, 0)), (0, 0));
    });
}

#[test]
fn a_destroyed_event_is_none() {
    with_two_devices("errors::a_destroyed_event_is_none", || {
        let cudart = open("libcudart.so.13");
        let (event, other) = (new_event(&cudart, 0), new_event(&cudart, 0));
        let mut millis = 0.0;
        assert_eq!(call!(cudart, cudaEventDestroy(u64), event), 0);
        let answers = [
            call!(cudart, cudaEventRecord(u64, u64), event, 0),
            call!(cudart, cudaEventQuery(u64), event),
            call!(cudart, cudaEventSynchronize(u64), event),
            call!(cudart, cudaStreamWaitEvent(u64, u64, u32), 0, event, 0),
            call!(cudart, cudaEventElapsedTime(*mut f32, u64, u64), &mut millis, event, other),
            call!(cudart, cudaEventDestroy(u64), event),
        ];
        assert_eq!(answers, [INVALID_HANDLE; 6]);
        let untimed = new_event(&cudart, UNTIMED);
        for event in [other, untimed] {
            assert_eq!(call!(cudart, cudaEventRecord(u64, u64), event, 0), 0);
        }
        assert_eq!(call!(cudart, cudaEventElapsedTime(*mut f32, u64, u64), &mut millis, other, untimed), INVALID_HANDLE);
    });
}

#[test]
fn memory_is_given_back_once_and_by_its_first_address() {
    with_two_devices("errors::memory_is_given_back_once_and_by_its_first_address", || {
        let cudart = open("libcudart.so.13");
        let free = |address: u64| call!(cudart, cudaFree(u64), address);
        let device = allocate(&cudart);
        assert_eq!((free(device + 512), free(device), free(device), free(0)), (INVALID_VALUE, 0, INVALID_VALUE, 0));

        let mut pooled = 0;
        assert_eq!(call!(cudart, cudaMallocAsync(*mut u64, usize, u64), &mut pooled, MIB, 0), 0);
        let free_async = |address: u64| call!(cudart, cudaFreeAsync(u64, u64), address, 0);
        assert_eq!((free_async(pooled + 512), free_async(pooled), free_async(pooled)), (INVALID_VALUE, 0, INVALID_VALUE));

        let (mut pinned, ours) = (0, [0_u8; 16].as_ptr() as u64);
        assert_eq!(call!(cudart, cudaHostAlloc(*mut u64, usize, u32), &mut pinned, MIB, 0), 0);
        let free_host = |address: u64| call!(cudart, cudaFreeHost(u64), address);
        // Each by its own function.
        assert_eq!(
            (free(pinned), free(ours), free_host(device), free_host(ours)),
            (INVALID_VALUE, INVALID_VALUE, INVALID_VALUE, INVALID_VALUE)
        );
        assert_eq!((free_host(pinned), free_host(pinned)), (0, INVALID_VALUE));
        assert_eq!(call!(cudart, cudaHostUnregister(u64), ours), NOT_REGISTERED);
    });
}

#[test]
fn a_copy_goes_between_addresses_that_are_what_they_are_said_to_be() {
    with_two_devices("errors::a_copy_goes_between_addresses_that_are_what_they_are_said_to_be", || {
        let cudart = open("libcudart.so.13");
        let (device, mut host) = (allocate(&cudart), [0_u8; 16]);
        let host = host.as_mut_ptr() as u64;
        let copy = |to: u64, from: u64, bytes: usize, kind: i32| call!(cudart, cudaMemcpy(u64, u64, usize, i32), to, from, bytes, kind);
        assert_eq!(copy(device, host, 16, HOST_TO_DEVICE), 0);
        assert_eq!((copy(device, host, 16, DEVICE_TO_HOST), copy(host, host, 16, HOST_TO_DEVICE)), (INVALID_VALUE, INVALID_VALUE));
        assert_eq!((copy(0, host, 16, HOST_TO_DEVICE), copy(device, 0, 16, HOST_TO_DEVICE)), (INVALID_VALUE, INVALID_VALUE));
        assert_eq!(copy(device, host, 16, 5), INVALID_DIRECTION);
        assert_eq!(copy(device + 2 * MIB as u64, device, 2 * MIB, 3), INVALID_VALUE, "neither is as long as that");
        assert_eq!(call!(cudart, cudaFree(u64), device), 0);
        assert_eq!(copy(device, host, 16, HOST_TO_DEVICE), INVALID_VALUE, "freed");
        assert_eq!(call!(cudart, cudaMemset(u64, i32, usize), host, 0, 16), INVALID_VALUE);
        assert_eq!(call!(cudart, cudaMalloc(*mut u64, usize), std::ptr::null_mut(), 16), INVALID_VALUE);
    });
}

/// As the programming guide has it: a kernel, and an event that is recorded, need a stream of the right device; copies, waits and questions do not.
#[test]
fn what_needs_its_own_device() {
    with_two_devices("errors::what_needs_its_own_device", || {
        let cudart = open("libcudart.so.13");
        let (here, mut host, mut millis, mut address) = (new_event(&cudart, 0), [0_u8; 4], 0.0, 0);
        assert_eq!(call!(cudart, cudaSetDevice(i32), 1), 0);
        let (stream, there) = (new_stream(&cudart), new_event(&cudart, 0));
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), there, stream), 0);
        assert_eq!(call!(cudart, cudaSetDevice(i32), 0), 0);
        assert_eq!(launch(&cudart, stream), INVALID_HANDLE);
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), here, stream), INVALID_HANDLE);
        assert_eq!(call!(cudart, cudaEventRecord(u64, u64), here, 0), 0);
        assert_eq!(call!(cudart, cudaEventElapsedTime(*mut f32, u64, u64), &mut millis, here, there), INVALID_HANDLE);

        assert_eq!(call!(cudart, cudaEventSynchronize(u64), there), 0);
        assert_eq!((call!(cudart, cudaEventQuery(u64), there), call!(cudart, cudaStreamQuery(u64), stream)), (0, 0));
        assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), stream, here, 0), 0);
        assert_eq!(call!(cudart, cudaStreamWaitEvent(u64, u64, u32), 0, there, 0), 0);
        let device = allocate(&cudart);
        assert_eq!(
            call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), host.as_mut_ptr() as u64, device, 4, DEVICE_TO_HOST, stream),
            0
        );
        // Memory in the order of a stream is that stream's device's.
        let mut attributes = [0_u64; 12];
        assert_eq!(call!(cudart, cudaMallocAsync(*mut u64, usize, u64), &mut address, MIB, stream), 0);
        assert_eq!(call!(cudart, cudaPointerGetAttributes(*mut u64, u64), attributes.as_mut_ptr(), address), 0);
        // `cudaMemoryTypeDevice` in the first 32 bits, and the device in the next.
        assert_eq!(attributes[0], 2 | 1 << 32);
        assert_eq!(call!(cudart, cudaSetDevice(i32), 2), INVALID_DEVICE);
        assert_eq!(call!(cudart, cudaDeviceGetAttribute(*mut i32, i32, i32), &mut 0, 75, -1), INVALID_DEVICE);
    });
}
