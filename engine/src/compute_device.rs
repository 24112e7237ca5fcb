//! What a pipeline computes on, and what listens to it. Which weights live there is `memory`'s.

use std::ffi::CStr;

use tch::Device;

use crate::cuda::{self, ObservedOperation, OperationListener, allocator};
use crate::error::Result;
use crate::{attribution, operation_times, timing};

/// `off`: the work of operations is not counted, and their times are not known.
const OBSERVER: &str = "LOWMEM_OBSERVER";

/// What runs a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct ComputeDevice {
    /// What libtorch calls it.
    pub torch: Device,
    /// Whether anything is computed there. On the virtual GPU nothing is, so a stage that a plan puts on the host hands on a tensor of the
    /// right shape instead of computing for minutes.
    pub computes: bool,
}

impl ComputeDevice {
    /// The CPU, where everything is computed.
    pub fn cpu() -> Self {
        Self { torch: Device::Cpu, computes: true }
    }

    /// The GPU: the first that `CUDA_VISIBLE_DEVICES` names.
    ///
    /// # Errors
    /// No GPU.
    pub fn gpu() -> Result<Self> {
        start_gpu()?;
        Ok(Self { torch: Device::Cuda(cuda::DEVICE as usize), computes: true })
    }

    /// Whether libtorch sees a GPU in it, real or virtual.
    pub fn is_gpu(self) -> bool {
        self.torch.is_cuda()
    }
}

/// Makes the GPU ready, has what this thread allocates there attributed and what it asks of it counted, and gives the GPU's name.
///
/// # Errors
/// When there is no GPU, or it cannot be used.
pub(crate) fn start_gpu() -> Result<String> {
    allocator::start()?;
    // Off only to measure what it costs: `benches/observer_cost.py`.
    if std::env::var_os(OBSERVER).is_none_or(|value| value != "off") {
        cuda::observe_operations::<Listener>()?;
    }
    allocator::device_name()
}

/// Passes on what the GPU is asked for: to the times of stages, to those of operations, and to what allocations are.
struct Listener;

impl OperationListener for Listener {
    fn begun(name: &'static CStr) {
        attribution::operation_begins(name);
        operation_times::begin();
    }

    fn made(address: usize, shape: &[i64]) {
        attribution::shaped(address, shape);
    }

    fn ended(operation: &ObservedOperation<'_>) {
        if operation.counts {
            timing::report(operation.operations, operation.bytes);
        }
        operation_times::end(operation);
        attribution::operation_ends();
    }
}
