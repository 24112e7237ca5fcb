//! Memory in the order of a stream: `cudaMallocAsync` and the device's default pool, the only one that there is.

use std::ffi::c_void;

use super::answer;
use crate::device::{Fault, Ledger, MemoryPool};
use crate::ffi::Out;
use crate::process::{active_device, device_at};

/// The handle of the default pool.
const DEFAULT_POOL: u64 = 0xB00_0000;

/// `cudaMemPoolAttr`.
const REUSE: std::ops::RangeInclusive<i32> = 1..=3;
const RELEASE_THRESHOLD: i32 = 4;
const RESERVED_CURRENT: i32 = 5;
const RESERVED_HIGH: i32 = 6;
const USED_CURRENT: i32 = 7;
const USED_HIGH: i32 = 8;

/// Does something with the pool, if `handle` is its.
fn with_pool<T>(handle: u64, work: impl FnOnce(&mut MemoryPool, &mut Ledger) -> Result<T, Fault>) -> Result<T, Fault> {
    if handle != DEFAULT_POOL {
        return Err(Fault::InvalidValue);
    }
    active_device()?.with_pool(work)
}

exports! { answer;
    fn cudaDeviceGetDefaultMemPool(pool: Out<u64>, ordinal: i32) {
        device_at(ordinal)?;
        active_device()?;
        pool.set(DEFAULT_POOL)
    }

    fn cudaMallocAsync(address: Out<u64>, bytes: usize, stream: u64) {
        let device = active_device()?;
        device.streams().check(stream)?;
        if address.is_null() {
            return Err(Fault::InvalidValue);
        }
        if bytes == 0 {
            return address.set(0);
        }
        address.set(device.allocate_async(bytes as u64, stream)?)
    }

    fn cudaFreeAsync(address: u64, stream: u64) {
        let device = active_device()?;
        device.streams().check(stream)?;
        if address == 0 { Ok(()) } else { device.free_async(address, stream) }
    }

    fn cudaMemPoolTrimTo(pool: u64, bytes: usize) {
        with_pool(pool, |pool, ledger| {
            pool.trim(bytes as u64, ledger);
            Ok(())
        })
    }

    fn cudaMemPoolSetAccess(pool: u64, _access: u64, _count: usize) {
        // There is no other device that could have access.
        with_pool(pool, |_, _| Ok(()))
    }

    fn cudaMemPoolGetAttribute(pool: u64, number: i32, value: Out<c_void>) {
        with_pool(pool, |pool, _| match number {
            // All kinds of reuse are allowed, which is the default.
            number if REUSE.contains(&number) => value.of::<i32>().set(1),
            RELEASE_THRESHOLD => value.of::<u64>().set(pool.release_threshold_bytes),
            RESERVED_CURRENT => value.of::<u64>().set(pool.reserved.current),
            RESERVED_HIGH => value.of::<u64>().set(pool.reserved.high),
            USED_CURRENT => value.of::<u64>().set(pool.used.current),
            USED_HIGH => value.of::<u64>().set(pool.used.high),
            _ => Err(Fault::InvalidValue),
        })
    }

    fn cudaMemPoolSetAttribute(pool: u64, number: i32, value: Out<c_void>) {
        let number_given = || value.of::<u64>().get().ok_or(Fault::InvalidValue);
        with_pool(pool, |pool, _| match number {
            number if REUSE.contains(&number) => match value.of::<i32>().get() {
                Some(1) => Ok(()),
                Some(_) => Err(Fault::NotSupported),
                None => Err(Fault::InvalidValue),
            },
            RELEASE_THRESHOLD => {
                pool.release_threshold_bytes = number_given()?;
                Ok(())
            }
            // They can be reset, which is said by a zero, and nothing else.
            RESERVED_HIGH if number_given()? == 0 => {
                pool.reserved.reset();
                Ok(())
            }
            USED_HIGH if number_given()? == 0 => {
                pool.used.reset();
                Ok(())
            }
            _ => Err(Fault::InvalidValue),
        })
    }
}
