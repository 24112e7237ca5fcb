//! Recurrent networks: where each weight lies is cuDNN's own order, since PyTorch's parameters are views of one buffer; space to work in is a model.
//!
//! # Note: the model of work space and reserve
//! A direction of a layer turns its input into gates by one product over all time steps, and goes back the same way: work space for the gates of all
//! time steps in all directions of one layer. For the way back it keeps, of every layer, what the derivatives need: the gates, the cell state
//! of an LSTM and the recurrent half of a GRU's last gate, and the outputs that are the next layer's input. NVIDIA documents neither, and neither
//! was checked on a card.

use super::handle::{answer, run};
use super::legacy::{Tensor, set_tensor};
use crate::device::{Fault, KernelWork};
use crate::ffi::{Address, Given, Handle, Out};
use crate::handle_table::HandleTable;

/// `cudnnRNNMode_t`, as far as it is told apart here.
const LSTM: i32 = 2;
const GRU: i32 = 3;
/// `cudnnRNNBiasMode_t`: biases with the input's weights, with both, with the recurrent ones.
const BIAS_OF_INPUT: i32 = 1;
const BIAS_OF_BOTH: i32 = 2;
const BIAS_OF_RECURRENCE: i32 = 3;
/// `CUDNN_LINEAR_INPUT`.
const LINEAR_INPUT: i32 = 0;
/// `CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED`.
const PACKED: i32 = 1;
/// `CUDNN_FWD_MODE_TRAINING`.
const TRAINING: i32 = 1;
/// Larger networks are refused: no weights of theirs would fit anywhere.
const MOST_UNITS: i32 = 1 << 20;
const MOST_LAYERS: i32 = 1 << 10;

/// Bytes of an element of a `cudnnDataType_t`.
fn element_bytes(data_type: i32) -> Result<u64, Fault> {
    Ok(match data_type {
        0 => 4,
        1 => 8,
        2 | 9 => 2, // fp16, bf16
        _ => return Err(Fault::NotSupported),
    })
}

/// A network.
#[derive(Debug, Clone, Copy, Default)]
struct Network {
    mode: i32,
    bias: i32,
    directions: u64,
    data_type: i32,
    input: u64,
    hidden: u64,
    /// What leaves a layer: the hidden state, or a projection of it.
    output: u64,
    layers: u64,
}

/// A matrix or a bias in the buffer of all weights.
#[derive(Debug, Clone, Copy, PartialEq)]
struct WeightPlace {
    /// In elements.
    offset: u64,
    rows: u64,
    columns: u64,
}

impl Network {
    /// Matrices that a direction of a layer applies to its input; as many more it applies to its state.
    fn gates(&self) -> u64 {
        match self.mode {
            LSTM => 4,
            GRU => 3,
            _ => 1,
        }
    }

    fn is_projected(&self) -> bool {
        self.output != self.hidden
    }

    fn layer_input(&self, layer: u64) -> u64 {
        if layer == 0 { self.input } else { self.output * self.directions }
    }

    /// Elements of the matrices of one direction of a layer.
    fn matrix_elements(&self, layer: u64) -> u64 {
        let projection = if self.is_projected() { self.output * self.hidden } else { 0 };
        self.gates() * self.hidden * (self.layer_input(layer) + self.output) + projection
    }

    /// Biases of one direction of a layer: one for each matrix that has one.
    fn biases(&self) -> u64 {
        match self.bias {
            BIAS_OF_INPUT | BIAS_OF_RECURRENCE => self.gates(),
            BIAS_OF_BOTH => 2 * self.gates(),
            _ => 0,
        }
    }

    fn all_matrices(&self) -> u64 {
        (0..self.layers).map(|layer| self.matrix_elements(layer) * self.directions).sum()
    }

    fn elements(&self) -> u64 {
        self.all_matrices() + self.layers * self.directions * self.biases() * self.hidden
    }

    /// A matrix by its number in one direction of a layer: those for the input, for the state, and the projection. All matrices of the network lie
    /// before its biases.
    fn matrix(&self, pseudo_layer: u64, number: u64) -> Option<WeightPlace> {
        let (layer, direction) = (pseudo_layer / self.directions, pseudo_layer % self.directions);
        let before: u64 = (0..layer).map(|layer| self.matrix_elements(layer) * self.directions).sum();
        let (input, gates) = (self.layer_input(layer), self.gates());
        let start = before + direction * self.matrix_elements(layer);
        let state = start + gates * self.hidden * input;
        Some(match number {
            number if number < gates => WeightPlace { offset: start + number * self.hidden * input, rows: self.hidden, columns: input },
            number if number < 2 * gates => {
                WeightPlace { offset: state + (number - gates) * self.hidden * self.output, rows: self.hidden, columns: self.output }
            }
            number if number == 2 * gates && self.is_projected() => {
                WeightPlace { offset: state + gates * self.hidden * self.output, rows: self.output, columns: self.hidden }
            }
            _ => return None,
        })
    }

