//! One rank by itself: all operations give back what they are given, and cost nothing.

use std::sync::Arc;

use tch::Tensor;

use super::{Collectives, Group};
use crate::cuda::CopyStream;
use crate::error::{Error, Result};

/// A group of one.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Collectives for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_to_all(&self, parts: Vec<Tensor>, _axis: i64, _sizes: &[i64]) -> Result<Vec<Tensor>> {
        Ok(parts)
    }

    fn pass_on(&self, tensors: [Tensor; 2], _axis: i64, _size: i64) -> Result<[Tensor; 2]> {
        Ok(tensors)
    }

    fn all_gather(&self, part: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![part.shallow_clone()])
    }

    fn broadcast(&self, tensor: Tensor) -> Result<Tensor> {
        Ok(tensor)
    }

    fn gather_into(&self, _places: &[Tensor], _copies: Option<&mut CopyStream>) -> Result<()> {
        Ok(())
    }

    fn split(&self, members: &[usize]) -> Result<Group> {
        if members != [0] {
            return Err(Error::Ranks(format!("there is one rank, and a group of ranks {members:?} was asked for")));
        }
        Ok(Arc::new(Self))
    }
}
