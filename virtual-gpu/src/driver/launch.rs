//! Modules, their functions, and launches. Images are not read: every name is found.

use std::collections::BTreeMap;

use super::error::{answer, ready};
use crate::cudart::{active_blocks, launch};
use crate::device::{Architecture, Fault};
use crate::devices::{active_device, device};
use crate::ffi::{Address, Given, GivenText, Handle, Out};
use crate::handle_table::HandleTable;

/// Loaded modules, each with the functions that were asked for in it, by name.
static MODULES: HandleTable<BTreeMap<String, u64>> = HandleTable::of("cuda");
/// Where the handles of functions come from.
static FUNCTIONS: HandleTable<()> = HandleTable::of("cuda");

fn load_module(module: Out<u64>) -> Result<(), Fault> {
    active_device()?;
    module.set(MODULES.lock().insert(BTreeMap::new()))
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    attributes: u64,
    attribute_count: u32,
}

exports! { answer, ready;
    fn cuModuleLoad(module: Out<u64>, _path: Address) {
        load_module(module)
    }

    fn cuModuleLoadData(module: Out<u64>, _image: Address) {
        load_module(module)
    }

    fn cuModuleLoadDataEx(module: Out<u64>, _image: Address, _count: u32, _options: Address, _values: Address) {
        load_module(module)
    }

    fn cuModuleUnload(module: Handle) {
        let functions = MODULES.lock().remove(module)?;
        functions.into_values().try_for_each(|function| FUNCTIONS.lock().remove(function))
    }

    fn cuModuleGetFunction(function: Out<u64>, module: Handle, name: GivenText) {
        let name = name.get().ok_or(Fault::InvalidValue)?;
        function.set(*MODULES.lock().get_mut(module)?.entry(name).or_insert_with(|| FUNCTIONS.lock().insert(())))
    }

    fn cuFuncGetAttribute(value: Out<i32>, number: i32, _function: Handle) {
        let architecture = &device()?.architecture;
        value.set(match number {
            0 => Architecture::THREADS_PER_BLOCK as i32,
            4 => Architecture::REGISTERS_PER_THREAD as i32,
            5 | 6 => architecture.kernel_version() as i32, // PTX and binary version
            8 => Architecture::SHARED_BYTES_PER_BLOCK as i32,
            9 => -1, // no preferred carve-out
            _ => 0,
        })
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<i32>, _function: Handle, threads: i32, shared_bytes: usize) {
        blocks.set(active_blocks(threads, shared_bytes)?)
    }

    fn cuLaunchKernel(
        _function: Handle, _gx: u32, _gy: u32, _gz: u32, _bx: u32, _by: u32, _bz: u32, _shared_bytes: u32, stream: Handle,
        _parameters: Address, _extra: Address,
    ) {
        launch(stream)
    }

    fn cuLaunchCooperativeKernel(
        _function: Handle, _gx: u32, _gy: u32, _gz: u32, _bx: u32, _by: u32, _bz: u32, _shared_bytes: u32, stream: Handle,
        _parameters: Address,
    ) {
        launch(stream)
    }

    fn cuLaunchKernelEx(config: Given<LaunchConfig>, _function: Handle, _parameters: Address, _extra: Address) {
        launch(config.get().ok_or(Fault::InvalidValue)?.stream)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>, _function: Handle, threads: i32, shared_bytes: usize, _flags: u32,
    ) {
        blocks.set(active_blocks(threads, shared_bytes)?)
    }
}

succeed! { cuFuncSetAttribute cuFuncSetCacheConfig cuTensorMapEncodeTiled cuTensorMapEncodeIm2col }

const _: () = assert!(size_of::<LaunchConfig>() == 56, "as in cuda.h");
