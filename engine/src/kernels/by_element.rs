//! A kernel of ours that there is for each type of numbers, in one row of blocks: on a GPU launched, on the CPU run from the same source.
#![expect(unsafe_code, reason = "kernels read and write memory by address")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use engine_protocol::{WorkKind, WorkType};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::driver;
use super::element::{Element, check};
use super::loaded::Loaded;
use super::nvrtc::Source;
#[cfg(test)]
use super::ptx;
use crate::cuda::{OwnKernel, launch_observed};
use crate::error::{Error, Result};

/// Lanes of a block, and of a warp.
const LANES: i64 = 128;
const LANES_OF_WARP: i64 = 32;

/// What a lane makes, or a warp: the kernel makes so many of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    OfLane,
    OfWarp,
}

impl Piece {
    fn of_block(self) -> i64 {
        match self {
            Self::OfLane => LANES,
            Self::OfWarp => LANES / LANES_OF_WARP,
        }
    }
}

/// A kernel on the CPU: its type of numbers, what it is given, and the pieces from one to before another. 0, or something else where there is no such type.
type OnCpu = unsafe extern "C" fn(c_int, *const c_void, i64, i64) -> c_int;

/// On the CPU a thread makes so many pieces at a time.
const CPU_PART: i64 = 1 << 10;

/// The tokens of a hidden state as kernels find them: each row is one, and lies whole, as the rows of a video do one after the other.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Rows {
    pub(super) rows: i64,
    tokens: i64,
    /// Numbers from one video's first to the next one's.
    next_video: i64,
    pub(super) channels: i64,
}

impl Rows {
    /// Those of `hidden`, `[B, n, channels]`.
    ///
    /// # Panics
    /// Where they do not lie so, or have an odd number of channels.
    pub(super) fn of(hidden: &Tensor) -> Self {
        let [videos, tokens, channels] = <[i64; 3]>::try_from(hidden.size()).expect("[videos, tokens, channels]");
        assert!(channels > 0 && channels % 2 == 0, "pairs of channels");
        for video in 0..videos {
            // Of some of the tokens videos lie apart.
            check_place(hidden, &hidden.get(video), hidden.kind(), &[tokens, channels], 2);
        }
        assert!(videos < 2 || hidden.stride()[0] >= tokens * channels, "videos that do not overlap");
        Self { rows: videos * tokens, tokens, next_video: hidden.stride()[0], channels }
    }
}

/// The kernel, and what is loaded of it.
#[derive(Debug)]
pub(super) struct ByElement {
    pub(super) name: &'static str,
    pub(super) source: &'static Source,
    /// Its name beside those of libtorch's operations, and what it does.
    pub(super) shown: &'static CStr,
    pub(super) kind: WorkKind,
    pub(super) piece: Piece,
    pub(super) on_cpu: OnCpu,
    pub(super) loaded: Loaded<Element, 1>,
}

/// What a kernel is given, which its threads share.
struct Given(*const c_void);

// SAFETY: they read it, and each writes by its place what no other does.
unsafe impl Sync for Given {}

impl Given {
    fn address(&self) -> *const c_void {
        self.0
    }
}

impl ByElement {
    /// Makes so many pieces, for which it reads and writes so many bytes in all.
    ///
    /// # Errors
    /// The compiler's and the driver's, and more than a GPU takes.
    ///
    /// # Safety
    /// The kernel takes a parameter of this layout, and for so many pieces may read and write what that points to until the stream has done it; no piece writes what another reads or writes.
    pub(super) unsafe fn run<P>(&self, (element, device): (Element, Device), pieces: i64, bytes: f64, given: &P) -> Result<()> {
        let options = |capability| element.options(capability);
        let blocks = (pieces + self.piece.of_block() - 1) / self.piece.of_block();
        if device == Device::Cpu {
            // SAFETY: as the caller says.
            #[cfg(test)]
            if unsafe { ptx::run(self.source, self.name, options, [blocks, 1, 1], given) } {
                return Ok(());
            }
            let given = Given(ptr::from_ref(given).cast());
            (0..(pieces + CPU_PART - 1) / CPU_PART).into_par_iter().for_each(|part| {
                let (first, last) = (part * CPU_PART, ((part + 1) * CPU_PART).min(pieces));
                // SAFETY: as the caller says.
                let answer = unsafe { (self.on_cpu)(element.number(), given.address(), first, last) };
                assert_eq!(answer, 0, "there is such a kernel");
            });
            return Ok(());
        }
        if pieces == 0 {
            return Ok(());
        }
        let [function] = self.loaded.get(element, self.name, self.source, [self.name], options)?;
        let blocks = u32::try_from(blocks).map_err(|_| Error::Input("fused=true: this is too large for its kernels".into()))?;
        let work = OwnKernel { name: self.shown, kind: self.kind, dtype: WorkType::Fp32, operations: 0.0, bytes };
        // SAFETY: as the caller says. Tensors that the kernel reads and writes are freed by libtorch in the order of the stream.
        launch_observed(&work, || unsafe { driver::launch(function, [blocks, 1, 1], LANES as u32, given) })
    }
}

/// The type of numbers of `x`.
///
/// # Errors
/// There is no kernel for it.
pub(super) fn element_of(x: &Tensor) -> Result<Element> {
    Element::of(x.kind()).ok_or_else(|| Error::Input(format!("fused=true takes fp32, bf16 and fp16, and not {:?}", x.kind())))
}

/// Panics where `tensor` is not of this type and size, on the device of `x` and whole, one number after the other, at a place where so many numbers are read at a time.
pub(super) fn check_place(x: &Tensor, tensor: &Tensor, kind: Kind, size: &[i64], at_a_time: usize) {
    check(tensor, x, kind, size);
    assert!((tensor.data_ptr() as usize).is_multiple_of(at_a_time * kind.elt_size_in_bytes()), "not at a place that the kernel can read");
}

/// Panics where what is written overlaps what is read: pieces are made in any order.
pub(super) fn check_apart<'a>(written: &Tensor, read: impl IntoIterator<Item = &'a Tensor>) {
    let place = |tensor: &Tensor| {
        let last: i64 = tensor.size().iter().zip(tensor.stride()).map(|(size, stride)| (size - 1).max(0) * stride).sum();
        let first = tensor.data_ptr() as usize;
        (first, first + (last as usize + 1) * tensor.kind().elt_size_in_bytes())
    };
    let (begins, ends) = place(written);
    for tensor in read.into_iter().filter(|tensor| tensor.numel() > 0 && written.numel() > 0) {
        let (first, end) = place(tensor);
        assert!(end <= begins || ends <= first, "what the kernel reads lies where it writes");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    /// Five of nine tokens of two videos, with 76 channels: more pairs than a warp has lanes. Each channel has a mean of its own.
    pub(in super::super) fn some_tokens(kind: Kind, means: f64) -> Tensor {
        tch::manual_seed(7);
        (random(&[2, 9, 76]) * 3.0 + random(&[76]) * means).to_kind(kind).narrow(1, 2, 5)
    }

    /// That no number is further from that one in fp64 than half of a unit in its last place, and what fp32 is off beside that.
    pub(in super::super) fn is_close(got: &Tensor, wanted: &Tensor) {
        let most = match got.kind() {
            Kind::BFloat16 => 1.0 / 256.0,
            Kind::Half => 1.0 / 2048.0,
            _ => 0.0,
        };
        let off = (got.to_kind(Kind::Double) - wanted).abs() - wanted.abs() * most;
        let most_off = off.max().double_value(&[]);
        assert!(most_off <= 1e-5, "{:?}: {most_off:e}", got.kind());
    }
}
