//! Memory in the order of a stream, as PyTorch's cudaMallocAsync backend asks for it.

use crate::library::{HOST_TO_DEVICE, INVALID_HANDLE, INVALID_VALUE, Library, OUT_OF_MEMORY, in_own_process, open, passed, with_memory};

const MIB: u64 = 1 << 20;
const RELEASE_THRESHOLD: i32 = 4;
const RESERVED: i32 = 5;
const RESERVED_HIGH: i32 = 6;
const USED: i32 = 7;
const USED_HIGH: i32 = 8;

fn attribute(cudart: &Library, pool: u64, number: i32) -> u64 {
    let mut value = u64::MAX;
    assert_eq!(call!(*cudart, cudaMemPoolGetAttribute(u64, i32, *mut u64), pool, number, &mut value), 0);
    value
}

fn set(cudart: &Library, pool: u64, number: i32, mut value: u64) -> i32 {
    call!(*cudart, cudaMemPoolSetAttribute(u64, i32, *mut u64), pool, number, &mut value)
}

fn free_bytes(cudart: &Library) -> u64 {
    let (mut free, mut total) = (0, 0);
    assert_eq!(call!(*cudart, cudaMemGetInfo(*mut u64, *mut u64), &mut free, &mut total), 0);
    free
}

#[test]
fn the_pool_says_what_it_holds_and_gives_it_back_when_told() {
    let profile = with_memory(110 << 20, 10 << 20);
    let output =
        in_own_process("pool::the_pool_says_what_it_holds_and_gives_it_back_when_told", &[("LOWMEM_VIRTUAL_GPU", &profile)], || {
            let cudart = open("libcudart.so.13");
            let (mut pool, mut address, mut more, mut supported) = (0, 0, 0, 0);
            assert_eq!(call!(cudart, cudaDeviceGetAttribute(*mut i32, i32, i32), &mut supported, 115, 0), 0);
            assert_eq!(supported, 1);
            assert_eq!(call!(cudart, cudaDeviceGetDefaultMemPool(*mut u64, i32), &mut pool, 0), 0);
            assert_eq!(set(&cudart, pool, RELEASE_THRESHOLD, u64::MAX), 0);
            for reuse in 1..=3 {
                assert_eq!(set(&cudart, pool, reuse, 1), 0);
            }
            assert_eq!(call!(cudart, cudaMallocAsync(*mut u64, u64, u64), &mut address, 40 * MIB, 0), 0);
            assert_eq!((attribute(&cudart, pool, RESERVED), attribute(&cudart, pool, USED)), (64 * MIB, 40 * MIB));
            assert_eq!(free_bytes(&cudart), 36 * MIB);
            // The memory is the device's like any other.
            let host = [7_u8; 16];
            let copied_to = |to: u64| {
                let from = host.as_ptr() as u64;
                call!(cudart, cudaMemcpyAsync(u64, u64, usize, i32, u64), to, from, 16, HOST_TO_DEVICE, 0)
            };
            assert_eq!(copied_to(address + 40 * MIB - 16), 0);
            assert_eq!(copied_to(address + 40 * MIB - 15), INVALID_VALUE);
            assert_eq!(call!(cudart, cudaGetLastError()), INVALID_VALUE);

            assert_eq!(call!(cudart, cudaMallocAsync(*mut u64, u64, u64), &mut more, 61 * MIB, 0), OUT_OF_MEMORY);
            assert_eq!(call!(cudart, cudaGetLastError()), OUT_OF_MEMORY);
            assert_eq!(call!(cudart, cudaFreeAsync(u64, u64), address, 0), 0);
            assert_eq!(call!(cudart, cudaFreeAsync(u64, u64), address, 0), INVALID_VALUE);
            assert_eq!((attribute(&cudart, pool, RESERVED), attribute(&cudart, pool, USED)), (64 * MIB, 0));
            assert_eq!((attribute(&cudart, pool, RESERVED_HIGH), attribute(&cudart, pool, USED_HIGH)), (64 * MIB, 40 * MIB));
            assert_eq!(set(&cudart, pool, USED_HIGH, 5), INVALID_VALUE);
            assert_eq!(set(&cudart, pool, USED_HIGH, 0), 0);
            assert_eq!(attribute(&cudart, pool, USED_HIGH), 0);

            assert_eq!(call!(cudart, cudaDeviceSynchronize()), 0);
            assert_eq!(call!(cudart, cudaMemPoolTrimTo(u64, usize), pool, 0), 0);
            assert_eq!((attribute(&cudart, pool, RESERVED), free_bytes(&cudart)), (0, 100 * MIB));

            // What cudaMallocAsync gave, cudaFree takes; other streams and other pools do not exist.
            assert_eq!(call!(cudart, cudaMallocAsync(*mut u64, u64, u64), &mut address, 512, 0), 0);
            assert_eq!(call!(cudart, cudaFree(u64), address), 0);
            assert_eq!(call!(cudart, cudaMallocAsync(*mut u64, u64, u64), &mut address, 512, 0x7700), INVALID_HANDLE);
            assert_eq!(call!(cudart, cudaMemPoolTrimTo(u64, usize), 1, 0), INVALID_VALUE);
        });
    passed(&output);
}
