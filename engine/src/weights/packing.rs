//! Weights that wait packed: a group's linear layers in fewer bits than they compute in, in 8 bits with scales or in blocks, and made the type of arithmetic again before
//! they are used. LoRAs are not packed: what they add is a product of two narrow matrices, which wait beside the weight and are added to it each time.

use engine_protocol::WeightDtype;
use tch::{Device, Kind, Tensor};

use super::beside::{lora_of, scale_of};
use super::blocks::BlockType;
use super::{Change, Group, Param, Precision, Source, WeightTypes, Weights, fp8};
use crate::error::Result;
use crate::kernels;

/// How one tensor waits.
#[derive(Debug, Clone, Copy)]
enum Packing {
    /// In this type of 8 bits, with a scale for each output.
    Scaled(Kind),
    /// In blocks, each within a row.
    Blocks(&'static BlockType),
}

/// How `param` waits where weights wait as `waiting`; nothing where it waits as it is used. A row that is no whole blocks does.
fn packing(param: &Param, waiting: WeightDtype) -> Option<Packing> {
    let dtype = param.precision.packed(waiting)?;
    match BlockType::of(dtype) {
        Some(kind) => kind.bytes_of(param.shape[1]).map(|_| Packing::Blocks(kind)),
        None => fp8::kind_of(dtype).map(Packing::Scaled),
    }
}

/// The group that holds `group`'s tensors as they wait, packed ones with what belongs to them. Nothing where none is packed.
pub(super) fn packed(group: &Group, waiting: WeightDtype) -> Option<Group> {
    group.params.iter().find_map(|param| packing(param, waiting))?;
    let mut params = Vec::with_capacity(group.params.len());
    for param in &group.params {
        match packing(param, waiting) {
            None => {
                params.push(param.clone());
                continue;
            }
            Some(Packing::Scaled(kind)) => {
                params.push(Param { precision: Precision::Scaled(kind), ..param.clone() });
                let name = scale_of(&param.name);
                params.push(Param { name, shape: vec![param.shape[0], 1], precision: Precision::Fp32, channels_last: false, lora_rank: 0 });
            }
            Some(Packing::Blocks(kind)) => {
                let row = kind.bytes_of(param.shape[1]).unwrap_or(0);
                params.push(Param { shape: vec![param.shape[0], row], precision: Precision::Bytes, ..param.clone() });
            }
        }
        if param.lora_rank > 0 {
            let factor = |name, shape| Param { name, shape, precision: Precision::Compute, channels_last: false, lora_rank: 0 };
            let [up, down] = lora_of(&param.name);
            params.push(factor(up, vec![param.shape[0], param.lora_rank]));
            params.push(factor(down, vec![param.lora_rank, param.shape[1]]));
        }
    }
    Some(Group { name: group.name, prefix: group.prefix.clone(), params })
}

/// Whether `group`, which waits [packed](packed), is used as it waits: where all that is packed of it is multiplied so.
pub(super) fn is_used_as_it_waits(group: &Group, types: WeightTypes) -> bool {
    let Some(multiplied) = types.linear.weight_dtype() else { return false };
    let is_multiplied =
        |param: &Param| matches!(param.precision, Precision::Compressible(_)) && param.precision.packed(types.waiting) == Some(multiplied);
    group.params.iter().all(|param| packing(param, types.waiting).is_none() || is_multiplied(param))
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
            (Packing::Scaled(kind), Some(stored)) if stored.kind() == kind => {
                stored.copy_numbers(&mut target)?;
                scale().f_copy_(&stored.scale_of_rows()?)?;
            }
            (Packing::Blocks(kind), Some(stored)) if stored.blocks() == Some(kind) => stored.copy_numbers(&mut target.f_view([-1])?)?,
            _ => {
                // Rounded to the type of arithmetic first, as it would be if it were not packed; on the host, so that the device never holds more than what waits there.
                let mut values = Tensor::f_empty(param.shape.as_slice(), (types.compute, Device::Cpu))?;
                source.fill_unchanged(group, param, &mut values)?;
                match packing {
                    Packing::Scaled(_) => fp8::pack(&values, &mut target, &mut scale())?,
                    Packing::Blocks(kind) => kind.pack(&values, &target)?,
                }
            }
        }
        if param.lora_rank > 0 {
            let changes = source.changes(&group.key(param));
            for (side, name) in lora_of(&param.name).iter().enumerate() {
                packed.get(name).shallow_clone().f_copy_(&factors(changes, side)?)?;
            }
        }
    }
    Ok(())
}

/// The left matrices of all LoRAs in `changes` side by side, or the right ones (1) below each other, in fp32.
///
/// # Errors
/// A file that cannot be read, and libtorch's.
pub(super) fn factors(changes: &[Change], which: usize) -> Result<Tensor> {
    let factors = changes.iter().filter_map(|change| change.factors().transpose()).collect::<Result<Vec<_>>>()?;
    let all: Vec<&Tensor> = factors.iter().map(|factors: &[Tensor; 2]| &factors[which]).collect();
    Ok(Tensor::f_cat(&all, 1 - which as i64)?)
}

