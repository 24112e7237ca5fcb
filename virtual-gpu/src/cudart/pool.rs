//! Memory in the order of a stream: `cudaMallocAsync` and the device's default pool, the only one that there is.

use std::ffi::c_void;

use super::answer;
use crate::device::{Fault, Ledger, MemoryPool, Owner};
use crate::ffi::Out;
use crate::process::{activate, device_at, device_of, device_that, machine, noted};

/// The handle of the first device's default pool; the others' follow it.
const DEFAULT_POOL: u64 = 0xB00_0000;
const NEXT_POOL: u64 = 0x100;

/// `cudaMemPoolAttr`.
const REUSE: std::ops::RangeInclusive<i32> = 1..=3;
const RELEASE_THRESHOLD: i32 = 4;
const RESERVED_CURRENT: i32 = 5;
const RESERVED_HIGH: i32 = 6;
const USED_CURRENT: i32 = 7;
const USED_HIGH: i32 = 8;

/// Does something with the pool, if `handle` is its.
fn with_pool<T>(handle: u64, work: impl FnOnce(&mut MemoryPool, &mut Ledger) -> Result<T, Fault>) -> Result<T, Fault> {
    let ordinal = handle.checked_sub(DEFAULT_POOL).filter(|offset| offset % NEXT_POOL == 0).map(|offset| offset / NEXT_POOL);
    let device = ordinal.and_then(|ordinal| machine().ok()?.get(usize::try_from(ordinal).ok()?)).ok_or(Fault::InvalidValue)?;
    activate(device)?.with_pool(work)
}

exports! { answer;
    fn cudaDeviceGetDefaultMemPool(pool: Out<u64>, ordinal: i32) {
        let device = activate(device_at(ordinal)?)?;
        pool.set(DEFAULT_POOL + u64::from(device.ordinal) * NEXT_POOL)
    }

    fn cudaMallocAsync(address: Out<u64>, bytes: usize, stream: u64) {
        let device = device_of(stream)?;
        device.streams().check(stream)?;
        if address.is_null() {
            return Err(Fault::InvalidValue);
        }
        if bytes == 0 {
            return address.set(0);
        }
        address.set(noted(device, device.allocate_async(bytes as u64, stream))?)
    }

    fn cudaFreeAsync(address: u64, stream: u64) {
        device_of(stream)?.streams().check(stream)?;
        let device = device_that(|device| matches!(device.owner_of(address), Owner::Device(_)))?;
        if address == 0 { Ok(()) } else { device.free_async(address, stream) }
    }

    fn cudaMemPoolTrimTo(pool: u64, bytes: usize) {
        with_pool(pool, |pool, ledger| {
            pool.trim(bytes as u64, ledger);
            Ok(())
        })
    }

    fn cudaMemPoolSetAccess(pool: u64, _access: u64, _count: usize) {
        // Where other devices reach this one's memory, they reach all of it.
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
