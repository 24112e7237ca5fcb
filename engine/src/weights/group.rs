//! Groups: the tensors of a model that live and move together, and how a group lies in one slab of bytes. Where slabs are is not known here.

use engine_protocol::WeightDtype;
use tch::Kind;

use super::{GroupName, Precision};

/// One tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Name within its group.
    pub name: String,
    /// Shape.
    pub shape: Vec<i64>,
    /// In which type it is stored.
    pub precision: Precision,
    /// The second side lies innermost, as the kernels of a convolution over channels-last activations read it.
    pub channels_last: bool,
    /// The ranks of LoRAs that are added to it, summed up; 0 where none is.
    pub lora_rank: i64,
}

/// Tensors that live and move together. A model lists its groups in execution order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What its model calls it.
    pub name: GroupName,
    /// What stands before each name in a checkpoint, `blocks.3.`; empty where names are whole.
    pub prefix: String,
    /// The tensors.
    pub params: Vec<Param>,
}

impl Group {
    /// A group without tensors yet.
    pub fn new(name: GroupName, prefix: impl Into<String>) -> Self {
        Self { name, prefix: prefix.into(), params: Vec::new() }
    }

    /// The name of one of its tensors in a checkpoint.
    pub fn key(&self, param: &Param) -> String {
        format!("{}{}", self.prefix, param.name)
    }

    /// Adds a tensor in the configuration's type.
    pub fn param(self, name: &str, shape: &[i64]) -> Self {
        self.push(name, shape, Precision::Compute, false)
    }

    /// Adds a tensor that stays in fp32.
    pub fn fp32(self, name: &str, shape: &[i64]) -> Self {
        self.push(name, shape, Precision::Fp32, false)
    }

    /// Adds `name.weight` and `name.bias` of a linear layer.
    pub fn linear(self, name: &str, inputs: i64, outputs: i64) -> Self {
        self.param(&format!("{name}.weight"), &[outputs, inputs]).param(&format!("{name}.bias"), &[outputs])
    }

    /// Adds `name.weight` and `name.bias` of a convolution, the weight channels last.
    pub fn conv(self, name: &str, inputs: i64, outputs: i64, kernel: &[i64]) -> Self {
        let shape = [&[outputs, inputs], kernel].concat();
        self.push(&format!("{name}.weight"), &shape, Precision::Compute, true).param(&format!("{name}.bias"), &[outputs])
    }

    /// The same group, its linear layers' weights [compressible](Precision::Compressible).
    pub fn compressible(self) -> Self {
        self.matrices(Precision::Compressible(None))
    }

    /// The same group, its linear layers' weights waiting [as their file has them](Precision::AsFiled).
    pub fn as_filed(self) -> Self {
        self.matrices(Precision::AsFiled(None))
    }

    fn matrices(mut self, precision: Precision) -> Self {
        for param in &mut self.params {
            if param.precision == Precision::Compute && param.shape.len() == 2 {
                param.precision = precision;
            }
        }
        self
    }

    /// The same group, where a file has some of those weights packed that [may wait so](Precision::may_wait_packed): what `dtype_of` gives for a tensor of that name, and
    /// nothing for one that is not packed there and waits as it is used.
    pub fn packed(mut self, dtype_of: impl Fn(&str) -> Option<WeightDtype>) -> Self {
        let prefix = self.prefix.clone();
        for param in &mut self.params {
            let dtype = dtype_of(&format!("{prefix}{}", param.name));
            param.precision = match (param.precision, dtype) {
                (Precision::Compressible(_), None) => Precision::Compute,
                (Precision::Compressible(_), stored) => Precision::Compressible(stored),
                (Precision::AsFiled(_), stored) => Precision::AsFiled(stored),
                (other, _) => other,
            };
        }
        self
    }

    /// The same group, with LoRAs of the ranks that `rank_of` gives for a tensor's name.
    pub fn with_loras(mut self, rank_of: impl Fn(&str) -> i64) -> Self {
        let prefix = self.prefix.clone();
        for param in &mut self.params {
            param.lora_rank = rank_of(&format!("{prefix}{}", param.name));
        }
        self
    }

    fn push(mut self, name: &str, shape: &[i64], precision: Precision, channels_last: bool) -> Self {
        self.params.push(Param { name: name.into(), shape: shape.into(), precision, channels_last, lora_rank: 0 });
        self
    }
}

/// Multiplications and additions of one group in a pass.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GroupWork {
    /// In products of matrices.
    pub gemm: f64,
    /// In attention.
    pub attention: f64,
}

/// Where each tensor of a group lies in one slab of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLayout {
    /// Offset in bytes and type of each tensor, in the group's order.
    pub places: Vec<(i64, Kind)>,
    /// Bytes of the slab.
    pub bytes: i64,
}

/// Tensors in a slab start at multiples of this: what libtorch's kernels want for their widest loads, with room to spare.
const ALIGNMENT: i64 = 256;

impl GroupLayout {
    /// Lays `group` out with `compute` as the configuration's type.
    pub fn new(group: &Group, compute: Kind) -> Self {
        let mut bytes = 0;
        let mut places = Vec::with_capacity(group.params.len());
        for param in &group.params {
            let kind = param.precision.kind(compute);
            places.push((bytes, kind));
            let size = param.shape.iter().product::<i64>() * kind.elt_size_in_bytes() as i64;
            bytes += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        }
        Self { places, bytes }
    }
}
