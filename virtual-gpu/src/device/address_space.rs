//! Addresses: where they come from, and whose they are.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// Pages of the device; the unit of every large allocation.
pub const LARGE_GRANULE_BYTES: u64 = 2 << 20;

/// Where addresses come from. Untouched address space costs no memory.
pub trait AddressSpace: Send + Sync {
    /// Reserves readable and writable bytes that start at a multiple of `alignment`, a power of two.
    fn reserve(&self, bytes: u64, alignment: u64) -> Option<Box<dyn Reservation>>;

    /// Reserves readable and writable bytes behind which the same little memory stands again and again: writing to all of them takes no more than that, and
    /// what is written at one place is read at others too.
    fn reserve_shared(&self, bytes: u64) -> Option<Box<dyn Reservation>>;
}

/// Addresses that are nobody else's until this is dropped.
pub trait Reservation: Debug + Send {
    /// The first one.
    fn address(&self) -> u64;

    /// Forgets what was written to so many bytes from `offset` on, as far as they are part of it: they read as zeros again.
    fn discard(&self, offset: u64, bytes: u64);
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its first address.
    pub address: u64,
    /// Its length as it was asked for.
    pub bytes: u64,
}

/// The block that holds this address, of blocks by their first address.
pub(super) fn block_at<T>(blocks: &BTreeMap<u64, T>, address: u64, bytes: impl Fn(&T) -> u64) -> Option<Block> {
    let (&start, block) = blocks.range(..=address).next_back()?;
    let bytes = bytes(block);
    (address - start < bytes).then_some(Block { address: start, bytes })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Addresses that only count up.
    pub(in crate::device) struct Counting {
        next: AtomicU64,
        /// How many of them were asked for with shared memory behind them.
        pub(in crate::device) shared_bytes: AtomicU64,
    }

    impl Default for Counting {
        fn default() -> Self {
            Self { next: AtomicU64::new(1 << 40), shared_bytes: AtomicU64::new(0) }
        }
    }

    #[derive(Debug)]
    struct Number(u64);

    impl Reservation for Number {
        fn address(&self) -> u64 {
            self.0
        }

        fn discard(&self, _offset: u64, _bytes: u64) {}
    }

    impl AddressSpace for Counting {
        fn reserve(&self, bytes: u64, alignment: u64) -> Option<Box<dyn Reservation>> {
            let start = self.next.load(Ordering::Relaxed).next_multiple_of(alignment);
            self.next.store(start + bytes, Ordering::Relaxed);
            Some(Box::new(Number(start)))
        }

        fn reserve_shared(&self, bytes: u64) -> Option<Box<dyn Reservation>> {
            self.shared_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.reserve(bytes, 4096)
        }
    }
}
