//! A group's slab read part by part, by whichever thread: what is needed next can be read by several at once while others compute.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::source::check_stored;
use super::{Group, GroupLayout, Precision, Source, WaitingGroup, WeightTypes};
use crate::error::Result;

/// A group whose slab can be read in parts. It waits as it is used, or in blocks as its file has it.
#[derive(Debug)]
pub struct GroupParts {
    /// As it waits.
    group: Group,
    layout: GroupLayout,
    compute: Kind,
    source: Source,
    /// The tensor of that number in its layout, where it cannot be read in parts: it was needed last, and the next part has more of it.
    whole: Mutex<Option<(usize, Tensor)>>,
}

impl GroupParts {
    /// Of `group` as it waits in these types, with values from `source`.
    pub fn new(group: &Group, types: WeightTypes, source: &Source) -> Self {
        let waiting = WaitingGroup::new(group, types);
        let (group, layout) = (waiting.tensors(group).clone(), waiting.layout);
        Self { group, layout, compute: types.compute, source: source.clone(), whole: Mutex::new(None) }
    }

    /// Bytes of the slab.
    pub fn bytes(&self) -> i64 {
        self.layout.bytes
    }

    /// Reads the bytes of the slab from `first` on, a multiple of 256, into `target`, bytes on the host. What lies between tensors is left as it is.
    ///
    /// # Errors
    /// What the source cannot give.
    pub fn read(&self, first: i64, target: &Tensor) -> Result<()> {
        let end = first + target.size()[0];
        for (index, (param, &(start, kind))) in self.group.params.iter().zip(&self.layout.places).enumerate() {
            let size = kind.elt_size_in_bytes() as i64;
            let stop = start + param.shape.iter().product::<i64>() * size;
            let (from, to) = (first.max(start), end.min(stop));
            if from >= to {
                continue;
            }
            let mut part = target.f_narrow(0, from - first, to - from)?;
            let stored = match &self.source {
                Source::Stored(store) if !param.channels_last => store.get(&self.group.key(param)).filter(|stored| stored.is_in_order()),
                _ => None,
            };
            match stored {
                Some(stored) if param.precision == Precision::Bytes => stored.read_packed(from - start, &mut part)?,
                Some(stored) => {
                    check_stored(param, stored)?;
                    stored.read((from - start) / size, &mut part.f_view_dtype(kind)?)?;
                }
                None => self.copy_of_whole(index, from - start, to == stop, &mut part)?,
            }
        }
        Ok(())
    }

    /// Writes bytes of the tensor `index` from `first` on into `part`, which may be the last one.
    fn copy_of_whole(&self, index: usize, first: i64, is_last: bool, part: &mut Tensor) -> Result<()> {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = whole.take().filter(|(kept, _)| *kept == index);
        let (_, slab) = whole.insert(match kept {
            Some(kept) => kept,
            None => (index, self.whole(index)?),
        });
        part.f_copy_(&slab.f_narrow(0, first, part.size()[0])?)?;
        if is_last {
            *whole = None;
        }
        Ok(())
    }

    fn whole(&self, index: usize) -> Result<Tensor> {
        let alone = Group { params: vec![self.group.params[index].clone()], ..self.group.clone() };
        let waiting = WaitingGroup::new(&alone, WeightTypes::plain(self.compute));
        let slab = Tensor::f_empty([waiting.layout.bytes], (Kind::Uint8, Device::Cpu))?;
        waiting.filled(&alone, WeightTypes::plain(self.compute), &slab, &self.source)?;
        Ok(slab)
    }
}
