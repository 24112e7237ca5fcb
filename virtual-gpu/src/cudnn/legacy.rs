//! What PyTorch asks for by cuDNN's older functions: descriptors of tensors, batch normalisation, dropout states, sampling by a grid. The batch norms
//! need no workspace here, which was not checked on a card; real ones may ask for a little where the channels are innermost.

use super::handle::{answer, run};
use crate::device::{Fault, KernelWork};
use crate::devices::active_device;
use crate::ffi::{Given, Handle, Out};
use crate::handle_table::HandleTable;

/// What a descriptor says of a tensor.
#[derive(Clone, Default)]
pub(super) struct Tensor {
    pub(super) data_type: i32,
    pub(super) sizes: Vec<i32>,
    pub(super) strides: Vec<i32>,
}

static TENSORS: HandleTable<Tensor> = HandleTable::of("cudnn");

/// What stands on the descriptor of a tensor.
pub(super) fn tensor(descriptor: u64) -> Result<Tensor, Fault> {
    TENSORS.lock().get(descriptor).cloned()
}

/// Writes on it.
pub(super) fn set_tensor(descriptor: u64, tensor: Tensor) -> Result<(), Fault> {
    *TENSORS.lock().get_mut(descriptor)? = tensor;
    Ok(())
}

/// Descriptors of filters, activations, dropout and transformations. What is set on them changes nothing here.
static DESCRIPTORS: HandleTable<()> = HandleTable::of("cudnn");

/// A generator of random numbers (cuRAND's XORWOW state, by `curand_kernel.h`), of which cuDNN keeps one for each thread that the device can hold.
const GENERATOR_BYTES: usize = 48;

/// Functions that make a descriptor, and those that destroy it.
macro_rules! descriptors {
    ($($create:ident $destroy:ident)*) => {
        exports! { answer;
            $(
                fn $create(descriptor: Out<u64>) {
                    descriptor.set(DESCRIPTORS.lock().insert(()))
                }

                fn $destroy(descriptor: Handle) {
                    DESCRIPTORS.lock().remove(descriptor)
                }
            )*
        }
    };
}

descriptors! {
    cudnnCreateFilterDescriptor cudnnDestroyFilterDescriptor
    cudnnCreateActivationDescriptor cudnnDestroyActivationDescriptor
    cudnnCreateDropoutDescriptor cudnnDestroyDropoutDescriptor
    cudnnCreateSpatialTransformerDescriptor cudnnDestroySpatialTransformerDescriptor
}

succeed! {
    cudnnSetFilterNdDescriptor cudnnSetActivationDescriptor cudnnSetDropoutDescriptor cudnnRestoreDropoutDescriptor
    cudnnSetSpatialTransformerNdDescriptor
}

exports! { answer;
    fn cudnnCreateTensorDescriptor(descriptor: Out<u64>) {
        descriptor.set(TENSORS.lock().insert(Tensor::default()))
    }

    fn cudnnDestroyTensorDescriptor(descriptor: Handle) {
        TENSORS.lock().remove(descriptor).map(drop)
    }

    fn cudnnDropoutGetStatesSize(_handle: Handle, bytes: Out<usize>) {
        let device = active_device()?;
        let threads = device.profile.multiprocessors.value * device.architecture.threads_per_multiprocessor;
        bytes.set(threads as usize * GENERATOR_BYTES)
    }

    fn cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
        _handle: Handle, _mode: i32, _operations: i32, _x: Handle, _z: Handle, _y: Handle, _scale: Handle, _activation: Handle, bytes: Out<usize>,
    ) {
        bytes.set(0)
    }

    fn cudnnGetBatchNormalizationBackwardExWorkspaceSize(
        _handle: Handle, _mode: i32, _operations: i32, _x: Handle, _y: Handle, _dy: Handle, _dz: Handle, _dx: Handle, _scale: Handle, _activation: Handle,
        bytes: Out<usize>,
    ) {
        bytes.set(0)
    }

    fn cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
        _handle: Handle, _mode: i32, _operations: i32, _activation: Handle, _x: Handle, bytes: Out<usize>,
    ) {
        bytes.set(0)
    }
}

/// Functions that compute: their first parameter is the handle, the others change nothing here.
macro_rules! computes {
    ($($name:ident)*) => {
        exports! { answer;
            $(
                fn $name(handle: Handle) {
                    run(handle, KernelWork::UNKNOWN)
                }
            )*
        }
    };
}

computes! {
    cudnnBatchNormalizationForwardTrainingEx cudnnBatchNormalizationForwardInference cudnnBatchNormalizationBackwardEx
    cudnnSpatialTfGridGeneratorForward cudnnSpatialTfGridGeneratorBackward cudnnSpatialTfSamplerForward cudnnSpatialTfSamplerBackward
    cudnnCTCLoss cudnnCTCLoss_v8
}

unsafe_exports! { answer;
    fn cudnnSetTensorNdDescriptor(descriptor: Handle, data_type: i32, dimensions: i32, sizes: Given<i32>, strides: Given<i32>) {
        let dimensions = usize::try_from(dimensions).map_err(|_| Fault::InvalidValue)?;
        set_tensor(descriptor, Tensor { data_type, sizes: sizes.to_vec(dimensions), strides: strides.to_vec(dimensions) })
    }

    fn cudnnGetTensorNdDescriptor(
        descriptor: Handle, wanted: i32, data_type: Out<i32>, dimensions: Out<i32>, sizes: Out<i32>, strides: Out<i32>,
    ) {
        let Tensor { data_type: own_type, sizes: own_sizes, strides: own_strides } = tensor(descriptor)?;
        let given = own_sizes.len().min(usize::try_from(wanted).map_err(|_| Fault::InvalidValue)?);
        data_type.set(own_type)?;
        dimensions.set(own_sizes.len() as i32)?;
        sizes.set_all(&own_sizes[..given]);
        strides.set_all(&own_strides[..given]);
        Ok(())
    }
}
