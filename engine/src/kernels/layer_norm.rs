//! Layer norm with scale and shift, of tokens to which a vector may still have to be added, in one kernel: on a GPU launched, on the CPU run from the same source.
#![expect(unsafe_code, reason = "the kernel reads and writes memory by address: what it is given is held against what it does")]

use std::ffi::{c_int, c_void};
use std::ptr;

use engine_protocol::WorkKind;
use tch::{Kind, Tensor};

use super::by_element::{ByElement, Piece, Rows, check_place, element_of};
use super::element::bytes_of;
use super::loaded::Loaded;
use super::nvrtc;
use crate::error::Result;

pub(super) static KERNEL: ByElement = ByElement {
    name: "layer_norm",
    source: &[
        ("layer_norm.cu", include_str!("layer_norm/layer_norm.cu")),
        ("layer_norm.cuh", include_str!("layer_norm/layer_norm.cuh")),
        nvrtc::ROWS,
        nvrtc::ELEMENTS,
        nvrtc::WARP,
    ],
    shown: c"lowmem::layer_norm",
    kind: WorkKind::Reduction,
    piece: Piece::OfWarp,
    on_cpu: lowmem_layer_norm_on_cpu,
    loaded: Loaded::new(),
};

unsafe extern "C" {
    fn lowmem_layer_norm_on_cpu(element: c_int, given: *const c_void, first: i64, last: i64) -> c_int;
}

/// `LayerNorm` of `layer_norm.cuh`.
#[repr(C)]
struct Given {
    hidden: *const c_void,
    left: *const c_void,
    scale: *const c_void,
    shift: *const c_void,
    normed: *mut c_void,
    rows: Rows,
    offset: f64,
    eps: f64,
}

/// The layer norm of each token's channels plus `left`, times `offset` plus `scale`, plus `shift`.
///
/// # Shapes
/// `hidden` is `[B, n, channels]`, the tokens of a video one after the other, with an even number of channels; `left` is `[channels]` in its type, `scale` and `shift` `[channels]` in fp32.
///
/// # Errors
/// The compiler's and the driver's, and a type of numbers that there is no kernel for.
pub(crate) fn layer_norm(hidden: &Tensor, left: Option<&Tensor>, offset: f64, [scale, shift]: [&Tensor; 2], eps: f64) -> Result<Tensor> {
    let (element, rows) = (element_of(hidden)?, Rows::of(hidden));
    if let Some(left) = left {
        check_place(hidden, left, hidden.kind(), &[rows.channels], 2);
    }
    for vector in [scale, shift] {
        check_place(hidden, vector, Kind::Float, &[rows.channels], 2);
    }
    let normed = Tensor::f_empty(hidden.size(), (hidden.kind(), hidden.device()))?;
    let given = Given {
        hidden: hidden.data_ptr(),
        left: left.map_or(ptr::null(), |left| left.data_ptr().cast_const()),
        scale: scale.data_ptr(),
        shift: shift.data_ptr(),
        normed: normed.data_ptr(),
        rows,
        offset,
        eps,
    };
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked.
    unsafe { KERNEL.run((element, hidden.device()), rows.rows, bytes_of(&[hidden, &normed]), &given)? };
    Ok(normed)
}

#[cfg(test)]
mod tests {
    use super::super::by_element::tests::{is_close, random, some_tokens};
    use super::super::ptx;
    use super::*;

    const EPS: f64 = 1e-6;

    #[test]
    fn it_is_the_norm_of_the_sum_rounded_once() {
        is_rounded_once();
    }

    #[test]
    #[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
    fn its_instructions_do_the_same() {
        let test = "kernels::layer_norm::tests::its_instructions_do_the_same";
        ptx::with_nvidias_compiler(test, || ptx::by_instructions(is_rounded_once));
    }

    fn is_rounded_once() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for (offset, has_left) in [(0.0, true), (1.0, true), (1.0, false)] {
                // Channels with a mean of their own.
                let hidden = some_tokens(kind, 5.0);
                let left = has_left.then(|| (random(&[76]) * 4.0).to_kind(kind));
                let [scale, shift] = [(); 2].map(|()| random(&[76]));
                let got = layer_norm(&hidden, left.as_ref(), offset, [&scale, &shift], EPS).unwrap();
                let wide = |x: &Tensor| x.to_kind(Kind::Double);
                let x = left.as_ref().map_or(wide(&hidden), |left| wide(&hidden) + wide(left));
                let wanted = x.layer_norm([76], Some(&(wide(&scale) + offset)), Some(&wide(&shift)), EPS, false);
                is_close(&got, &wanted);
            }
        }
    }

    #[test]
    fn other_types_are_refused() {
        let [hidden, vector] = [some_tokens(Kind::Double, 0.0), random(&[76])];
        let refused = layer_norm(&hidden, None, 1.0, [&vector; 2], EPS);
        assert!(refused.is_err_and(|error| error.to_string().contains("fused=true takes fp32")));
    }
}
