//! What a part of a block gives, times its gate, added to the hidden state, with a vector that was still to be added: on a GPU launched, on the CPU run from the same source.
#![expect(unsafe_code, reason = "the kernel reads and writes memory by address: what it is given is held against what it does")]

use std::ffi::{c_int, c_void};

use engine_protocol::WorkKind;
use tch::{Kind, Tensor};

use super::by_element::{ByElement, Piece, Rows, check_apart, check_place, element_of};
use super::element::bytes_of;
use super::loaded::Loaded;
use super::nvrtc;
use crate::error::Result;

pub(super) static KERNEL: ByElement = ByElement {
    name: "gate_and_residual",
    source: &[
        ("gate_and_residual.cu", include_str!("gate_and_residual/gate_and_residual.cu")),
        ("gate_and_residual.cuh", include_str!("gate_and_residual/gate_and_residual.cuh")),
        nvrtc::ROWS,
        nvrtc::ELEMENTS,
        nvrtc::WARP,
    ],
    shown: c"lowmem::gate_and_residual",
    kind: WorkKind::Pointwise,
    piece: Piece::OfWarp,
    on_cpu: lowmem_gate_and_residual_on_cpu,
    loaded: Loaded::new(),
};

unsafe extern "C" {
    fn lowmem_gate_and_residual_on_cpu(element: c_int, given: *const c_void, first: i64, last: i64) -> c_int;
}

/// `GateAndResidual` of `gate_and_residual.cuh`.
#[repr(C)]
struct Given {
    hidden: *mut c_void,
    left: *const c_void,
    gate: *const c_void,
    part: *const c_void,
    rows: Rows,
}

/// Adds `gate` times `part`, and `left`, to `hidden`.
///
/// # Shapes
/// `hidden` is `[B, n, channels]`, the tokens of a video one after the other, with an even number of channels, and `part` whole, of the same size and type; `gate` is
/// `[channels]` in fp32, `left` in the type of `hidden`.
///
/// # Errors
/// The compiler's and the driver's, and a type of numbers that there is no kernel for.
pub(crate) fn gate_and_residual(hidden: &Tensor, part: &Tensor, gate: &Tensor, left: &Tensor) -> Result<()> {
    let (element, rows) = (element_of(hidden)?, Rows::of(hidden));
    check_place(hidden, part, hidden.kind(), &hidden.size(), 2);
    check_place(hidden, gate, Kind::Float, &[rows.channels], 2);
    check_place(hidden, left, hidden.kind(), &[rows.channels], 2);
    check_apart(hidden, [part, gate, left]);
    let given = Given { hidden: hidden.data_ptr(), left: left.data_ptr(), gate: gate.data_ptr(), part: part.data_ptr(), rows };
    // The hidden state is read and written, and what is added is read.
    let bytes = bytes_of(&[hidden, hidden, part]);
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked.
    unsafe { KERNEL.run((element, hidden.device()), rows.rows, bytes, &given) }
}

#[cfg(test)]
mod tests {
    use super::super::by_element::tests::{is_close, random, some_tokens};
    use super::super::ptx;
    use super::*;

    #[test]
    fn it_is_the_sum_rounded_once() {
        is_rounded_once();
    }

    #[test]
    #[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
    fn its_instructions_do_the_same() {
        let test = "kernels::gate_and_residual::tests::its_instructions_do_the_same";
        ptx::with_nvidias_compiler(test, || ptx::by_instructions(is_rounded_once));
    }

    fn is_rounded_once() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let (hidden, part) = (some_tokens(kind, 1.0), some_tokens(kind, 0.0).contiguous());
            let (gate, left) = (random(&[76]), random(&[76]).to_kind(kind));
            let [x, given, by, plus] = [&hidden, &part, &gate, &left].map(|x| x.to_kind(Kind::Double));
            gate_and_residual(&hidden, &part, &gate, &left).unwrap();
            is_close(&hidden, &(x + given * by + plus));
        }
    }

    #[test]
    #[should_panic(expected = "what the kernel reads lies where it writes")]
    fn what_overlaps_is_no_part() {
        let whole = random(&[1, 6, 8]);
        let vector = random(&[8]);
        let _ = gate_and_residual(&whole.narrow(1, 0, 5), &whole.narrow(1, 1, 5), &vector, &vector);
    }

    #[test]
    fn other_types_are_refused() {
        let [hidden, vector] = [some_tokens(Kind::Double, 0.0), random(&[76])];
        let refused = gate_and_residual(&hidden, &hidden.contiguous(), &vector, &vector);
        assert!(refused.is_err_and(|error| error.to_string().contains("fused=true takes fp32")));
    }
}
