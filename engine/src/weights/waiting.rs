//! A group as it waits to be used: its tensors, how they lie in a slab, and how they get their values. Where it waits is `memory`'s.

use tch::Tensor;

use super::{Group, GroupLayout, Source, WeightTypes, Weights, packing};
use crate::error::Result;

/// A group as it waits: with its linear layers packed where they are to be, and as it is otherwise.
#[derive(Debug)]
pub struct WaitingGroup {
    /// Where linear layers of it wait packed.
    packed: Option<Packed>,
    /// How it lies in one slab.
    pub layout: GroupLayout,
}

#[derive(Debug)]
struct Packed {
    tensors: Group,
    /// Of the group's own tensors, which these become, where they are not used as they wait.
    unpacked: Option<GroupLayout>,
}

impl WaitingGroup {
    /// How `group` waits in these types.
    pub fn new(group: &Group, types: WeightTypes) -> Self {
        let own = GroupLayout::new(group, types.compute);
        match packing::packed(group, types.waiting) {
            Some(tensors) => {
                let layout = GroupLayout::new(&tensors, types.compute);
                let unpacked = (!packing::is_used_as_it_waits(group, types)).then_some(own);
                Self { packed: Some(Packed { tensors, unpacked }), layout }
            }
            None => Self { packed: None, layout: own },
        }
    }

    /// Its tensors as they wait, where `group` is what they are to the model.
    pub fn tensors<'a>(&'a self, group: &'a Group) -> &'a Group {
        self.packed.as_ref().map_or(group, |packed| &packed.tensors)
    }

    /// Bytes that it is unpacked into; none where it is used as it waits.
    pub fn unpacked_bytes(&self) -> i64 {
        self.unpacked().map_or(0, |unpacked| unpacked.bytes)
    }

    /// Its tensors in `slab`, each with the values that `source` has for `group`.
    ///
    /// # Errors
    /// What `source` cannot give, and libtorch's.
    pub fn filled(&self, group: &Group, types: WeightTypes, slab: &Tensor, source: &Source) -> Result<Weights> {
        let weights = Weights::bind(self.tensors(group), &self.layout, slab)?;
        if self.packed.is_some() {
            packing::fill(group, &weights, types, source)?;
            return Ok(weights);
        }
        for param in &group.params {
            source.fill(group, param, &mut weights.get(&param.name).shallow_clone())?;
        }
        Ok(weights)
    }

    /// Whether some of it waits packed.
    pub fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// Whether it is made anew before it is used.
    pub fn is_unpacked(&self) -> bool {
        self.unpacked().is_some()
    }

    fn unpacked(&self) -> Option<&GroupLayout> {
        self.packed.as_ref()?.unpacked.as_ref()
    }

    /// The tensors of `group` in `slab`, which has room for [`WaitingGroup::unpacked_bytes`].
    ///
    /// # Errors
    /// libtorch's.
    ///
    /// # Panics
    /// When it is used as it waits.
    pub fn bind_unpacked(&self, group: &Group, slab: &Tensor) -> Result<Weights> {
        Weights::bind(group, self.unpacked().expect("asked for groups that are unpacked alone"), slab)
    }
}
