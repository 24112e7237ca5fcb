//! What has been asked of the device. Plain sums, so that the same program gives the same figures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use virtual_gpu_protocol::WorkType;

use super::fault::Fault;
use super::lock::lock;

/// Sums since the start of the process. Relaxed: each stands alone, and they are read when all work is over.
#[derive(Debug, Default)]
pub struct Counters {
    kernel_launches: AtomicU64,
    h2d_bytes: AtomicU64,
    d2h_bytes: AtomicU64,
    values_read: AtomicU64,
    /// Those of which it is known what operation read them.
    values_read_by: Mutex<BTreeMap<String, u64>>,
    host_refusals: AtomicU64,
    /// A bit for each type in which matrices were multiplied.
    products: AtomicU64,
}

impl Counters {
    /// So many kernels, or library calls that would have run kernels.
    pub fn launched(&self, count: u64) {
        self.kernel_launches.fetch_add(count, Ordering::Relaxed);
    }

    /// A copy to the device, whether its bytes were moved or not.
    pub fn copied_to_device(&self, bytes: u64) {
        self.h2d_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A copy to the host, whether its bytes were moved or not.
    pub fn copied_to_host(&self, bytes: u64) {
        self.d2h_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A copy to the host that is small enough to be looked at: what stands there was never computed. With the operation that it is part of, where that is known.
    pub fn value_read(&self, operation: Option<String>) {
        self.values_read.fetch_add(1, Ordering::Relaxed);
        if let Some(operation) = operation {
            *lock(&self.values_read_by).entry(operation).or_default() += 1;
        }
    }

    /// How many of them each operation read.
    pub fn values_read_by(&self) -> BTreeMap<String, u64> {
        lock(&self.values_read_by).clone()
    }

    /// A request for page-locked memory failed, for that reason.
    pub fn host_refused(&self, fault: Fault) {
        self.host_refusals.fetch_add(u64::from(fault == Fault::OutOfMemory), Ordering::Relaxed);
    }

    /// Requests for page-locked memory so far that the host had no memory for.
    pub fn host_refusals(&self) -> u64 {
        self.host_refusals.load(Ordering::Relaxed)
    }

    /// A product of matrices in that type.
    pub fn multiplied(&self, dtype: WorkType) {
        self.products.fetch_or(1 << dtype as u64, Ordering::Relaxed);
    }

    /// The types of all products so far.
    pub fn products(&self) -> BTreeSet<WorkType> {
        let bits = self.products.load(Ordering::Relaxed);
        WorkType::NUMBERED.into_iter().filter(|&dtype| bits & (1 << dtype as u64) != 0).collect()
    }

    /// Such copies so far.
    pub fn values_read(&self) -> u64 {
        self.values_read.load(Ordering::Relaxed)
    }

    /// Launches so far.
    pub fn kernel_launches(&self) -> u64 {
        self.kernel_launches.load(Ordering::Relaxed)
    }

    /// Bytes copied to the device so far.
    pub fn h2d_bytes(&self) -> u64 {
        self.h2d_bytes.load(Ordering::Relaxed)
    }

    /// Bytes copied to the host so far.
    pub fn d2h_bytes(&self) -> u64 {
        self.d2h_bytes.load(Ordering::Relaxed)
    }
}
