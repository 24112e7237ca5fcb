//! Which devices there are and what they say of themselves.

use super::error::answer;
use super::properties::{DeviceProperties, attribute};
use super::properties_12::DeviceProperties12;
use super::version::{CUDA_VERSION, is_cuda_12, runtime_version};
use crate::device::{Fault, GREATEST_PRIORITY, LEAST_PRIORITY};
use crate::devices::{active_device, current, device, device_at, device_count, set_current};
use crate::ffi::{GivenText, Out, OutText, own_function};
use crate::unsupported;

/// `cudaDriverEntryPointSuccess`, and `cudaDriverEntryPointSymbolNotFound`.
const FOUND: i32 = 0;
const NOT_FOUND: i32 = 1;

/// A function of the driver as that version of CUDA has it.
fn look_up(name: GivenText, function: Out<u64>, version: u32, status: Out<i32>) -> Result<(), Fault> {
    let name = name.get().ok_or(Fault::InvalidValue)?;
    let found = own_function(&name, version >= CUDA_VERSION.unsigned_abs());
    if found.is_none() {
        unsupported::declined(&name);
    }
    function.set(found.unwrap_or(0))?;
    status.set_if_wanted(if found.is_some() { FOUND } else { NOT_FOUND });
    Ok(())
}

exports! { answer;
    fn cudaGetDeviceCount(count: Out<i32>) {
        count.set(device_count())?;
        device().map(drop)
    }

    fn cudaGetDevice(ordinal: Out<i32>) {
        ordinal.set(current()?)
    }

    fn cudaSetDevice(ordinal: i32) {
        set_current(ordinal)
    }

    fn cudaDeviceSynchronize() {
        active_device()?.synchronize()
    }

    fn cudaGetDeviceProperties(properties: Out<DeviceProperties>, ordinal: i32) {
        if is_cuda_12() {
            // CUDA 11's, which is shorter: nobody who was built for CUDA 12 means that.
            unsupported::met("cudaGetDeviceProperties");
            return Err(Fault::NotSupported);
        }
        properties.set(DeviceProperties::of(device_at(ordinal)?))
    }

    fn cudaGetDeviceProperties_v2(properties: Out<DeviceProperties12>, ordinal: i32) {
        properties.set(DeviceProperties12::of(device_at(ordinal)?))
    }

    fn cudaDeviceGetAttribute(value: Out<i32>, number: i32, ordinal: i32) {
        value.set(attribute(device_at(ordinal)?, number))
    }

    fn cudaDeviceGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        device()?;
        least.set_if_wanted(LEAST_PRIORITY);
        greatest.set_if_wanted(GREATEST_PRIORITY);
        Ok(())
    }

    fn cudaDeviceCanAccessPeer(can: Out<i32>, ordinal: i32, peer: i32) {
        can.set(i32::from(device_at(ordinal)?.can_access(device_at(peer)?)))
    }

    fn cudaDeviceEnablePeerAccess(peer: i32, _flags: u32) {
        active_device()?.enable_peer(device_at(peer)?)
    }

    fn cudaDriverGetVersion(version: Out<i32>) {
        version.set(if device().is_ok() { CUDA_VERSION } else { 0 })
    }

    fn cudaRuntimeGetVersion(version: Out<i32>) {
        version.set(runtime_version())
    }

    fn cudaGetDriverEntryPointByVersion(name: GivenText, function: Out<u64>, version: u32, _flags: u64, status: Out<i32>) {
        look_up(name, function, version, status)
    }

    fn cudaGetDriverEntryPoint(name: GivenText, function: Out<u64>, _flags: u64, status: Out<i32>) {
        look_up(name, function, runtime_version().unsigned_abs(), status)
    }
}

unsafe_exports! { answer;
    fn cudaDeviceGetPCIBusId(id: OutText, room: i32, ordinal: i32) {
        id.set(&device_at(ordinal)?.pci_bus_id(), usize::try_from(room).map_err(|_| Fault::InvalidValue)?)
    }
}

succeed! { cudaProfilerStart cudaProfilerStop }