    /// The bias that goes with a matrix.
    fn bias(&self, pseudo_layer: u64, number: u64) -> Option<WeightPlace> {
        let gates = self.gates();
        let place = match self.bias {
            BIAS_OF_BOTH => Some(number).filter(|&number| number < 2 * gates),
            BIAS_OF_INPUT => Some(number).filter(|&number| number < gates),
            BIAS_OF_RECURRENCE => number.checked_sub(gates).filter(|&place| place < gates),
            _ => None,
        }?;
        let offset = self.all_matrices() + (pseudo_layer * self.biases() + place) * self.hidden;
        Some(WeightPlace { offset, rows: self.hidden, columns: 1 })
    }

    /// Work space and reserve in elements, by the model above.
    fn space(&self, data: Data, is_training: bool) -> (u64, u64) {
        let gates = data.steps.saturating_mul(self.directions * self.gates() * self.hidden);
        let states = match self.mode {
            LSTM | GRU => data.steps.saturating_mul(self.directions * self.hidden),
            _ => 0,
        };
        let handed_on = data.steps.saturating_mul(self.directions * self.output * self.layers.saturating_sub(1));
        (gates, if is_training { self.layers.saturating_mul(gates.saturating_add(states)).saturating_add(handed_on) } else { 0 })
    }
}

/// What goes through a network: time steps of all sequences together.
#[derive(Debug, Clone, Copy, Default)]
struct Data {
    steps: u64,
}

static NETWORKS: HandleTable<Network> = HandleTable::of("cudnn");
static DATA: HandleTable<Data> = HandleTable::of("cudnn");

fn unsigned(number: i32) -> Result<u64, Fault> {
    u64::try_from(number).map_err(|_| Fault::InvalidValue)
}

exports! { answer;
    fn cudnnCreateRNNDescriptor(descriptor: Out<u64>) {
        descriptor.set(NETWORKS.lock().insert(Network::default()))
    }

    fn cudnnDestroyRNNDescriptor(descriptor: Handle) {
        NETWORKS.lock().remove(descriptor).map(drop)
    }

    fn cudnnSetRNNDescriptor_v8(
        descriptor: Handle, _algorithm: i32, mode: i32, bias: i32, direction: i32, input_mode: i32, data_type: i32, _math_precision: i32,
        _math_type: i32, input: i32, hidden: i32, output: i32, layers: i32, _dropout: Handle, _flags: u32,
    ) {
        if input_mode != LINEAR_INPUT {
            return Err(Fault::NotSupported);
        }
        element_bytes(data_type)?;
        if input.max(hidden).max(output) > MOST_UNITS || layers > MOST_LAYERS || direction > 1 {
            return Err(Fault::InvalidValue);
        }
        let directions = 1 + unsigned(direction)?;
        let network = Network {
            mode, bias, directions, data_type, input: unsigned(input)?, hidden: unsigned(hidden)?, output: unsigned(output)?, layers: unsigned(layers)?,
        };
        *NETWORKS.lock().get_mut(descriptor)? = network;
        Ok(())
    }

    fn cudnnCreateRNNDataDescriptor(descriptor: Out<u64>) {
        descriptor.set(DATA.lock().insert(Data::default()))
    }

    fn cudnnDestroyRNNDataDescriptor(descriptor: Handle) {
        DATA.lock().remove(descriptor).map(drop)
    }

    fn cudnnGetRNNWeightSpaceSize(_handle: Handle, network: Handle, bytes: Out<usize>) {
        let network = *NETWORKS.lock().get(network)?;
        bytes.set((network.elements() * element_bytes(network.data_type)?) as usize)
    }

    fn cudnnGetRNNWeightParams(
        _handle: Handle, network: Handle, pseudo_layer: i32, bytes: usize, weights: Address, number: i32, matrix: Handle, matrix_address: Out<u64>,
        bias: Handle, bias_address: Out<u64>,
    ) {
        let network = *NETWORKS.lock().get(network)?;
        let size = element_bytes(network.data_type)?;
        let (pseudo_layer, number) = (unsigned(pseudo_layer)?, unsigned(number)?);
        if pseudo_layer >= network.layers * network.directions || (bytes as u64) < network.elements() * size {
            return Err(Fault::InvalidValue);
        }
        for (part, descriptor, address) in
            [(network.matrix(pseudo_layer, number), matrix, matrix_address), (network.bias(pseudo_layer, number), bias, bias_address)]
        {
            // Null and no dimensions are how cuDNN says that there is none.
            let sizes = part.map_or(vec![0; 3], |part| vec![1, part.rows as i32, part.columns as i32]);
            if descriptor != 0 {
                set_tensor(descriptor, Tensor { data_type: network.data_type, strides: vec![sizes[1] * sizes[2], sizes[2], 1], sizes })?;
            }
            address.set_if_wanted(part.map_or(0, |part| weights + part.offset * size));
        }
        Ok(())
    }

    fn cudnnGetRNNTempSpaceSizes(_handle: Handle, network: Handle, mode: i32, data: Handle, workspace: Out<usize>, reserve: Out<usize>) {
        let network = *NETWORKS.lock().get(network)?;
        let (work, kept) = network.space(*DATA.lock().get(data)?, mode == TRAINING);
        let size = element_bytes(network.data_type)?;
        workspace.set_if_wanted(work.saturating_mul(size) as usize);
        reserve.set_if_wanted(kept.saturating_mul(size) as usize);
        Ok(())
    }
}

