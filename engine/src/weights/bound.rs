//! A group's tensors as a model uses them, and how it gets them: by name.

use std::collections::HashMap;

use tch::Tensor;

use crate::attribution::operation;
use crate::error::Result;
use crate::kernels::{linear_gelu, linear_into};
use crate::weights::beside::{lora_of, scale_of};
use crate::weights::products::Packed;
use crate::weights::{Group, GroupLayout, GroupName};

/// The tensors of one group, each a view into one slab.
#[derive(Debug)]
pub struct Weights {
    tensors: HashMap<String, Tensor>,
}

impl Weights {
    /// Views of `group`'s tensors in `slab`, a one-dimensional tensor of bytes that `layout` describes.
    ///
    /// # Errors
    /// libtorch's, where the slab is too small.
    pub fn bind(group: &Group, layout: &GroupLayout, slab: &Tensor) -> Result<Self> {
        let mut tensors = HashMap::with_capacity(group.params.len());
        for (param, &(offset, kind)) in group.params.iter().zip(&layout.places) {
            let bytes = param.shape.iter().product::<i64>() * kind.elt_size_in_bytes() as i64;
            let flat = slab.f_narrow(0, offset, bytes)?.f_view_dtype(kind)?;
            let tensor = match (param.channels_last, param.shape.as_slice()) {
                (true, [outputs, inputs, kernel @ ..]) => {
                    let last = kernel.len() as i64 + 1;
                    let order: Vec<i64> = [0, last].into_iter().chain(1..last).collect();
                    flat.f_view([&[*outputs], kernel, &[*inputs]].concat().as_slice())?.f_permute(order)?
                }
                (_, shape) => flat.f_view(shape)?,
            };
            tensors.insert(param.name.clone(), tensor);
        }
        Ok(Self { tensors })
    }

    /// The tensor `name`, or nothing where the group has none of that name.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The tensor `name` of the group's own list.
    ///
    /// # Panics
    /// When the group has no such tensor: model code asks for what its own `groups` listed.
    pub fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the group lists no tensor `{name}`"))
    }

    /// `x` through the linear layer `name`, with its bias where it has one.
    ///
    /// # Errors
    /// libtorch's.
    pub fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let weight = self.get(&format!("{name}.weight"));
        let bias = self.find(&format!("{name}.bias"));
        match self.packed(name, bias, |whole| Ok(whole.shallow_clone()))? {
            Some(packed) => operation(|| packed.linear(x)),
            None => operation(|| Ok(x.f_linear(weight, bias)?)),
        }
    }

    /// The same, written into `place`, which lies whole.
    ///
    /// # Errors
    /// libtorch's.
    pub fn linear_into(&self, name: &str, x: &Tensor, mut place: Tensor) -> Result<Tensor> {
        let [weight, bias] = self.weight_and_bias(name);
        match self.packed(name, Some(bias), |whole| Ok(whole.shallow_clone()))? {
            Some(packed) => {
                place.f_copy_(&operation(|| packed.linear(x))?)?;
                Ok(place)
            }
            None => operation(|| linear_into(x, weight, bias, place)),
        }
    }

    /// GELU, by tanh, of `x` through the linear layer `name`, in one product where that is in `x`'s type.
    ///
    /// # Errors
    /// libtorch's.
    pub fn linear_gelu(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let [weight, bias] = self.weight_and_bias(name);
        match self.packed(name, Some(bias), |whole| Ok(whole.shallow_clone()))? {
            Some(packed) => Ok(operation(|| packed.linear(x))?.f_gelu_("tanh")?),
            None => operation(|| linear_gelu(x, weight, bias)),
        }
    }

    /// Weight and bias of the linear layer `name`, which has both.
    ///
    /// # Panics
    /// Those of [`Weights::get`].
    pub fn weight_and_bias(&self, name: &str) -> [&Tensor; 2] {
        ["weight", "bias"].map(|part| self.get(&format!("{name}.{part}")))
    }

    /// `x` through the part of the linear layer `name` that makes `count` of its outputs, from `first` on.
    ///
    /// # Errors
    /// libtorch's.
    pub fn linear_part(&self, name: &str, x: &Tensor, first: i64, count: i64) -> Result<Tensor> {
        let part = |whole: &Tensor| whole.f_narrow(0, first, count);
        let weight = part(self.get(&format!("{name}.weight")))?;
        let bias = self.find(&format!("{name}.bias")).map(part).transpose()?;
        match self.packed(name, bias.as_ref(), |whole| Ok(part(whole)?))? {
            Some(packed) => operation(|| packed.linear(x)),
            None => operation(|| Ok(x.f_linear(&weight, bias.as_ref())?)),
        }
    }

    /// The layer `name`, of whose outputs `part` takes some, where its weight is multiplied as it waits in 8 bits.
    fn packed<'a>(&self, name: &str, bias: Option<&'a Tensor>, part: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Option<Packed<'a>>> {
        let weight = format!("{name}.weight");
        let Some(scale) = self.find(&scale_of(&weight)) else { return Ok(None) };
        let [up, down] = lora_of(&weight).map(|factor| self.find(&factor));
        let lora = match (up, down) {
            (Some(up), Some(down)) => Some([part(up)?, down.shallow_clone()]),
            _ => None,
        };
        Ok(Some(Packed { numbers: part(self.get(&weight))?, scale: part(scale)?, bias, lora }))
    }
}

/// Gives a model its groups, wherever they live.
///
/// A model calls this once a group, in order, and holds on to nothing that it got: afterwards the bytes may hold another group.
pub trait Groups {
    /// Runs `run` with the group's weights on the device that computes.
    ///
    /// # Errors
    /// What `run` returns, or what moving the weights ran into.
    ///
    /// # Panics
    /// When there is no such group: a model asks for what its own list has.
    fn with<R>(&mut self, name: GroupName, run: impl FnOnce(&Weights) -> Result<R>) -> Result<R>
    where
        Self: Sized;
}
