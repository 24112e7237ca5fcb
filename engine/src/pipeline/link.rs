//! The way between host and device, with what crosses it counted. Copies of weights are counted where they are made: see `memory`.

use engine_protocol::Transfers;
use tch::{Device, Tensor};

use super::loading::Loadable;
use crate::attribution::{Purpose, within};
use crate::compute_device::ComputeDevice;
use crate::error::Result;
use crate::memory::Traffic;
use crate::weights::bytes_of;

/// The way to what computes, and back.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) device: ComputeDevice,
    transfers: Transfers,
}

impl Link {
    /// Nothing has crossed it yet.
    pub(super) fn new(device: ComputeDevice) -> Self {
        Self { device, transfers: Transfers::default() }
    }

    /// A copy on the device of what a pass begins with.
    pub(super) fn upload(&mut self, tensor: &Tensor) -> Result<Tensor> {
        if self.device.is_gpu() {
            self.transfers.h2d_bytes += bytes_of(tensor);
        }
        Ok(within(Purpose::Latents, || tensor.f_to_device(self.device.torch))?)
    }

    /// A copy on the CPU.
    pub(super) fn download(&mut self, tensor: &Tensor) -> Result<Tensor> {
        self.downloaded(bytes_of(tensor));
        Ok(tensor.f_to_device(Device::Cpu)?)
    }

    /// So many bytes came to the CPU by another way.
    pub(super) fn downloaded(&mut self, bytes: u64) {
        if self.device.is_gpu() {
            self.transfers.d2h_bytes += bytes;
        }
    }

    /// A model's own traffic while it computed.
    pub(super) fn passed(&mut self, passed: Transfers) {
        self.transfers.h2d_bytes += passed.h2d_bytes;
        self.transfers.d2h_bytes += passed.d2h_bytes;
    }

    /// What crossed until now, `weights` included.
    pub(super) fn transfers<'a>(&self, weights: impl Iterator<Item = &'a Loadable>) -> Transfers {
        let Traffic { h2d_bytes, not_page_locked } = weights.map(Loadable::traffic).fold(Traffic::default(), Traffic::plus);
        Transfers { h2d_bytes: self.transfers.h2d_bytes + h2d_bytes, not_page_locked, ..self.transfers }
    }
}
