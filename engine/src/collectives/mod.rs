//! What ranks say to each other. A rank is one of several that work on one video, each with the same program and a part of the data.
//!
//! All ranks of a group make the same calls in the same order, with tensors of the same shapes. What a call gives back lies nowhere else: a rank may write into what it
//! gave, and into what it got.

mod alone;
mod nccl;
mod threads;

use std::fmt::Debug;
use std::sync::Arc;

use tch::Tensor;

use crate::cuda::CopyStream;
use crate::error::Result;

pub use alone::Alone;
pub use nccl::Nccl;
pub use threads::Threads;

/// Ranks that speak to each other, as one of them sees them.
pub type Group = Arc<dyn Collectives>;

/// What the ranks of a group can do together. Its operations are those of MPI and NCCL, by their names there.
pub trait Collectives: Debug + Send + Sync {
    /// This one's place in the group, from 0.
    fn rank(&self) -> usize;

    /// How many they are.
    fn size(&self) -> usize;

    /// Gives each rank its part, this one included, and gets one from each, in the order of ranks: shaped as what stays here, but for its own size of `sizes` along `axis`.
    ///
    /// # Errors
    /// Ranks that are gone or not in step, and libtorch's.
    fn all_to_all(&self, parts: Vec<Tensor>, axis: i64, sizes: &[i64]) -> Result<Vec<Tensor>>;

    /// Gives tensors to the next rank, the last one to the first, and gets the same ones of the rank before, which are of that size along `axis`.
    ///
    /// # Errors
    /// Those of [`Collectives::all_to_all`].
    fn pass_on(&self, tensors: [Tensor; 2], axis: i64, size: i64) -> Result<[Tensor; 2]>;

    /// The parts of all, in the order of ranks.
    ///
    /// # Errors
    /// Those of [`Collectives::all_to_all`].
    fn all_gather(&self, part: &Tensor) -> Result<Vec<Tensor>>;

    /// What the first rank gives. What the others give says of which shape and type that is, and where it is to lie; it may be written over.
    ///
    /// # Errors
    /// Those of [`Collectives::all_to_all`].
    fn broadcast(&self, tensor: Tensor) -> Result<Tensor>;

    /// Puts each rank's part into its place of `places`, where this one's own is already. Places may differ in size, and are the same on all ranks. On a GPU that goes in the stream
    /// of `copies`.
    ///
    /// # Errors
    /// Those of [`Collectives::all_to_all`].
    fn gather_into(&self, places: &[Tensor], copies: Option<&mut CopyStream>) -> Result<()>;

    /// The group of some ranks of this one, in that order. Every rank asks for the one that it is in.
    ///
    /// # Errors
    /// Ranks that are gone, and members without this rank.
    fn split(&self, members: &[usize]) -> Result<Group>;
}

/// The sums over all ranks of `group`, in the order of ranks: all get the same bits.
///
/// # Errors
/// Those of [`Collectives::all_gather`].
pub fn summed<const N: usize>(group: &dyn Collectives, values: [f64; N]) -> Result<[f64; N]> {
    let mut sums = [0.0; N];
    for part in group.all_gather(&Tensor::f_from_slice(&values)?)? {
        let part = Vec::<f64>::try_from(&part)?;
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    Ok(sums)
}

/// What the first rank of `group` says, so that one decides for all.
///
/// # Errors
/// Those of [`Collectives::broadcast`].
pub fn agreed(group: &dyn Collectives, values: &[f64]) -> Result<Vec<f64>> {
    Ok(Vec::try_from(&group.broadcast(Tensor::f_from_slice(values)?)?)?)
}

/// All ranks of a group but this one.
fn others(group: &dyn Collectives) -> impl Iterator<Item = usize> + use<> {
    let own = group.rank();
    (0..group.size()).filter(move |&rank| rank != own)
}

/// The shape of `tensor` with another size along `axis`.
fn resized(tensor: &Tensor, axis: i64, size: i64) -> Vec<i64> {
    let mut shape = tensor.size();
    shape[axis as usize] = size;
    shape
}
