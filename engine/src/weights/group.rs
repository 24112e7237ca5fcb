//! Groups: the tensors of a model that live and move together, and how a group lies in one slab of bytes.

use engine_protocol::{Config, WeightDtype};
use tch::Kind;

use super::source::kind_of;
use crate::error::Result;
use crate::weights::Weights;

/// In which type a parameter is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The configuration's type.
    Compute,
    /// The configuration's type where it computes; where it waits, 8 bits if the configuration says so.
    Compressible,
    /// 8 bits, 4 of exponent and 3 of mantissa.
    Fp8,
    /// fp32 whatever the configuration says: norms and modulation, where the reference keeps fp32 too.
    Fp32,
}

impl Precision {
    fn kind(self, compute: Kind) -> Kind {
        match self {
            Precision::Compute | Precision::Compressible => compute,
            Precision::Fp8 => Kind::Float8e4m3fn,
            Precision::Fp32 => Kind::Float,
        }
    }
}

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
}

/// In which types a model's weights compute and wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightTypes {
    /// The configuration's type, that of arithmetic.
    pub compute: Kind,
    /// How those wait that are [compressible](Precision::Compressible).
    pub waiting: WeightDtype,
}

impl WeightTypes {
    /// All weights wait in the type that they compute in.
    pub fn plain(compute: Kind) -> Self {
        Self { compute, waiting: WeightDtype::AsStored }
    }

    /// What a configuration says.
    pub fn of(config: &Config) -> Self {
        Self { compute: kind_of(config.dtype), waiting: config.weight_dtype }
    }
}

/// Tensors that live and move together. A model lists its groups in execution order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What stands before each name in a checkpoint, `blocks.3.`; empty where names are whole.
    pub prefix: String,
    /// The tensors.
    pub params: Vec<Param>,
}

impl Group {
    /// A group without tensors yet.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), params: Vec::new() }
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
    pub fn compressible(mut self) -> Self {
        for param in &mut self.params {
            if param.precision == Precision::Compute && param.shape.len() == 2 {
                param.precision = Precision::Compressible;
            }
        }
        self
    }

    fn push(mut self, name: &str, shape: &[i64], precision: Precision, channels_last: bool) -> Self {
        self.params.push(Param { name: name.into(), shape: shape.into(), precision, channels_last });
        self
    }
}

/// Gives a model its groups, wherever they live. `index` is the place in the model's own list.
///
/// A model calls this once a group, in order, and holds on to nothing that it got: afterwards the bytes may hold another group.
pub trait Groups {
    /// Runs `run` with the group's weights on the device that computes.
    ///
    /// # Errors
    /// What `run` returns, or what moving the weights ran into.
    fn with<R>(&mut self, index: usize, run: impl FnOnce(&Weights) -> Result<R>) -> Result<R>
    where
        Self: Sized;
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
