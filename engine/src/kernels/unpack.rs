//! Weights that wait packed to the type of arithmetic in one kernel: on a GPU launched, on the CPU run from the same source.
#![expect(unsafe_code, reason = "the kernel reads and writes memory by address: what it is given is held against what it does")]

use std::ffi::{c_int, c_void};
use std::ptr;

use engine_protocol::{WeightDtype, WorkKind};
use tch::{Kind, Tensor};

use super::by_element::{ByElement, Piece, check_apart, element_of};
use super::element::bytes_of;
use super::loaded::Loaded;
use super::nvrtc;
use crate::error::Result;

/// Numbers that a lane makes.
const AT_ONCE: i64 = 8;

pub(super) static KERNEL: ByElement = ByElement {
    name: "unpack",
    source: &[
        ("unpack.cu", include_str!("unpack/unpack.cu")),
        ("unpack.cuh", include_str!("unpack/unpack.cuh")),
        nvrtc::ELEMENTS,
        nvrtc::WARP,
    ],
    shown: c"lowmem::unpack",
    kind: WorkKind::Pointwise,
    piece: Piece::OfLane,
    on_cpu: lowmem_unpack_on_cpu,
    loaded: Loaded::new(),
};

/// What it unpacks, in the order of `PackedType` of `unpack.cuh`.
const TYPES: [WeightDtype; 15] = [
    WeightDtype::Fp8E4m3,
    WeightDtype::Fp8E5m2,
    WeightDtype::Int8,
    WeightDtype::Q4_0,
    WeightDtype::Q4_1,
    WeightDtype::Q5_0,
    WeightDtype::Q5_1,
    WeightDtype::Q8_0,
    WeightDtype::Iq4Nl,
    WeightDtype::Q2K,
    WeightDtype::Q3K,
    WeightDtype::Q4K,
    WeightDtype::Q5K,
    WeightDtype::Q6K,
    WeightDtype::Iq4Xs,
];

unsafe extern "C" {
    fn lowmem_unpack_on_cpu(element: c_int, given: *const c_void, first: i64, last: i64) -> c_int;
}

/// `Unpack` of `unpack.cuh`.
#[repr(C)]
struct Given {
    packed: *const c_void,
    scales: *const c_void,
    target: *mut c_void,
    numbers: i64,
    row: i64,
    kind: i64,
}

/// Writes `packed`, numbers of 8 bits, times the scales of their rows into `target`.
///
/// # Shapes
/// `packed` and `target` are `[rows, row]`, `scales` is `[rows, 1]` in fp32.
///
/// # Errors
/// The compiler's and the driver's, and types that there is no kernel for.
pub(crate) fn unpack_rows(dtype: WeightDtype, packed: &Tensor, scales: &Tensor, target: &Tensor) -> Result<()> {
    let [rows, row] = <[i64; 2]>::try_from(target.size()).expect("[rows, row]");
    assert!(packed.size() == target.size() && packed.kind().elt_size_in_bytes() == 1, "a byte for each number");
    assert!(scales.size() == [rows, 1] && scales.kind() == Kind::Float && scales.is_contiguous(), "a scale for each row");
    assert!(scales.device() == target.device(), "on the device");
    unpack(dtype, packed, Some(scales), target, row)
}

/// Writes the numbers of `packed`, of whole blocks of so many `[numbers, bytes]`, into `target`.
///
/// # Errors
/// Those of [`unpack_rows`].
pub(crate) fn unpack_blocks(dtype: WeightDtype, [numbers, bytes]: [i64; 2], packed: &Tensor, target: &Tensor) -> Result<()> {
    let (count, packed_bytes) = (target.numel() as i64, packed.numel() as i64);
    assert!(packed.kind() == Kind::Uint8 && count % numbers == 0 && packed_bytes == count / numbers * bytes, "whole blocks");
    unpack(dtype, packed, None, target, count.max(1))
}

fn unpack(dtype: WeightDtype, packed: &Tensor, scales: Option<&Tensor>, target: &Tensor, row: i64) -> Result<()> {
    let element = element_of(target)?;
    let kind = TYPES.iter().position(|&known| known == dtype).expect("a packed type");
    assert!(packed.device() == target.device() && packed.is_contiguous() && target.is_contiguous(), "whole, on one device");
    assert!((target.data_ptr() as usize).is_multiple_of(16), "numbers are written eight at a time");
    check_apart(target, [packed].into_iter().chain(scales));
    let numbers = target.numel() as i64;
    let given = Given {
        packed: packed.data_ptr(),
        scales: scales.map_or(ptr::null(), |scales| scales.data_ptr().cast_const()),
        target: target.data_ptr(),
        numbers,
        row,
        kind: kind as i64,
    };
    let eighths = (numbers + AT_ONCE - 1) / AT_ONCE;
    // Packed numbers are read and the others written, each once.
    let bytes = bytes_of(&[packed, target]);
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked.
    unsafe { KERNEL.run((element, target.device()), eighths, bytes, &given) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn what_is_too_large_for_fp16_is_infinite_as_libtorch_has_it() {
        let packed = Tensor::from_slice(&[1_i8, -1, 0, 3, 127, -127]).view([1, 6]).repeat([6, 1]);
        // The largest number, what is rounded to it, the first that is not, and far more.
        let scales = Tensor::from_slice(&[65504.0_f32, 65519.9, 65520.0, 600.0, 1e30, 1e-6]).view([6, 1]);
        let target = Tensor::zeros([6, 6], (Kind::Half, Device::Cpu));
        unpack_rows(WeightDtype::Int8, &packed, &scales, &target).unwrap();
        let wanted = (packed.to_kind(Kind::Float) * scales).to_kind(Kind::Half);
        assert!(wanted.isinf().any().int64_value(&[]) != 0 && wanted.isfinite().any().int64_value(&[]) != 0);
        assert_eq!(target.view_dtype(Kind::Int16), wanted.view_dtype(Kind::Int16));
    }
}
