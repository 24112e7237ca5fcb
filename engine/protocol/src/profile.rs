//! Where the time of a stage went: what its operations on the GPU took.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use virtual_gpu_protocol::{WorkKind, WorkType};

use crate::Secs;

/// What all calls of one operation came to in a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationTime {
    /// libtorch's name, `aten::addmm`.
    pub name: String,
    /// Of which kind it is.
    pub kind: WorkKind,
    /// In which type.
    pub dtype: WorkType,
    /// How often it was called.
    pub calls: u64,
    /// How long it took, by the device's own events.
    pub secs: Secs,
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes read and written; of a copy, moved.
    pub bytes: f64,
}
