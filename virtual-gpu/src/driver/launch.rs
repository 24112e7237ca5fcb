//! Modules, their functions, and launches. Images are not read: every name is found.

use std::collections::BTreeMap;

use super::error::answer;
use crate::cudart::{active_blocks, launch};
use crate::device::{Architecture, Fault};
use crate::devices::{active_device, device};
use crate::ffi::{Given, GivenText, Out};
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

exports! { answer;
    fn cuModuleLoad(module: Out<u64>, _path: u64) {
        load_module(module)
    }

    fn cuModuleLoadData(module: Out<u64>, _image: u64) {
        load_module(module)
    }

    fn cuModuleLoadDataEx(module: Out<u64>, _image: u64, _count: u32, _options: u64, _values: u64) {
        load_module(module)
    }

    fn cuModuleUnload(module: u64) {
        let functions = MODULES.lock().remove(module)?;
        functions.into_values().try_for_each(|function| FUNCTIONS.lock().remove(function))
    }

    fn cuModuleGetFunction(function: Out<u64>, module: u64, name: GivenText) {
        let name = name.get().ok_or(Fault::InvalidValue)?;
        function.set(*MODULES.lock().get_mut(module)?.entry(name).or_insert_with(|| FUNCTIONS.lock().insert(())))
    }

    fn cuFuncGetAttribute(value: Out<i32>, number: i32, _function: u64) {
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

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<i32>, _function: u64, threads: i32, shared_bytes: usize) {
        blocks.set(active_blocks(threads, shared_bytes)?)
    }

    fn cuLaunchKernel(
        _function: u64, _gx: u32, _gy: u32, _gz: u32, _bx: u32, _by: u32, _bz: u32, _shared_bytes: u32, stream: u64,
        _parameters: u64, _extra: u64,
    ) {
        launch(stream)
    }

    fn cuLaunchCooperativeKernel(
        _function: u64, _gx: u32, _gy: u32, _gz: u32, _bx: u32, _by: u32, _bz: u32, _shared_bytes: u32, stream: u64,
        _parameters: u64,
    ) {
        launch(stream)
    }

    fn cuLaunchKernelEx(config: Given<LaunchConfig>, _function: u64, _parameters: u64, _extra: u64) {
        launch(config.get().ok_or(Fault::InvalidValue)?.stream)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>, _function: u64, threads: i32, shared_bytes: usize, _flags: u32,
    ) {
        blocks.set(active_blocks(threads, shared_bytes)?)
    }
}

succeed! { cuFuncSetAttribute cuFuncSetCacheConfig cuTensorMapEncodeTiled cuTensorMapEncodeIm2col }

const _: () = assert!(size_of::<LaunchConfig>() == 56, "as in cuda.h");
