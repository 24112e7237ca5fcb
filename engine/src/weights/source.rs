//! Where the values of weights come from: a checkpoint's files, a seed, or nowhere.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::weights::{Change, Group, Param, StoredTensor, TensorStore};

/// Where the values of weights come from. Cheap to clone: the files are shared.
#[derive(Debug, Clone)]
pub enum Source {
    /// Nowhere: tensors are allocated and never written. For a device that computes nothing.
    Empty,
    /// A seed and the tensor's name: the same tensor whatever else is loaded, in whichever order.
    Seeded(i64),
    /// Files. They were held against the model before: see `checkpoint`.
    Stored(Arc<TensorStore>),
}

impl Source {
    /// The file at `path`, as [`TensorStore::open`] reads it.
    ///
    /// # Errors
    /// Its errors.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::Stored(Arc::new(TensorStore::open(path)?)))
    }

    /// What is not finite in the files, where there are any: the first tensor that is not, with its file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn not_finite(&self) -> Result<Option<String>> {
        let Source::Stored(store) = self else { return Ok(None) };
        for (_, tensor) in store.iter() {
            if let Some(value) = tensor.not_finite()? {
                return Ok(Some(tensor.error(&format!("this weight holds {value}")).to_string()));
            }
        }
        Ok(None)
    }

    /// Where files have `param` of `group`; nothing where values come from elsewhere.
    ///
    /// # Errors
    /// A tensor that the files lack, or that has another shape or a type that is not floating point there.
    pub(super) fn stored(&self, group: &Group, param: &Param) -> Result<Option<&StoredTensor>> {
        let Self::Stored(store) = self else { return Ok(None) };
        let key = group.key(param);
        let stored = store.get(&key).ok_or_else(|| Error::Input(format!("{key}: no such tensor among the weights")))?;
        check_stored(param, stored)?;
        Ok(Some(stored))
    }

    /// What is added to the tensor of that full name, beside the values of its own.
    pub(super) fn changes(&self, key: &str) -> &[Change] {
        match self {
            Self::Stored(store) => store.changes(key),
            _ => &[],
        }
    }

    /// Writes the values of `param` of `group` into `tensor`, which has its shape and is where they will live, with what is added to them: summed in fp32, and rounded once.
    ///
    /// # Errors
    /// A tensor that the files lack, or that has another shape or a type that is not floating point there.
    pub fn fill(&self, group: &Group, param: &Param, tensor: &mut Tensor) -> Result<()> {
        let changes = self.changes(&group.key(param));
        if changes.is_empty() {
            return self.fill_unchanged(group, param, tensor);
        }
        let mut sum = Tensor::f_empty(param.shape.as_slice(), (Kind::Float, Device::Cpu))?;
        self.fill_unchanged(group, param, &mut sum)?;
        changes.iter().try_for_each(|change| change.add_to(&sum))?;
        Ok(tensor.f_copy_(&sum)?)
    }

    /// As [`Source::fill`], without what is added.
    ///
    /// # Errors
    /// Its errors.
    pub(super) fn fill_unchanged(&self, group: &Group, param: &Param, tensor: &mut Tensor) -> Result<()> {
        match (self, self.stored(group, param)?) {
            (Source::Seeded(seed), _) => fill_seeded(*seed, &group.key(param), tensor),
            (_, Some(stored)) => stored.copy_to(tensor),
            (_, None) => Ok(()),
        }
    }
}

