//! Memory in the order of a stream: `cudaMallocAsync` and the device's default pool, the only one that there is.

use super::error::answer;
use crate::device::{Capacity, Fault, MemoryPool, Owner};
use crate::devices::{activate, device_at, device_of, device_that};
use crate::ffi::{Address, Handle, Out, Untyped};
use crate::machine::machine;
use crate::report::noted;

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
fn with_pool<T>(handle: u64, work: impl FnOnce(&mut MemoryPool, &mut Capacity) -> Result<T, Fault>) -> Result<T, Fault> {
    let ordinal = handle.checked_sub(DEFAULT_POOL).filter(|offset| offset % NEXT_POOL == 0).map(|offset| offset / NEXT_POOL);
    let device = ordinal.and_then(|ordinal| machine().ok()?.get(usize::try_from(ordinal).ok()?)).ok_or(Fault::InvalidValue)?;
    activate(device)?.with_pool(work)
}

exports! { answer;
    fn cudaDeviceGetDefaultMemPool(pool: Out<u64>, ordinal: i32) {
        let device = activate(device_at(ordinal)?)?;
        pool.set(DEFAULT_POOL + u64::from(device.ordinal) * NEXT_POOL)
    }

    fn cudaMallocAsync(address: Out<u64>, bytes: usize, stream: Handle) {
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

    fn cudaFreeAsync(address: Address, stream: Handle) {
        device_of(stream)?.streams().check(stream)?;
        let device = device_that(|device| matches!(device.owner_of(address), Owner::Device(_)))?;
        if address == 0 { Ok(()) } else { device.free_async(address, stream) }
    }

    fn cudaMemPoolTrimTo(pool: Handle, bytes: usize) {
        with_pool(pool, |pool, capacity| {
            pool.trim(bytes as u64, capacity);
            Ok(())
        })
    }

    fn cudaMemPoolSetAccess(pool: Handle, _access: Address, _count: usize) {
        // Where other devices reach this one's memory, they reach all of it.
        with_pool(pool, |_, _| Ok(()))
    }
}

unsafe_exports! { answer;
    fn cudaMemPoolGetAttribute(pool: Handle, number: i32, value: Untyped) {
        let found = with_pool(pool, |pool, _| match number {
            RELEASE_THRESHOLD => Ok(pool.release_threshold_bytes),
            RESERVED_CURRENT => Ok(pool.reserved.current),
            RESERVED_HIGH => Ok(pool.reserved.high),
            USED_CURRENT => Ok(pool.used.current),
            USED_HIGH => Ok(pool.used.high),
            // All kinds of reuse are allowed, which is the default.
            number if REUSE.contains(&number) => Ok(1),
            _ => Err(Fault::InvalidValue),
        })?;
        // These are an `int` each, the others have 64 bits.
        if REUSE.contains(&number) { value.set(&1_i32.to_ne_bytes()) } else { value.set(&found.to_ne_bytes()) }
    }

    fn cudaMemPoolSetAttribute(pool: Handle, number: i32, value: Untyped) {
        if REUSE.contains(&number) {
            let given = value.get::<i32>()?;
            return with_pool(pool, |_, _| if given == 1 { Ok(()) } else { Err(Fault::NotSupported) });
        }
        if ![RELEASE_THRESHOLD, RESERVED_HIGH, USED_HIGH].contains(&number) {
            return Err(Fault::InvalidValue);
        }
        let given = value.get::<u64>()?;
        with_pool(pool, |pool, _| {
            match number {
                RELEASE_THRESHOLD => pool.release_threshold_bytes = given,
                // The highest values can be reset, which is said by a zero, and nothing else.
                RESERVED_HIGH if given == 0 => pool.reserved.reset(),
                USED_HIGH if given == 0 => pool.used.reset(),
                _ => return Err(Fault::InvalidValue),
            }
            Ok(())
        })
    }
}
