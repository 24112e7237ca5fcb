//! Managed memory: host and device reach it, and it takes nothing of the device's.

use crate::library::{DEVICE_TO_HOST, HOST_TO_DEVICE, INVALID_VALUE, in_own_process, open, passed, with_memory};

const MIB: usize = 1 << 20;

/// `cudaMemLocation`, which is passed in one register: a device, and the host.
const ON_DEVICE: u64 = 1;
const ON_HOST: u64 = 2;

#[test]
fn both_reach_it_and_it_may_be_more_than_the_device_has() {
    let profile = with_memory(100 << 20, 10 << 20);
    let output =
        in_own_process("managed::both_reach_it_and_it_may_be_more_than_the_device_has", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
            let (cudart, driver) = (open("libcudart.so.13"), open("libcuda.so.1"));
            let (mut managed, mut others) = (0_u64, 0_u64);
            assert_eq!(call!(cudart, cudaMallocManaged(*mut u64, usize, u32), &mut managed, 300 * MIB, 1), 0);
            assert_eq!(call!(driver, cuMemAllocManaged(*mut u64, usize, u32), &mut others, 4096, 1), 0);
            assert_eq!(call!(cudart, cudaMallocManaged(*mut u64, usize, u32), &mut others, 4096, 9), INVALID_VALUE);
            let (mut free, mut total) = (0, 0);
            assert_eq!(call!(cudart, cudaMemGetInfo(*mut usize, *mut usize), &mut free, &mut total), 0);
            assert_eq!((free, total), (90 * MIB, 100 * MIB));
            // The host writes and reads it, and so do copies in each direction.
            let mut place = [5_u8, 0];
            assert_eq!(call!(cudart, cudaMemcpy(u64, *const u8, usize, i32), managed, place.as_ptr(), 1, HOST_TO_DEVICE), 0);
            // SAFETY: the address is that of memory that was just allocated.
            assert_eq!(unsafe { (managed as *const u8).read() }, 5);
            assert_eq!(call!(cudart, cudaMemcpy(*mut u8, u64, usize, i32), &mut place[1], managed, 1, DEVICE_TO_HOST), 0);
            assert_eq!(place, [5, 5]);
            let prefetch =
                |bytes: usize, place: u64| call!(cudart, cudaMemPrefetchAsync(u64, usize, u64, u32, u64), managed, bytes, place, 0, 0);
            assert_eq!((prefetch(300 * MIB, ON_DEVICE), prefetch(300 * MIB, ON_HOST)), (0, 0));
            assert_eq!((prefetch(301 * MIB, ON_DEVICE), prefetch(MIB, 0)), (INVALID_VALUE, INVALID_VALUE));
            assert_eq!(call!(cudart, cudaMemAdvise(u64, usize, i32, u64), managed, MIB, 1, ON_HOST), 0);
            assert_eq!(call!(cudart, cudaFree(u64), managed), 0);
            assert_eq!(prefetch(MIB, ON_DEVICE), INVALID_VALUE);
        });
    passed(&output);
}

#[test]
fn a_program_of_cuda_12_says_by_a_number_where_it_is_to_go() {
    let profile = with_memory(100 << 20, 10 << 20);
    let output =
        in_own_process("managed::a_program_of_cuda_12_says_by_a_number_where_it_is_to_go", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
            let cudart = open("libcudart.so.12");
            let (mut managed, mut stream, mut version) = (0_u64, 0_u64, 0);
            assert_eq!((call!(cudart, cudaRuntimeGetVersion(*mut i32), &mut version), version), (0, 12080));
            assert_eq!(call!(cudart, cudaMallocManaged(*mut u64, usize, u32), &mut managed, MIB, 1), 0);
            assert_eq!(call!(cudart, cudaStreamCreateWithFlags(*mut u64, u32), &mut stream, 1), 0);
            let prefetch =
                |device: i32, stream: u64| call!(cudart, cudaMemPrefetchAsync(u64, usize, i32, u64), managed, MIB, device, stream);
            assert_eq!((prefetch(0, stream), prefetch(-1, stream)), (0, 0));
            assert_ne!((prefetch(5, stream), prefetch(0, stream + 1)), (0, 0));
            let mut properties = [0_u8; 1032];
            assert_eq!(call!(cudart, cudaGetDeviceProperties_v2(*mut u8, i32), properties.as_mut_ptr(), 0), 0);
            let int = |offset: usize| i32::from_ne_bytes(properties[offset..offset + 4].try_into().expect("four bytes"));
            assert_eq!((int(360), int(364), int(388)), (8, 9, 128), "compute capability and multiprocessors of an RTX 4090");
        });
    passed(&output);
}
