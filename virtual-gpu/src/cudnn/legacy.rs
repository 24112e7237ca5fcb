//! Batch normalisation and dropout states, which PyTorch asks for by cuDNN's older functions. The batch norms need no workspace here, which was not
//! checked on a card; real ones may ask for a little where the channels are innermost.

use std::sync::Mutex;

use super::{answer, run};
use crate::device::{Handles, lock};
use crate::ffi::Out;
use crate::process::active_device;

/// Descriptors of tensors, filters, activations and dropout. What is set on them changes nothing here.
static DESCRIPTORS: Mutex<Handles<()>> = Mutex::new(Handles::new());

/// A generator of random numbers (cuRAND's XORWOW state, by `curand_kernel.h`), of which cuDNN keeps one for each thread that the device can hold.
const GENERATOR_BYTES: usize = 48;

/// Functions that make a descriptor, and those that destroy it.
macro_rules! descriptors {
    ($($create:ident $destroy:ident)*) => {
        exports! { answer;
            $(
                fn $create(descriptor: Out<u64>) {
                    descriptor.set(lock(&DESCRIPTORS).insert(()))
                }

                fn $destroy(descriptor: u64) {
                    lock(&DESCRIPTORS).remove(descriptor)
                }
            )*
        }
    };
}

descriptors! {
    cudnnCreateTensorDescriptor cudnnDestroyTensorDescriptor
    cudnnCreateFilterDescriptor cudnnDestroyFilterDescriptor
    cudnnCreateActivationDescriptor cudnnDestroyActivationDescriptor
    cudnnCreateDropoutDescriptor cudnnDestroyDropoutDescriptor
}

succeed! {
    cudnnSetTensorNdDescriptor cudnnSetFilterNdDescriptor cudnnSetActivationDescriptor cudnnSetDropoutDescriptor
    cudnnRestoreDropoutDescriptor
}

exports! { answer;
    fn cudnnDropoutGetStatesSize(_handle: u64, bytes: Out<usize>) {
        let device = active_device()?;
        let threads = device.profile.multiprocessors.value * device.architecture.threads_per_multiprocessor;
        bytes.set(threads as usize * GENERATOR_BYTES)
    }

    fn cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
        _handle: u64, _mode: i32, _operations: i32, _x: u64, _z: u64, _y: u64, _scale: u64, _activation: u64, bytes: Out<usize>,
    ) {
        bytes.set(0)
    }

    fn cudnnGetBatchNormalizationBackwardExWorkspaceSize(
        _handle: u64, _mode: i32, _operations: i32, _x: u64, _y: u64, _dy: u64, _dz: u64, _dx: u64, _scale: u64, _activation: u64,
        bytes: Out<usize>,
    ) {
        bytes.set(0)
    }

    fn cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
        _handle: u64, _mode: i32, _operations: i32, _activation: u64, _x: u64, bytes: Out<usize>,
    ) {
        bytes.set(0)
    }
}

/// Functions that compute: their first parameter is the handle, the others change nothing here.
macro_rules! computes {
    ($($name:ident)*) => {
        exports! { answer;
            $(
                fn $name(handle: u64) {
                    run(handle)
                }
            )*
        }
    };
}

computes! {
    cudnnBatchNormalizationForwardTrainingEx cudnnBatchNormalizationForwardInference cudnnBatchNormalizationBackwardEx
}
