//! Weights that wait packed: a group's linear layers in fewer bits than they compute in, in 8 bits with scales or in blocks, and made the type of arithmetic again before
//! they are used.

use engine_protocol::WeightDtype;
use tch::{Device, Kind, Tensor};

use super::blocks::BlockType;
use super::{Group, Param, Precision, Source, WeightTypes, Weights, fp8};
use crate::error::Result;

/// How one tensor waits.
#[derive(Debug, Clone, Copy)]
enum Packing {
    /// In 8 bits, with a scale for each output.
    Fp8,
    /// In blocks, each within a row.
    Blocks(&'static BlockType),
}

/// How `param` waits where weights wait as `waiting`; nothing where it waits as it is used. A row that is no whole blocks does.
fn packing(param: &Param, waiting: WeightDtype) -> Option<Packing> {
    let Precision::Compressible(stored) = param.precision else { return None };
    if waiting == WeightDtype::AsStored {
        return None;
    }
    match BlockType::of(stored.unwrap_or(waiting)) {
        Some(kind) => kind.bytes_of(param.shape[1]).map(|_| Packing::Blocks(kind)),
        None => Some(Packing::Fp8),
    }
}

/// The group that holds `group`'s tensors as they wait, packed ones with what belongs to them. Nothing where none is packed.
pub(super) fn packed(group: &Group, waiting: WeightDtype) -> Option<Group> {
    group.params.iter().find_map(|param| packing(param, waiting))?;
    let mut params = Vec::with_capacity(group.params.len());
    for param in &group.params {
        match packing(param, waiting) {
            None => params.push(param.clone()),
            Some(Packing::Fp8) => {
                params.push(Param { precision: Precision::Fp8, ..param.clone() });
                let name = scale_of(&param.name);
                params.push(Param { name, shape: vec![param.shape[0], 1], precision: Precision::Fp32, channels_last: false });
            }
            Some(Packing::Blocks(kind)) => {
                let row = kind.bytes_of(param.shape[1]).unwrap_or(0);
                params.push(Param { shape: vec![param.shape[0], row], precision: Precision::Bytes, ..param.clone() });
            }
        }
    }
    Some(Group { name: group.name, prefix: group.prefix.clone(), params })
}

/// Fills the tensors of [`packed`]`(group)` with the values that `source` has for `group`.
///
/// # Errors
/// What `source` cannot give, and libtorch's.
pub(super) fn fill(group: &Group, packed: &Weights, types: WeightTypes, source: &Source) -> Result<()> {
    if matches!(source, Source::Empty) {
        return Ok(());
    }
    for param in &group.params {
        let mut target = packed.get(&param.name).shallow_clone();
        let Some(packing) = packing(param, types.waiting) else {
            source.fill(group, param, &mut target)?;
            continue;
        };
        let stored = source.stored(group, param)?;
        let scale = || packed.get(&scale_of(&param.name)).shallow_clone();
        match (packing, stored) {
            (Packing::Fp8, Some(stored)) if stored.kind() == Kind::Float8e4m3fn => {
                stored.copy_numbers(&mut target)?;
                scale().f_copy_(&stored.scale_of_rows()?)?;
            }
            (Packing::Blocks(kind), Some(stored)) if stored.blocks() == Some(kind) => stored.copy_numbers(&mut target.f_view([-1])?)?,
            _ => {
                // Rounded to the type of arithmetic first, as it would be if it were not packed; on the host, so that the device never holds more than what waits there.
                let mut values = Tensor::f_empty(param.shape.as_slice(), (types.compute, Device::Cpu))?;
                source.fill(group, param, &mut values)?;
                match packing {
                    Packing::Fp8 => fp8::pack(&values, &mut target, &mut scale())?,
                    Packing::Blocks(kind) => kind.pack(&values, &target)?,
                }
            }
        }
    }
    Ok(())
}

/// Bytes of the host that [`fill`] takes in passing for its largest tensor: the values, the same in fp32 scaled and not, and in 8 bits. In blocks that is more than there is.
pub fn filling_bytes(group: &Group, types: WeightTypes) -> i64 {
    let each = types.compute.elt_size_in_bytes() as i64 + 2 * Kind::Float.elt_size_in_bytes() as i64 + 1;
    // What a file has in blocks is copied as it is.
    let is_made = |param: &&Param| packing(param, types.waiting).is_some() && param.precision == Precision::Compressible(None);
    let numbers = group.params.iter().filter(is_made).map(|param| param.shape.iter().product::<i64>());
    numbers.max().unwrap_or(0) * each
}

/// Bytes that [`unpack`] takes in passing, beside the group's own tensors.
pub fn unpacking_bytes(group: &Group, waiting: WeightDtype) -> i64 {
    let bytes = group.params.iter().map(|param| match packing(param, waiting) {
        Some(Packing::Blocks(kind)) => kind.unpacking_bytes(param.shape.iter().product()),
        _ => 0,
    });
    bytes.max().unwrap_or(0)
}

/// Writes what `packed` holds into the tensors of `group`, in their own types.
///
/// # Errors
/// libtorch's.
pub fn unpack(group: &Group, waiting: WeightDtype, packed: &Weights, into: &Weights) -> Result<()> {
    for param in &group.params {
        let (stored, mut target) = (packed.get(&param.name), into.get(&param.name).shallow_clone());
        match packing(param, waiting) {
            None => target.f_copy_(stored)?,
            Some(Packing::Fp8) => fp8::unpack(stored, packed.get(&scale_of(&param.name)), &mut target)?,
            Some(Packing::Blocks(kind)) => kind.unpack(stored, &target)?,
        }
    }
    Ok(())
}

fn scale_of(name: &str) -> String {
    format!("{name}_scale")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{GroupLayout, GroupName};

    const FP8: WeightTypes = WeightTypes { compute: Kind::BFloat16, waiting: WeightDtype::Fp8E4m3 };

    fn bound(group: &Group) -> Weights {
        let layout = GroupLayout::new(group, Kind::BFloat16);
        Weights::bind(group, &layout, &Tensor::zeros([layout.bytes], (Kind::Uint8, Device::Cpu))).unwrap()
    }

    #[test]
    fn weights_come_back_within_the_types_rounding() {
        let group = Group::new(GroupName::whole("layer"), "").fp32("norm.weight", &[8]).linear("proj", 64, 8).compressible();
        let packed_group = packed(&group, FP8.waiting).unwrap();
        let (whole, waiting, back) = (bound(&group), bound(&packed_group), bound(&group));
        let source = Source::Seeded(3);
        for param in &group.params {
            source.fill(&group, param, &mut whole.get(&param.name).shallow_clone()).unwrap();
        }
        fill(&group, &waiting, FP8, &source).unwrap();
        unpack(&group, FP8.waiting, &waiting, &back).unwrap();
        for name in ["norm.weight", "proj.bias"] {
            assert_eq!(whole.get(name), back.get(name), "{name} is no linear layer's weight");
        }
        let [whole, back] = [whole, back].map(|weights| weights.get("proj.weight").to_kind(Kind::Float));
        let largest = whole.abs().amax([1], true);
        // Half a unit in the last of 4 significant bits; below 2^-6 of 448 steps are even: 2^-10 of the scale.
        let bound = (whole.abs() / 16.0).maximum(&(largest / 448.0 * 2f64.powi(-9)));
        assert!(bool::try_from((&whole - &back).abs().le_tensor(&bound).all()).unwrap());
        assert_ne!(whole, back, "8 bits round");
    }

    #[test]
    fn an_output_of_zeros_stays_zero() {
        assert_eq!(scales(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))).unwrap().isfinite().all(), Tensor::from(true));
        let powers: Vec<f32> =
            Vec::try_from(scales(&Tensor::from_slice2(&[[448f32, 1.0], [-449.0, 0.0], [0.01, 0.0]])).unwrap().view(-1)).unwrap();
        assert_eq!(powers, [1.0, 2.0, 2f32.powi(-15)]);
    }
}
