//! Where the values of weights come from: a checkpoint file, a seed, or nowhere.

use std::path::Path;

use engine_protocol::Dtype;
use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::weights::{Group, Param};

/// libtorch's name of a type.
pub fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Fp32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::Fp16 => Kind::Half,
    }
}

/// Where the values of weights come from.
#[derive(Debug)]
pub enum Source {
    /// Nowhere: tensors are allocated and never written. For a device that computes nothing.
    Empty,
    /// A seed and the tensor's name: the same tensor whatever else is loaded, in whichever order.
    Seeded(i64),
    /// One safetensors file.
    File {
        /// Its path, for messages.
        path: String,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

impl Source {
    /// The safetensors file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.display().to_string(), source })?;
        Ok(Self::File { path: path.display().to_string(), bytes })
    }

    /// Writes the values of `param` of `group` into `tensor`, which has its shape and lives on the CPU.
    ///
    /// # Errors
    /// A tensor that the file lacks, or that has another shape or a type that is not floating point there.
    pub fn fill(&self, group: &Group, param: &Param, tensor: &mut Tensor) -> Result<()> {
        let key = format!("{}{}", group.prefix, param.name);
        match self {
            Source::Empty => Ok(()),
            Source::Seeded(seed) => fill_seeded(*seed, &key, tensor),
            Source::File { path, bytes } => fill_from_file(path, bytes, &key, tensor),
        }
    }
}

/// Values that keep activations of the size of their inputs: uniform, with the variance of 1 / inputs. Norm weights are near one.
fn fill_seeded(seed: i64, key: &str, tensor: &mut Tensor) -> Result<()> {
    let shape = tensor.size();
    let inputs = shape.iter().skip(1).product::<i64>().max(1);
    // A uniform distribution over [-a, a] has variance a^2 / 3.
    let (centre, bound) = if shape.len() > 1 { (0.0, (3.0 / inputs as f64).sqrt()) } else { (norm_centre(key), 0.1) };
    let mut numbers = ChaCha8Rng::seed_from_u64((seed as u64).wrapping_mul(0x9E37_79B9) ^ fnv1a(key));
    let range = Uniform::new((centre - bound) as f32, (centre + bound) as f32).expect("the bounds are finite and in order");
    let values: Vec<f32> = range.sample_iter(&mut numbers).take(tensor.numel()).collect();
    tensor.f_copy_(&Tensor::f_from_slice(&values)?.f_view(shape.as_slice())?)?;
    Ok(())
}

/// One-dimensional weights are those of norms; biases are not.
fn norm_centre(key: &str) -> f64 {
    if key.ends_with("bias") { 0.0 } else { 1.0 }
}

fn fill_from_file(path: &str, bytes: &[u8], key: &str, tensor: &mut Tensor) -> Result<()> {
    let bad = |what: String| Error::Input(format!("{path}: {key}: {what}"));
    let file = SafeTensors::deserialize(bytes).map_err(|error| Error::Input(format!("{path}: not a safetensors file: {error}")))?;
    let view = file.tensor(key).map_err(|error| bad(error.to_string()))?;
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    // A norm's weight may have sides of one in the checkpoint (`[C, 1, 1, 1]`) that mean nothing.
    if shape.iter().product::<i64>() != tensor.size().iter().product::<i64>() {
        return Err(bad(format!("shape is {shape:?}, expected {:?}", tensor.size())));
    }
    let kind = match view.dtype() {
        safetensors::Dtype::F32 => Kind::Float,
        safetensors::Dtype::F16 => Kind::Half,
        safetensors::Dtype::BF16 => Kind::BFloat16,
        other => return Err(bad(format!("type is {other:?}, expected a floating-point type of 16 or 32 bits"))),
    };
    let stored = Tensor::f_from_data_size(view.data(), &shape, kind)?;
    tensor.f_copy_(&stored.f_view(tensor.size().as_slice())?)?;
    Ok(())
}

/// Hash of a name (Fowler, Noll, Vo, 1a, 64 bits).
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}
