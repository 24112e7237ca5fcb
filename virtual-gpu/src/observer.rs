//! For observers: programs that know what their kernels do, and ask how long things take. A kernel says nothing of itself, so a program that sees
//! each of its operations (as libtorch's observers do) says what it was.
//!
//! They are found by name (`dlsym`), answer 0, or 1 where there is no device.

use virtual_gpu_protocol::{WorkKind, WorkType};

use crate::cudart::forget;
use crate::device::{Fault, KernelWork, Span};
use crate::devices::{active_device, device, device_of};
use crate::ffi::{Address, Given, GivenText, Out};
use crate::machine::{host_clock, machine};
use crate::{decisions, operations};

fn answer(result: Result<(), Fault>) -> i32 {
    i32::from(result.is_err())
}

unsafe_exports! { answer;
    fn lowmem_virtual_gpu_begin(operation: GivenText) {
        machine()?;
        // The name stays until the operation ends. It is looked at where somebody asks for it, which is seldom: that costs more than all else here.
        operations::begin(operation.beyond_the_call());
        Ok(())
    }

    fn lowmem_virtual_gpu_given_out(address: Address, bytes: usize) {
        forget(address, bytes)
    }
}

exports! { answer;
    fn lowmem_virtual_gpu_end(kind: i32, dtype: i32, operations: f64, bytes: f64) {
        machine()?;
        operations::end(KernelWork { kind: WorkKind::of(kind), dtype: WorkType::of(dtype), operations, bytes, output: None });
        Ok(())
    }

    fn lowmem_virtual_gpu_decided(what: GivenText) {
        machine()?;
        decisions::decided(what.get().ok_or(Fault::InvalidValue)?);
        Ok(())
    }

    fn lowmem_virtual_gpu_elapsed(begun: u64, ended: u64, secs: Out<[f64; 3]>) {
        secs.set(device_of(begun)?.events().elapsed(begun, ended)?.sorted().0)
    }

    fn lowmem_virtual_gpu_host_work(secs: Given<[f64; 3]>) {
        active_device()?;
        host_clock().spend(Span(secs.get().ok_or(Fault::InvalidValue)?));
        Ok(())
    }

    fn lowmem_virtual_gpu_stalled(secs: Out<[f64; 3]>) {
        secs.set(device()?.clock().stalled().0)
    }

    fn lowmem_virtual_gpu_waited_for_ranks(secs: Out<[f64; 3]>) {
        secs.set(device()?.clock().waited_for_ranks().0)
    }

    fn lowmem_virtual_gpu_now(secs: Out<[f64; 3]>) {
        device()?;
        secs.set(host_clock().now().0)
    }
}
