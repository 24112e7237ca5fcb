//! In which types weights compute and wait.

use engine_protocol::{Config, Dtype, LinearDtype, WeightDtype};
use tch::{Kind, Tensor};

/// libtorch's name of a type.
pub fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Fp32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::Fp16 => Kind::Half,
    }
}

/// Bytes of a tensor's elements.
pub(crate) fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// In which type a parameter is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The configuration's type.
    Compute,
    /// The configuration's type where it computes; where it waits, fewer bits if the configuration says so: those of its file, where that has it packed.
    Compressible(Option<WeightDtype>),
    /// The configuration's type where it computes; where it waits, as its file has it, if that has it packed.
    AsFiled(Option<WeightDtype>),
    /// 8 bits of this kind, with scales beside them.
    Scaled(Kind),
    /// Bytes of something else: of blocks.
    Bytes,
    /// fp32 whatever the configuration says: norms and modulation, where the reference keeps fp32 too.
    Fp32,
}

impl Precision {
    /// Whether a file may have it packed, and it stays so until it is used.
    pub fn may_wait_packed(self) -> bool {
        matches!(self, Precision::Compressible(_) | Precision::AsFiled(_))
    }

    /// The type in which it waits, where what is compressible waits as `waiting`; nothing where it waits as it is used.
    pub(super) fn packed(self, waiting: WeightDtype) -> Option<WeightDtype> {
        match self {
            Precision::Compressible(_) if waiting == WeightDtype::AsStored => None,
            Precision::Compressible(stored) => Some(stored.unwrap_or(waiting)),
            Precision::AsFiled(stored) => stored,
            _ => None,
        }
    }

    pub(super) fn kind(self, compute: Kind) -> Kind {
        match self {
            Precision::Compute | Precision::Compressible(_) | Precision::AsFiled(_) => compute,
            Precision::Scaled(kind) => kind,
            Precision::Bytes => Kind::Uint8,
            Precision::Fp32 => Kind::Float,
        }
    }
}

/// In which types a model's weights compute and wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightTypes {
    /// The configuration's type, that of arithmetic.
    pub compute: Kind,
    /// How those wait that are [compressible](Precision::Compressible).
    pub waiting: WeightDtype,
    /// In which type those multiply.
    pub linear: LinearDtype,
    /// Whether what is packed is unpacked by one kernel of ours.
    pub fused: bool,
}

impl WeightTypes {
    /// All weights wait in the type that they compute in.
    pub fn plain(compute: Kind) -> Self {
        Self { compute, waiting: WeightDtype::AsStored, linear: LinearDtype::Dtype, fused: false }
    }

    /// What a configuration says.
    pub fn of(config: &Config) -> Self {
        Self { compute: kind_of(config.dtype), waiting: config.weight_dtype, linear: config.linear_dtype, fused: config.fused.is_on() }
    }
}
