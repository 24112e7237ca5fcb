//! Weights that wait in 8 bits: linear layers in fp8 (e4m3) with a scale for each output, made the type of arithmetic again before they are used.
//!
//! Our scales are powers of two, so multiplying by them rounds nothing, and the largest weight of each output uses the type's whole range: published
//! weights are about 0.02, where e4m3 by itself has two bits left. What a file has in e4m3 stays as it is, with the file's scale for each output. Type: P. Micikevicius et al., "FP8 formats for deep learning", 2022, table 1.

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::weights::{Group, Param, Precision, Source, Weights};

/// The largest number of e4m3.
const LARGEST: f64 = 448.0;

/// The group that holds `group`'s tensors as they wait: each compressible one in 8 bits, and its scales beside it. Nothing where none is compressible.
pub fn packed(group: &Group) -> Option<Group> {
    group.params.iter().find(|param| is_packed(param))?;
    let mut params = Vec::with_capacity(group.params.len());
    for param in &group.params {
        if !is_packed(param) {
            params.push(param.clone());
            continue;
        }
        params.push(Param { precision: Precision::Fp8, ..param.clone() });
        let name = scale_of(&param.name);
        params.push(Param { name, shape: vec![param.shape[0], 1], precision: Precision::Fp32, channels_last: false });
    }
    Some(Group { name: group.name, prefix: group.prefix.clone(), params })
}

/// Fills the tensors of [`packed`]`(group)` with the values that `source` has for `group`. `compute` is the type in which they will be used.
///
/// # Errors
/// What `source` cannot give, and libtorch's.
pub fn fill(group: &Group, packed: &Weights, compute: Kind, source: &Source) -> Result<()> {
    if matches!(source, Source::Empty) {
        return Ok(());
    }
    for param in &group.params {
        let mut target = packed.get(&param.name).shallow_clone();
        if !is_packed(param) {
            source.fill(group, param, &mut target)?;
            continue;
        }
        if let Some(stored) = source.stored(group, param)?.filter(|stored| stored.kind() == Kind::Float8e4m3fn) {
            stored.copy_numbers(&mut target)?;
            packed.get(&scale_of(&param.name)).shallow_clone().f_copy_(&stored.scale_of_rows()?)?;
            continue;
        }
        // Rounded to the type of arithmetic first, as it would be without 8 bits; on the host, so that the device never holds more than what waits there.
        let mut values = Tensor::f_empty(param.shape.as_slice(), (compute, Device::Cpu))?;
        source.fill(group, param, &mut values)?;
        let scale = scales(&values)?;
        target.f_copy_(&values.f_to_kind(Kind::Float)?.f_div(&scale)?.f_to_kind(Kind::Float8e4m3fn)?)?;
        packed.get(&scale_of(&param.name)).shallow_clone().f_copy_(&scale)?;
    }
    Ok(())
}

/// Bytes of the host that [`fill`] takes in passing for its largest tensor: the values, the same in fp32 scaled and not, and in 8 bits.
pub fn filling_bytes(group: &Group, compute: Kind) -> i64 {
    let each = compute.elt_size_in_bytes() as i64 + 2 * Kind::Float.elt_size_in_bytes() as i64 + 1;
    let numbers = group.params.iter().filter(|param| is_packed(param)).map(|param| param.shape.iter().product::<i64>());
    numbers.max().unwrap_or(0) * each
}

/// Writes what `packed` holds into the tensors of `group`, in their own types.
///
/// # Errors
/// libtorch's.
pub fn unpack(group: &Group, packed: &Weights, into: &Weights) -> Result<()> {
    for param in &group.params {
        let mut target = into.get(&param.name).shallow_clone();
        target.f_copy_(packed.get(&param.name))?;
        if is_packed(param) {
            let _ = target.f_mul_(packed.get(&scale_of(&param.name)))?;
        }
    }
    Ok(())
}

fn is_packed(param: &Param) -> bool {
    param.precision == Precision::Compressible
}

fn scale_of(name: &str) -> String {
    format!("{name}_scale")
}

/// Per output the smallest power of two that brings its weights into the range: `[outputs, 1]`, fp32.
fn scales(values: &Tensor) -> Result<Tensor> {
    let largest = values.f_abs()?.f_amax([1], true)?.f_to_kind(Kind::Float)?;
    // An output without weights keeps its zeros with any scale.
    let exponent = largest.f_clamp_min(f64::from(f32::MIN_POSITIVE))?.f_div_scalar(LARGEST)?.f_log2()?.f_ceil()?;
    Ok(exponent.f_clamp(-126.0, 127.0)?.f_exp2()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{GroupLayout, GroupName};

    fn bound(group: &Group) -> Weights {
        let layout = GroupLayout::new(group, Kind::BFloat16);
        Weights::bind(group, &layout, &Tensor::zeros([layout.bytes], (Kind::Uint8, Device::Cpu))).unwrap()
    }

    #[test]
    fn weights_come_back_within_the_types_rounding() {
        let group = Group::new(GroupName::whole("layer"), "").fp32("norm.weight", &[8]).linear("proj", 64, 8).compressible();
        let packed_group = packed(&group).unwrap();
        let (whole, waiting, back) = (bound(&group), bound(&packed_group), bound(&group));
        let source = Source::Seeded(3);
        for param in &group.params {
            source.fill(&group, param, &mut whole.get(&param.name).shallow_clone()).unwrap();
        }
        fill(&group, &waiting, Kind::BFloat16, &source).unwrap();
        unpack(&group, &waiting, &back).unwrap();
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