/// Functions that compute: what comes after the handle and the network changes nothing here.
macro_rules! computes {
    ($($name:ident)*) => {
        exports! { answer;
            $(
                fn $name(handle: Handle, network: Handle) {
                    NETWORKS.lock().get(network)?;
                    run(handle, KernelWork::UNKNOWN)
                }
            )*
        }
    };
}

computes! { cudnnRNNForward cudnnRNNBackwardData_v8 cudnnRNNBackwardWeights_v8 }

unsafe_exports! { answer;
    fn cudnnSetRNNDataDescriptor(
        descriptor: Handle, _data_type: i32, layout: i32, longest: i32, batch: i32, _vector: i32, lengths: Given<i32>, _padding: Address,
    ) {
        let lengths = lengths.to_vec(unsigned(batch)? as usize);
        if lengths.iter().any(|length| !(0..=longest).contains(length)) {
            return Err(Fault::InvalidValue);
        }
        let steps = if layout == PACKED { lengths.into_iter().map(unsigned).sum::<Result<u64, Fault>>()? } else { unsigned(longest)? * unsigned(batch)? };
        DATA.lock().get_mut(descriptor)?.steps = steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lstm() -> Network {
        Network { mode: LSTM, bias: BIAS_OF_BOTH, directions: 2, data_type: 0, input: 5, hidden: 3, output: 3, layers: 2 }
    }

    #[test]
    fn weights_lie_side_by_side_and_fill_the_buffer() {
        for network in [lstm(), Network { output: 2, ..lstm() }, Network { mode: GRU, bias: BIAS_OF_RECURRENCE, ..lstm() }] {
            let numbers = 0..2 * network.gates() + 1;
            let pseudo_layers = || 0..network.layers * network.directions;
            let matrices = pseudo_layers().flat_map(|layer| numbers.clone().filter_map(move |number| network.matrix(layer, number)));
            let biases = pseudo_layers().flat_map(|layer| numbers.clone().filter_map(move |number| network.bias(layer, number)));
            let mut end = 0;
            for part in matrices.chain(biases) {
                assert_eq!(part.offset, end, "{network:?}");
                end += part.rows * part.columns;
            }
            assert_eq!(end, network.elements(), "{network:?}");
        }
    }

    #[test]
    fn a_projection_is_counted() {
        // Four gates of 3 by 5 and 3 by 2, a projection of 2 by 3; above, an input of two directions of 2; and eight biases of 3 in each of four.
        let below = 4 * 3 * (5 + 2) + 2 * 3;
        let above = 4 * 3 * (4 + 2) + 2 * 3;
        assert_eq!(Network { output: 2, ..lstm() }.elements(), 2 * (below + above) + 4 * 8 * 3);
    }

    #[test]
    fn what_is_kept_for_the_way_back() {
        // 10 time steps of all sequences, 2 directions of 3: four gates and a cell state in each of two layers, and what the lower one hands on.
        let (work, kept) = lstm().space(Data { steps: 10 }, true);
        assert_eq!((work, kept), (10 * 2 * 4 * 3, 2 * 10 * 2 * 5 * 3 + 10 * 2 * 3));
        assert_eq!(lstm().space(Data { steps: 10 }, false), (work, 0));
    }
}