/// Values that keep activations of the size of their inputs: uniform, with the variance of 1 / inputs. Norm weights are near one.
pub(super) fn fill_seeded(seed: i64, key: &str, tensor: &mut Tensor) -> Result<()> {
    let shape = tensor.size();
    let inputs = shape.iter().skip(1).product::<i64>().max(1);
    // A uniform distribution over [-a, a] has variance a^2 / 3.
    let (centre, bound) = if shape.len() > 1 { (0.0, (3.0 / inputs as f64).sqrt()) } else { (norm_centre(key), 0.1) };
    let numbers = ChaCha8Rng::seed_from_u64((seed as u64).wrapping_mul(0x9E37_79B9) ^ fnv1a(key));
    let range = Uniform::new((centre - bound) as f32, (centre + bound) as f32).expect("the bounds are finite and in order");
    let count = tensor.numel();
    if count <= DRAWN_AT_A_TIME {
        tensor.f_copy_(&Tensor::f_from_slice(&drawn(&numbers, range, 0..count))?.f_view(shape.as_slice())?)?;
        return Ok(());
    }
    // A part at a time: as fp32 on their way, values of a text encoder's largest tensor would take gigabytes.
    let flat = tensor.f_view([-1])?;
    for begin in (0..count).step_by(DRAWN_AT_A_TIME) {
        let part = begin..count.min(begin + DRAWN_AT_A_TIME);
        flat.f_narrow(0, begin as i64, part.len() as i64)?.f_copy_(&Tensor::f_from_slice(&drawn(&numbers, range, part))?)?;
    }
    Ok(())
}

/// Values on their way at once: 64 MiB of them, and as many again as they become a tensor.
const DRAWN_AT_A_TIME: usize = 16 << 20;

/// Those values of `range` that `numbers` gives, drawn by all cores: a model of 14 billion parameters has as many. A value takes one word of the generator, so
/// each core begins at the word of its own first value, and the values are those that one core would draw.
fn drawn(numbers: &ChaCha8Rng, range: Uniform<f32>, which: Range<usize>) -> Vec<f32> {
    let mut values = vec![0.0; which.len()];
    values.par_chunks_mut(DRAWN_AT_ONCE).enumerate().for_each(|(index, chunk)| {
        let mut numbers = numbers.clone();
        numbers.set_word_pos((which.start + index * DRAWN_AT_ONCE) as u128);
        chunk.iter_mut().for_each(|value| *value = range.sample(&mut numbers));
    });
    values
}

/// Values that a core draws before it takes the next ones: some milliseconds of work.
const DRAWN_AT_ONCE: usize = 1 << 18;

/// One-dimensional weights are those of norms; biases are not.
fn norm_centre(key: &str) -> f64 {
    if key.ends_with("bias") { 0.0 } else { 1.0 }
}

/// Refuses a stored tensor that cannot be the values of `param`.
///
/// # Errors
/// Another shape, or a type that is no floating-point type.
pub(crate) fn check_stored(param: &Param, stored: &StoredTensor) -> Result<()> {
    // A norm's weight may have sides of one in the checkpoint (`[C, 1, 1, 1]`) that mean nothing.
    let meant = |shape: &[i64]| shape.iter().copied().filter(|&side| side != 1).collect::<Vec<_>>();
    if meant(stored.shape()) != meant(&param.shape) {
        return Err(stored.error(&format!("shape is {:?}, expected {:?}", stored.shape(), param.shape)));
    }
    if stored.is_float() { Ok(()) } else { Err(stored.error(&format!("type is {:?}, expected a floating-point type", stored.kind()))) }
}

/// Hash of a name (Fowler, Noll, Vo, 1a, 64 bits).
pub(super) fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cores_draw_what_one_would() {
        let (numbers, range) = (ChaCha8Rng::seed_from_u64(7), Uniform::new(-0.25_f32, 0.5).expect("bounds"));
        for count in [0, 1, DRAWN_AT_ONCE - 1, DRAWN_AT_ONCE, 2 * DRAWN_AT_ONCE + 3] {
            let one: Vec<f32> = range.sample_iter(numbers.clone()).take(count).collect();
            assert!(drawn(&numbers, range, 0..count) == one, "{count} values");
            let middle = count / 3;
            assert!(drawn(&numbers, range, middle..count) == one[middle..], "{count} values from {middle} on");
        }
    }
}