/// Bytes of the host that [`fill`] takes in passing for its largest tensor: the values, the same in fp32 scaled and not, and in 8 bits. In blocks that is more than there is.
pub fn filling_bytes(group: &Group, types: WeightTypes) -> i64 {
    let each = types.compute.elt_size_in_bytes() as i64 + 2 * Kind::Float.elt_size_in_bytes() as i64 + 1;
    // What a file has packed is copied as it is.
    let is_made = |param: &&Param| packing(param, types.waiting).is_some() && param.precision == Precision::Compressible(None);
    let numbers = group.params.iter().filter(is_made).map(|param| param.shape.iter().product::<i64>());
    numbers.max().unwrap_or(0) * each
}

/// Bytes that [`unpack`] takes in passing, beside the group's own tensors.
pub fn unpacking_bytes(group: &Group, types: WeightTypes) -> i64 {
    let bytes = group.params.iter().map(|param| match packing(param, types.waiting) {
        Some(Packing::Blocks(kind)) if !types.fused => kind.unpacking_bytes(param.shape.iter().product()),
        _ => 0,
    });
    bytes.max().unwrap_or(0)
}

/// Writes what `packed` holds into the tensors of `group`, in their own types.
///
/// # Errors
/// libtorch's.
pub fn unpack(group: &Group, types: WeightTypes, packed: &Weights, into: &Weights) -> Result<()> {
    for param in &group.params {
        let (stored, mut target) = (packed.get(&param.name), into.get(&param.name).shallow_clone());
        let packing = packing(param, types.waiting);
        match packing {
            None => target.f_copy_(stored)?,
            Some(Packing::Scaled(kind)) => {
                let scales = packed.get(&scale_of(&param.name));
                match fp8::dtype_of(kind).filter(|_| types.fused) {
                    Some(dtype) => kernels::unpack_rows(dtype, stored, scales, &target)?,
                    None => fp8::unpack(stored, scales, &mut target)?,
                }
            }
            Some(Packing::Blocks(kind)) if types.fused => {
                kernels::unpack_blocks(kind.dtype, [kind.numbers, kind.bytes], stored, &target)?;
            }
            Some(Packing::Blocks(kind)) => kind.unpack(stored, &target)?,
        }
        if param.lora_rank > 0 && packing.is_some() {
            let [up, down] = lora_of(&param.name);
            // One kernel: the product is added as it is made, and the sum rounded once.
            let _ = target.f_addmm_(packed.get(&up), packed.get(&down))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_protocol::LinearDtype;

    use crate::kernels::ptx;
    use crate::weights::{GroupLayout, GroupName};

    const FP8: WeightTypes =
        WeightTypes { compute: Kind::BFloat16, waiting: WeightDtype::Fp8E4m3, linear: LinearDtype::Dtype, fused: false };

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
        unpack(&group, FP8, &waiting, &back).unwrap();
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
    fn one_kernel_gives_the_bits_of_libtorchs_operations() {
        has_the_bits_of_libtorchs_operations();
    }

    #[test]
    #[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
    fn its_instructions_do_the_same() {
        let test = "weights::packing::tests::its_instructions_do_the_same";
        ptx::with_nvidias_compiler(test, || ptx::by_instructions(has_the_bits_of_libtorchs_operations));
    }

    /// Every type, in rows that end within a lane's numbers, to every type of arithmetic.
    fn has_the_bits_of_libtorchs_operations() {
        let packed_types = WeightDtype::ALL.iter().copied().filter(|&dtype| dtype != WeightDtype::AsStored);
        let mut compared = 0;
        for (waiting, compute) in packed_types.flat_map(|dtype| [Kind::Float, Kind::BFloat16, Kind::Half].map(|kind| (dtype, kind))) {
            let row = if BlockType::of(waiting).is_some() { 512 } else { 70 };
            let group = Group::new(GroupName::whole("layer"), "").fp32("norm.weight", &[8]).linear("proj", row, 37).compressible();
            let packed_group = packed(&group, waiting).unwrap();
            let bound = |group: &Group, compute: Kind| {
                let layout = GroupLayout::new(group, compute);
                Weights::bind(group, &layout, &Tensor::zeros([layout.bytes], (Kind::Uint8, Device::Cpu))).unwrap()
            };
            let (stored, by_operations, by_kernel) = (bound(&packed_group, compute), bound(&group, compute), bound(&group, compute));
            let types = WeightTypes { waiting, ..WeightTypes::plain(compute) };
            fill(&group, &stored, types, &Source::Seeded(5)).unwrap();
            unpack(&group, types, &stored, &by_operations).unwrap();
            unpack(&group, WeightTypes { fused: true, ..types }, &stored, &by_kernel).unwrap();
            let [wanted, got] = [by_operations, by_kernel].map(|weights| weights.get("proj.weight").copy());
            assert!(wanted.abs().max().double_value(&[]) > 0.0, "{waiting:?}");
            assert_eq!(got, wanted, "{waiting:?} to {compute:?}");
            compared += 1;
        }
        assert_eq!(compared, 15 * 3);
    }
}
