//! Connectionist temporal classification: its descriptors, and work space by a model.
//!
//! # Note: the model of work space
//! Both ways through a sequence fill a table in fp32: a row for each time step of each sequence, a column for each label and for the blanks around
//! them, of the longest sequence of labels. NVIDIA does not document it, and it was not checked on a card.

use super::handle::answer;
use super::legacy::tensor;
use crate::device::Fault;
use crate::ffi::{Address, Given, Handle, Out};
use crate::handle_table::HandleTable;

/// Descriptors, each with the most labels that a sequence may have.
static DESCRIPTORS: HandleTable<i32> = HandleTable::of("cudnn");

/// For probabilities of time steps, sequences and classes.
fn workspace_bytes(probabilities: u64, most_labels: i32) -> Result<usize, Fault> {
    let sizes = tensor(probabilities)?.sizes;
    let [steps, sequences, ..] = sizes[..] else { return Err(Fault::InvalidValue) };
    let unsigned = |number: i32| usize::try_from(number).map_err(|_| Fault::InvalidValue);
    let columns = 2 * unsigned(most_labels)? + 1;
    let factors = [unsigned(steps)?, unsigned(sequences)?, columns, size_of::<f32>()];
    factors.into_iter().try_fold(2_usize, usize::checked_mul).ok_or(Fault::InvalidValue)
}

exports! { answer;
    fn cudnnCreateCTCLossDescriptor(descriptor: Out<u64>) {
        descriptor.set(DESCRIPTORS.lock().insert(0))
    }

    fn cudnnDestroyCTCLossDescriptor(descriptor: Handle) {
        DESCRIPTORS.lock().remove(descriptor).map(drop)
    }

    fn cudnnSetCTCLossDescriptorEx(descriptor: Handle, _data_type: i32, _normalization: i32, _gradients: i32) {
        DESCRIPTORS.lock().get(descriptor).map(drop)
    }

    fn cudnnSetCTCLossDescriptor_v9(descriptor: Handle, _data_type: i32, _normalization: i32, _gradients: i32, most_labels: i32) {
        *DESCRIPTORS.lock().get_mut(descriptor)? = most_labels;
        Ok(())
    }

    fn cudnnGetCTCLossWorkspaceSize_v8(
        _handle: Handle, _algorithm: i32, descriptor: Handle, probabilities: Handle, _gradients: Handle, bytes: Out<usize>,
    ) {
        let most_labels = *DESCRIPTORS.lock().get(descriptor)?;
        bytes.set(workspace_bytes(probabilities, most_labels)?)
    }
}

unsafe_exports! { answer;
    fn cudnnGetCTCLossWorkspaceSize(
        _handle: Handle, probabilities: Handle, _gradients: Handle, _labels: Address, label_counts: Given<i32>, _steps: Address, _algorithm: i32,
        descriptor: Handle, bytes: Out<usize>,
    ) {
        DESCRIPTORS.lock().get(descriptor)?;
        let sequences = tensor(probabilities)?.sizes.get(1).copied().unwrap_or(0);
        let counts = label_counts.to_vec(usize::try_from(sequences).map_err(|_| Fault::InvalidValue)?);
        bytes.set(workspace_bytes(probabilities, counts.into_iter().max().unwrap_or(0))?)
    }
}
