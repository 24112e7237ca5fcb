//! The backend interface: descriptors that keep what is set on them and give it back.
//!
//! A descriptor that is set as an attribute of another one is kept as it was then: callers destroy the parts as soon as
//! the whole is made. The answers that cuDNN itself would make are these: the heuristics know two engines, both without
//! knobs: one on the tensor cores with the workspace that `workspace` says, noted as such, and one with neither.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::handle::{answer, run};
use super::workspace::{Computes, Convolution, Operand};
use crate::device::{Fault, KernelWork};
use crate::devices::active_device;
use crate::ffi::{Given, Handle, Out, Untyped};
use crate::first_use;
use crate::handle_table::HandleTable;

/// `cudnnBackendDescriptorType_t`, as far as it is told apart here.
mod kind {
    pub(super) const ENGINE: i32 = 2;
    pub(super) const ENGINE_CONFIG: i32 = 3;
    pub(super) const EXECUTION_PLAN: i32 = 5;
    pub(super) const CONVOLUTION_FORWARD: i32 = 10;
    pub(super) const CONVOLUTION_BACKWARD_FILTER: i32 = 11;
    pub(super) const CONVOLUTION_BACKWARD_DATA: i32 = 12;
}

/// `cudnnBackendAttributeName_t`, as far as it is told apart here.
mod attribute {
    pub(super) const HEURISTICS_GRAPH: i32 = 201;
    pub(super) const HEURISTICS_RESULTS: i32 = 202;
    pub(super) const CONFIG_ENGINE: i32 = 300;
    pub(super) const CONFIG_WORKSPACE_SIZE: i32 = 303;
    pub(super) const CONFIG_SHARED_MEMORY: i32 = 304;
    pub(super) const PLAN_CONFIG: i32 = 401;
    pub(super) const PLAN_WORKSPACE_SIZE: i32 = 402;
    pub(super) const FORWARD_W_X_Y: [i32; 3] = [703, 704, 705];
    pub(super) const BACKWARD_DATA_W_DX_DY: [i32; 3] = [709, 710, 711];
    pub(super) const BACKWARD_FILTER_DW_X_DY: [i32; 3] = [715, 716, 717];
    pub(super) const GRAPH_OPERATIONS: i32 = 801;
    pub(super) const TENSOR_DATA_TYPE: i32 = 901;
    pub(super) const TENSOR_DIMENSIONS: i32 = 902;
    pub(super) const TENSOR_STRIDES: i32 = 903;
    pub(super) const ENGINE_GRAPH: i32 = 1300;
    pub(super) const ENGINE_INDEX: i32 = 1301;
    pub(super) const ENGINE_NOTES: i32 = 1303;
}

/// `CUDNN_NUMERICAL_NOTE_TENSOR_CORE`.
const TENSOR_CORE: i32 = 0;
/// `CUDNN_TYPE_BACKEND_DESCRIPTOR`.
const DESCRIPTOR_TYPE: i32 = 15;

/// Bytes of one element of a `cudnnBackendAttributeType_t`; all others are enumerations.
fn element_bytes(element_type: i32) -> usize {
    match element_type {
        2 | 24 => 1,             // boolean, character
        0 | 3 | 5 | 6 | 15 => 8, // handle, int64, double, pointer, descriptor
        26 => 16,                // fraction
        _ => 4,
    }
}

#[derive(Clone)]
enum Value {
    Bytes(Vec<u8>),
    Descriptors(Vec<Arc<Descriptor>>),
}

impl Value {
    fn int64(value: i64) -> Self {
        Self::Bytes(value.to_ne_bytes().to_vec())
    }
}

#[derive(Clone)]
struct Descriptor {
    kind: i32,
    attributes: BTreeMap<i32, Value>,
}

impl Descriptor {
    fn new(kind: i32) -> Self {
        Self { kind, attributes: BTreeMap::new() }
    }

    fn with(mut self, attribute: i32, value: Value) -> Self {
        self.attributes.insert(attribute, value);
        self
    }

