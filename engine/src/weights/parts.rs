//! A group's slab read part by part, by whichever thread: what is needed next can be read by several at once while others compute.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::beside::{factor_of, scaled_by};
use super::packing::factors;
use super::source::check_stored;
use super::{Group, GroupLayout, Param, Precision, Source, WaitingGroup, WeightTypes};
use crate::error::Result;

/// A group whose slab can be read in parts. It waits as it is used, or packed as its file has it.
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
            let find = |key: String| match &self.source {
                Source::Stored(store) if !param.channels_last && !self.is_summed(param) => {
                    store.get(&key).filter(|stored| stored.is_in_order())
                }
                _ => None,
            };
            if let Some(stored) = scaled_by(&param.name).and_then(|weight| find(format!("{}{weight}", self.group.prefix))) {
                let scales = stored.scale_of_rows()?.f_contiguous()?.f_view([-1])?.f_view_dtype(Kind::Uint8)?;
                part.f_copy_(&scales.f_narrow(0, from - start, to - from)?)?;
                continue;
            }
            match (find(self.group.key(param)), param.precision) {
                (Some(stored), Precision::Bytes | Precision::Scaled(_)) => stored.read_packed(from - start, &mut part)?,
                (Some(stored), _) => {
                    check_stored(param, stored)?;
                    stored.read((from - start) / size, &mut part.f_view_dtype(kind)?)?;
                }
                (None, _) => self.copy_of_whole(index, from - start, to == stop, &mut part)?,
            }
        }
        Ok(())
    }

    /// Whether LoRAs are added to it as it is read: not where they wait beside it.
    fn is_summed(&self, param: &Param) -> bool {
        !matches!(param.precision, Precision::Bytes | Precision::Scaled(_)) && !self.source.changes(&self.group.key(param)).is_empty()
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
        if let Some((weight, which)) = factor_of(&self.group.params[index].name) {
            let factors = factors(self.source.changes(&format!("{}{weight}", self.group.prefix)), which)?;
            return Ok(factors.f_to_kind(self.compute)?.f_contiguous()?.f_view([-1])?.f_view_dtype(Kind::Uint8)?);
        }
        let alone = Group { params: vec![self.group.params[index].clone()], ..self.group.clone() };
        let waiting = WaitingGroup::new(&alone, WeightTypes::plain(self.compute));
        let slab = Tensor::f_empty([waiting.layout.bytes], (Kind::Uint8, Device::Cpu))?;
        waiting.filled(&alone, WeightTypes::plain(self.compute), &slab, &self.source)?;
        Ok(slab)
    }
}
