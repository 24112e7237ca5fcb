//! What a program with CUDA code in it says when it is loaded: its binaries, kernels and device variables. Binaries are
//! not read and kernels are known by their host stub, so only the variables are kept, and which kernels do nothing but wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::error::answer;
use super::memory::DEFAULT_STREAM;
use crate::device::{AddressSpace, Fault, Operation, Reservation, lock};
use crate::devices::active_device;
use crate::ffi::{Address, GivenText, Mapped, Out, move_bytes};

/// A `__device__` or `__constant__` variable. Its memory is part of what the context takes.
struct Variable {
    bytes: u64,
    addresses: Option<Box<dyn Reservation>>,
}

/// Variables by the address of their host shadow.
static VARIABLES: Mutex<BTreeMap<u64, Variable>> = Mutex::new(BTreeMap::new());

/// Kernels that wait for as many cycles as their one parameter says, by their host stub.
static SPINNING: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// How the C++ compiler writes the names of such kernels for the linker, from the function's own name on: `spin_kernel(long)` is behind `torch.cuda._sleep`.
const SPIN_NAMES: [&str; 2] = ["11spin_kernelEl", "11spin_kernell"];

/// Whether a kernel does nothing but wait for so many cycles as its parameter says.
pub(super) fn spins(kernel: u64) -> bool {
    lock(&SPINNING).contains(&kernel)
}

/// Where a variable is on the device, and its size.
pub(super) fn variable(shadow: u64) -> Result<(u64, u64), Fault> {
    let mut variables = lock(&VARIABLES);
    let variable = variables.get_mut(&shadow).ok_or(Fault::InvalidSymbol)?;
    if variable.addresses.is_none() {
        variable.addresses = Mapped.reserve(variable.bytes.max(1), 4096);
    }
    let addresses = variable.addresses.as_ref().ok_or(Fault::OutOfMemory)?;
    Ok((addresses.address(), variable.bytes))
}

/// What stands for every registered binary: programs only hand it back.
static BINARY: u64 = 0;

#[unsafe(no_mangle)]
unsafe extern "C" fn __cudaRegisterFatBinary(_binary: u64) -> u64 {
    &raw const BINARY as u64
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cudaRegisterVar(
    _binary: u64,
    shadow: u64,
    _device_address: u64,
    _name: u64,
    _external: i32,
    bytes: usize,
    _constant: i32,
    _global: i32,
) {
    lock(&VARIABLES).insert(shadow, Variable { bytes: bytes as u64, addresses: None });
}

/// True: the module is there.
#[unsafe(no_mangle)]
unsafe extern "C" fn __cudaInitModule(_binary: u64) -> u8 {
    1
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cudaRegisterFunction(_binary: u64, stub: u64, _function: u64, name: GivenText) {
    if name.ends_with(&SPIN_NAMES) {
        lock(&SPINNING).insert(stub);
    }
}

succeed! { __cudaRegisterFatBinaryEnd __cudaUnregisterFatBinary }

exports! { answer;
    fn cudaGetSymbolAddress(address: Out<u64>, shadow: Address) {
        active_device()?;
        address.set(variable(shadow)?.0)
    }

}

unsafe_exports! { answer;
    fn cudaMemcpyToSymbol(shadow: Address, source: Address, bytes: usize, offset: usize, _kind: i32) {
        let device = active_device()?;
        let (address, size) = variable(shadow)?;
        if (offset as u64).checked_add(bytes as u64).is_none_or(|end| end > size) {
            return Err(Fault::InvalidValue);
        }
        device.counters.copied_to_device(bytes as u64);
        let writes = [(address + offset as u64, bytes as u64)];
        device.trace.note(|| Operation::CopyToDevice { stream: DEFAULT_STREAM, writes });
        device.synchronize_stream(DEFAULT_STREAM)?;
        move_bytes(address + offset as u64, source, bytes);
        Ok(())
    }
}