    fn descriptors(&self, attribute: i32) -> &[Arc<Self>] {
        match self.attributes.get(&attribute) {
            Some(Value::Descriptors(descriptors)) => descriptors,
            _ => &[],
        }
    }

    fn int64s(&self, attribute: i32) -> Vec<i64> {
        match self.attributes.get(&attribute) {
            Some(Value::Bytes(bytes)) => bytes.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok()).map(i64::from_ne_bytes).collect(),
            _ => Vec::new(),
        }
    }

    fn enumeration(&self, attribute: i32) -> i32 {
        match self.attributes.get(&attribute) {
            Some(Value::Bytes(bytes)) => bytes.first_chunk().copied().map_or(0, i32::from_ne_bytes),
            _ => 0,
        }
    }

    /// What cuDNN makes of a finished descriptor: a plan has the workspace of its configuration.
    fn finalize(&mut self) {
        if self.kind == kind::EXECUTION_PLAN {
            first_use::plan();
            let workspace = self
                .descriptors(attribute::PLAN_CONFIG)
                .first()
                .and_then(|config| config.attributes.get(&attribute::CONFIG_WORKSPACE_SIZE));
            let workspace = workspace.cloned().unwrap_or_else(|| Value::int64(0));
            self.attributes.insert(attribute::PLAN_WORKSPACE_SIZE, workspace);
        }
    }

    /// What the heuristics answer, best first: the kernel on the tensor cores where there is one, and the one that needs neither them nor workspace.
    fn engine_configurations(&self, major: u32) -> Vec<Self> {
        let graphs = self.descriptors(attribute::HEURISTICS_GRAPH);
        let operations = graphs.iter().flat_map(|graph| graph.descriptors(attribute::GRAPH_OPERATIONS));
        let on_tensor_cores =
            operations.filter_map(|operation| operation.convolution()?.tensor_core_workspace_bytes(major)).reduce(u64::saturating_add);
        let on_tensor_cores = on_tensor_cores.map(|workspace| engine_configuration(graphs, 1, Some(TENSOR_CORE), workspace));
        on_tensor_cores.into_iter().chain([engine_configuration(graphs, 0, None, 0)]).collect()
    }

    /// What a plan comes to: its first operation, where that is a convolution.
    fn work(&self) -> KernelWork {
        let config = self.descriptors(attribute::PLAN_CONFIG).first();
        let engine = config.and_then(|config| config.descriptors(attribute::CONFIG_ENGINE).first());
        let graph = engine.and_then(|engine| engine.descriptors(attribute::ENGINE_GRAPH).first());
        let operation = graph.and_then(|graph| graph.descriptors(attribute::GRAPH_OPERATIONS).first());
        operation.and_then(|operation| operation.convolution()).map_or(KernelWork::UNKNOWN, |convolution| convolution.work())
    }

    /// The convolution that this operation is, if it is one.
    fn convolution(&self) -> Option<Convolution> {
        let (computes, attributes) = match self.kind {
            kind::CONVOLUTION_FORWARD => (Computes::Output, attribute::FORWARD_W_X_Y),
            kind::CONVOLUTION_BACKWARD_DATA => (Computes::GradientOfInput, attribute::BACKWARD_DATA_W_DX_DY),
            kind::CONVOLUTION_BACKWARD_FILTER => (Computes::GradientOfFilter, attribute::BACKWARD_FILTER_DW_X_DY),
            _ => return None,
        };
        let tensors = attributes.iter().filter_map(|&attribute| self.descriptors(attribute).first());
        let operands: Vec<_> = tensors
            .map(|tensor| Operand {
                data_type: tensor.enumeration(attribute::TENSOR_DATA_TYPE),
                sizes: tensor.int64s(attribute::TENSOR_DIMENSIONS),
                strides: tensor.int64s(attribute::TENSOR_STRIDES),
            })
            .collect();
        Some(Convolution { computes, operands: operands.try_into().ok()? })
    }
}

