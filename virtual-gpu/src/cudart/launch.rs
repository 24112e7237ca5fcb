//! Kernel launches: counted, checked for their stream, and not run. A kernel is known by the address of its host stub.

use std::cell::RefCell;
use std::ffi::c_void;

use super::error::answer;
use super::module::spins;
use crate::device::{Architecture, Fault, KernelWork};
use crate::devices::{device, launch as launch_work, spin};
use crate::ffi::{Address, Given, Handle, Out};
use crate::first_use;

/// `dim3`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Dim3 {
    x: u32,
    y: u32,
    z: u32,
}

/// `cudaLaunchConfig_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LaunchConfig {
    grid: Dim3,
    block: Dim3,
    dynamic_shared_bytes: usize,
    stream: u64,
    attributes: *const c_void,
    attribute_count: u32,
}

/// What `<<<...>>>` gives before the launch itself.
#[derive(Clone, Copy)]
struct CallConfiguration {
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: u64,
}

thread_local! {
    static CALLS: RefCell<Vec<CallConfiguration>> = const { RefCell::new(Vec::new()) };
}

/// `cudaFuncAttributes`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FunctionAttributes {
    shared_bytes: usize,
    constant_bytes: usize,
    local_bytes: usize,
    max_threads_per_block: i32,
    registers: i32,
    ptx_version: i32,
    binary_version: i32,
    cache_mode: i32,
    max_dynamic_shared_bytes: i32,
    preferred_shared_carveout: i32,
    clusters: [i32; 6],
    reserved: [i32; 16],
}

/// Counts a launch on a stream that exists.
pub(crate) fn launch(stream: u64) -> Result<(), Fault> {
    launch_work(stream, KernelWork::UNKNOWN)
}

/// Counts a launch of that function, which is loaded the first time. One that waits takes as many cycles as its parameter says.
///
/// # Safety
/// `arguments` is where the addresses of the function's parameters stand.
unsafe fn launch_function(function: u64, arguments: u64, stream: u64) -> Result<(), Fault> {
    first_use::kernel(function);
    if !spins(function) {
        return launch(stream);
    }
    // SAFETY: as the caller says: the first parameter of such a function is a number of 64 bits.
    let cycles = unsafe { Given::<i64>::at(Given::<u64>::at(arguments).get().ok_or(Fault::InvalidValue)?).get() };
    spin(stream, cycles.ok_or(Fault::InvalidValue)?.max(0).cast_unsigned())
}

/// How many blocks of this shape a multiprocessor holds.
pub(crate) fn active_blocks(threads_per_block: i32, dynamic_shared_bytes: usize) -> Result<i32, Fault> {
    let threads = u32::try_from(threads_per_block).map_err(|_| Fault::InvalidValue)?;
    Ok(device()?.architecture.active_blocks(threads, dynamic_shared_bytes as u64) as i32)
}

unsafe_exports! { answer;
    fn cudaLaunchKernel(function: Address, _grid: Dim3, _block: Dim3, arguments: Address, _shared_bytes: usize, stream: Handle) {
        launch_function(function, arguments, stream)
    }

    fn __cudaLaunchKernel(kernel: u64, _grid: Dim3, _block: Dim3, arguments: u64, _shared_bytes: usize, stream: u64) {
        launch_function(kernel, arguments, stream)
    }

    fn cudaLaunchKernelExC(config: Given<LaunchConfig>, function: Address, arguments: Address) {
        launch_function(function, arguments, config.get().ok_or(Fault::InvalidValue)?.stream)
    }
}

exports! { answer;
    fn cudaLaunchCooperativeKernel(_function: Address, _grid: Dim3, _block: Dim3, _arguments: Address, _shared_bytes: usize, stream: Handle) {
        launch(stream)
    }

    fn __cudaPushCallConfiguration(grid: Dim3, block: Dim3, shared_bytes: usize, stream: u64) {
        CALLS.with_borrow_mut(|calls| calls.push(CallConfiguration { grid, block, shared_bytes, stream }));
        Ok(())
    }

    fn __cudaPopCallConfiguration(grid: Out<Dim3>, block: Out<Dim3>, shared_bytes: Out<usize>, stream: Out<u64>) {
        let call = CALLS.with_borrow_mut(Vec::pop).ok_or(Fault::MissingConfiguration)?;
        grid.set(call.grid)?;
        block.set(call.block)?;
        shared_bytes.set(call.shared_bytes)?;
        stream.set(call.stream)
    }

    fn __cudaGetKernel(kernel: Out<u64>, function: u64) {
        kernel.set(function)
    }

    fn cudaFuncGetAttributes(attributes: Out<FunctionAttributes>, _function: Address) {
        let version = device()?.architecture.kernel_version() as i32;
        attributes.set(FunctionAttributes {
            shared_bytes: 0,
            constant_bytes: 0,
            local_bytes: 0,
            max_threads_per_block: Architecture::THREADS_PER_BLOCK as i32,
            registers: Architecture::REGISTERS_PER_THREAD as i32,
            ptx_version: version,
            binary_version: version,
            cache_mode: 0,
            max_dynamic_shared_bytes: Architecture::SHARED_BYTES_PER_BLOCK as i32,
            preferred_shared_carveout: -1,
            clusters: [0; 6],
            reserved: [0; 16],
        })
    }

    fn cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<i32>, _function: Address, threads: i32, shared_bytes: usize) {
        blocks.set(active_blocks(threads, shared_bytes)?)
    }

    fn cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>, _function: Address, threads: i32, shared_bytes: usize, _flags: u32,
    ) {
        blocks.set(active_blocks(threads, shared_bytes)?)
    }
}

succeed! { cudaFuncSetAttribute cudaFuncSetCacheConfig cudaKernelSetAttributeForDevice }

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn the_layouts_are_those_of_the_header() {
        assert_eq!(size_of::<FunctionAttributes>(), 144);
        assert_eq!(offset_of!(FunctionAttributes, binary_version), 36);
        assert_eq!(offset_of!(FunctionAttributes, max_dynamic_shared_bytes), 44);
        assert_eq!(size_of::<LaunchConfig>(), 56);
        assert_eq!(offset_of!(LaunchConfig, stream), 32);
    }
}