fn engine_configuration(graphs: &[Arc<Descriptor>], index: i64, note: Option<i32>, workspace_bytes: u64) -> Descriptor {
    let engine = Descriptor::new(kind::ENGINE)
        .with(attribute::ENGINE_GRAPH, Value::Descriptors(graphs.to_vec()))
        .with(attribute::ENGINE_INDEX, Value::int64(index))
        .with(attribute::ENGINE_NOTES, Value::Bytes(note.map(i32::to_ne_bytes).into_iter().flatten().collect()));
    Descriptor::new(kind::ENGINE_CONFIG)
        .with(attribute::CONFIG_ENGINE, Value::Descriptors(vec![Arc::new(engine)]))
        .with(attribute::CONFIG_WORKSPACE_SIZE, Value::int64(workspace_bytes as i64))
        .with(attribute::CONFIG_SHARED_MEMORY, Value::Bytes(0_i32.to_ne_bytes().to_vec()))
}

static DESCRIPTORS: HandleTable<Descriptor> = HandleTable::of("cudnn");

exports! { answer;
    fn cudnnBackendCreateDescriptor(kind: i32, handle: Out<u64>) {
        handle.set(DESCRIPTORS.lock().insert(Descriptor::new(kind)))
    }

    fn cudnnBackendDestroyDescriptor(handle: Handle) {
        DESCRIPTORS.lock().remove(handle).map(drop)
    }

    fn cudnnBackendFinalize(handle: Handle) {
        DESCRIPTORS.lock().get_mut(handle)?.finalize();
        Ok(())
    }

    fn cudnnBackendExecute(handle: Handle, plan: Handle, _variant_pack: Handle) {
        let work = DESCRIPTORS.lock().get(plan)?.work();
        run(handle, work)
    }
}

unsafe_exports! { answer;
    fn cudnnBackendSetAttribute(handle: Handle, attribute: i32, element_type: i32, count: i64, elements: Given<u8>) {
        let count = usize::try_from(count).map_err(|_| Fault::InvalidValue)?;
        let bytes = count.checked_mul(element_bytes(element_type)).ok_or(Fault::InvalidValue)?;
        let bytes = elements.to_vec(bytes);
        let mut descriptors = DESCRIPTORS.lock();
        let value = if element_type == DESCRIPTOR_TYPE {
            let handles = bytes.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok()).map(u64::from_ne_bytes);
            Value::Descriptors(handles.map(|handle| Ok(Arc::new(descriptors.get(handle)?.clone()))).collect::<Result<_, Fault>>()?)
        } else {
            Value::Bytes(bytes)
        };
        descriptors.get_mut(handle)?.attributes.insert(attribute, value);
        Ok(())
    }

    fn cudnnBackendGetAttribute(
        handle: Handle, attribute: i32, element_type: i32, wanted: i64, count: Out<i64>, elements: Untyped,
    ) {
        let wanted = usize::try_from(wanted).map_err(|_| Fault::InvalidValue)?;
        let major = active_device()?.architecture.major;
        let mut descriptors = DESCRIPTORS.lock();
        let descriptor = descriptors.get(handle)?;
        let value = if attribute == attribute::HEURISTICS_RESULTS {
            Some(Value::Descriptors(descriptor.engine_configurations(major).into_iter().map(Arc::new).collect()))
        } else {
            descriptor.attributes.get(&attribute).cloned()
        };
        match value {
            // Notes and knobs that no engine here has.
            None => count.set_if_wanted(0),
            Some(Value::Bytes(bytes)) => {
                let size = element_bytes(element_type);
                count.set_if_wanted((bytes.len() / size) as i64);
                elements.set_if_wanted(&bytes[..bytes.len().min(wanted.saturating_mul(size))]);
            }
            // The caller has made the descriptors that are to be filled.
            Some(Value::Descriptors(parts)) => {
                count.set_if_wanted(parts.len() as i64);
                let places = elements.to_vec::<u64>(wanted.min(parts.len()));
                for (place, part) in places.into_iter().zip(parts) {
                    *descriptors.get_mut(place)? = (*part).clone();
                }
            }
        }
        Ok(())
    }
}
