//! The kernels of attention in 8 bits (`engine/src/attention/sage`), as functions of tensors: on a GPU launched, on the CPU run warp by warp from the same source.
#![expect(unsafe_code, reason = "kernels read and write memory by address: what they are given is held against what they do")]

use std::f64::consts::LOG2_E;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use engine_protocol::{BlockChoice, WorkKind, WorkType};
use tch::{Device, Kind, Tensor};

use super::driver::{self, Function};
use super::element::{Element, bytes_of, check};
use super::loaded::Loaded;
use super::nvrtc::{self, Source};
#[cfg(test)]
use super::ptx;
use crate::cuda::{OwnKernel, launch_observed};
use crate::error::{Error, Result};

/// Keys of a tile.
pub const KEY_TILE: i64 = 64;
/// Queries of a tile.
pub const QUERY_TILE: i64 = 128;
/// Warps of a block, and their lanes.
pub(super) const WARPS: i64 = 4;
const LANES: i64 = 32;

/// The kernels' source.
pub(super) const SOURCE: &Source = &[
    ("sage.cu", include_str!("../attention/sage/sage.cu")),
    ("blocks.cuh", include_str!("../attention/sage/blocks.cuh")),
    ("choose.cuh", include_str!("../attention/sage/choose.cuh")),
    ("attention.cuh", include_str!("../attention/sage/attention.cuh")),
    ("quantise.cuh", include_str!("../attention/sage/quantise.cuh")),
    ("heads.cuh", include_str!("../attention/sage/heads.cuh")),
    nvrtc::ELEMENTS,
    nvrtc::WARP,
];

/// The kernels by the numbers of `on_cpu.cpp`.
pub(super) const NAMES: [&str; 6] = ["sage_keys", "sage_values", "sage_attention", "sparge_means", "sparge_choice", "sparge_attention"];
const KEYS: usize = 0;
const VALUES: usize = 1;
const ATTENTION: usize = 2;
pub(super) const MEANS: usize = 3;
pub(super) const CHOICE: usize = 4;
const CHOSEN_ATTENTION: usize = 5;

unsafe extern "C" {
    fn lowmem_sage_on_cpu(element: c_int, head: c_int, kernel: c_int, given: *const c_void, x: i64, y: i64, z: i64) -> c_int;
    #[cfg(test)]
    fn lowmem_order_of_warps(in_turns: bool, from_last: bool, copies_late: bool);
}

/// Runs `run`, in which the warps of each block on the CPU take turns (see `cuda/turns.h`): from the first or the last on, and with copies that arrive at once or as late as they may.
#[cfg(test)]
pub(crate) fn with_warps_in_turns<R>(from_last: bool, copies_late: bool, run: impl FnOnce() -> R) -> R {
    // SAFETY: it says what blocks that this thread runs from now on do, and none runs.
    unsafe { lowmem_order_of_warps(true, from_last, copies_late) };
    let result = run();
    // SAFETY: as above.
    unsafe { lowmem_order_of_warps(false, false, false) };
    result
}

/// What kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The type of queries, keys, values and the result.
    element: Element,
    /// Channels of a head, padded.
    head: i64,
}

impl Variant {
    /// For heads of so many channels, of that type.
    ///
    /// # Errors
    /// There is no kernel for them.
    pub fn new(kind: Kind, channels: i64) -> Result<Self> {
        if !(8..=engine_protocol::SAGE_HEAD_SIZE).contains(&channels) || channels % 8 != 0 {
            return Err(Error::Input(format!(
                "attention in 8 bits takes heads of 8 to 128 channels, a multiple of 8, and not {channels}: use attn_type=sdpa"
            )));
        }
        Ok(Self::padded(element(kind)?, Self::head_for(channels)))
    }

    pub(super) fn padded(element: Element, head: i64) -> Self {
        Self { element, head }
    }

    /// Channels of a head as they are packed, of so many.
    pub fn head_for(channels: i64) -> i64 {
        if channels <= 64 { 64 } else { 128 }
    }

    /// Channels of a head as they are packed.
    pub fn head(self) -> i64 {
        self.head
    }

    /// That it is for such tensors.
    ///
    /// # Errors
    /// A type of numbers that there is no kernel for.
    pub(super) fn check(self, tensor: &Tensor) -> Result<()> {
        assert!(element(tensor.kind())? == self.element && shape(tensor)[3] <= self.head, "the variant is for these");
        Ok(())
    }

    /// Options of the compiler, for that compute capability.
    pub(super) fn options(self, capability: (u32, u32)) -> Vec<String> {
        self.element.options(capability).into_iter().chain([format!("-DSAGE_HEAD={}", self.head)]).collect()
    }

    /// The kernel, compiled and loaded when it is first asked for.
    fn function(self, kernel: usize) -> Result<Function> {
        static LOADED: Loaded<Variant, { NAMES.len() }> = Loaded::new();
        Ok(LOADED.get(self, "sage", SOURCE, NAMES, |capability| self.options(capability))?[kernel])
    }

    /// Runs a kernel.
    ///
    /// # Safety
    /// `given` is the kernel's own parameter, and what it points to has the sizes that it says, on `device`.
    pub(super) unsafe fn run<P>(self, device: Device, kernel: usize, work: &OwnKernel, blocks: [i64; 3], given: &P) -> Result<()> {
        if device == Device::Cpu {
            // SAFETY: as the caller says.
            #[cfg(test)]
            if unsafe { ptx::run(SOURCE, NAMES[kernel], |capability| self.options(capability), blocks, given) } {
                return Ok(());
            }
            let [x, y, z] = blocks;
            let given = std::ptr::from_ref(given).cast();
            // SAFETY: as the caller says.
            let answer = unsafe { lowmem_sage_on_cpu(self.element.number(), self.head as c_int, kernel as c_int, given, x, y, z) };
            assert_eq!(answer, 0, "there is such a kernel");
            return Ok(());
        }
        let function = self.function(kernel)?;
        let grid = blocks.map(|count| {
            u32::try_from(count).map_err(|_| Error::Input("attention in 8 bits: the video is too long for its kernel".into()))
        });
        let [x, y, z] = grid;
        let grid = [x?, y?, z?];
        // SAFETY: as the caller says. Tensors that the kernel reads and writes are freed by libtorch in the order of the stream.
        launch_observed(work, || unsafe { driver::launch(function, grid, (WARPS * LANES) as u32, given) })
    }
}

/// A tensor `[batch, heads, tokens, channels]`: `View` of `heads.cuh`.
#[repr(C)]
pub(super) struct View {
    data: *mut c_void,
    strides: [i64; 3],
}

impl View {
    pub(super) fn of(tensor: &Tensor) -> Self {
        let strides = tensor.stride();
        assert!(can_be_read(tensor), "channels lie side by side, from multiples of 16 bytes on");
        Self { data: tensor.data_ptr(), strides: [strides[0], strides[1], strides[2]] }
    }
}

/// Whether kernels can read the tensor as it lies.
pub fn can_be_read(tensor: &Tensor) -> bool {
    let (strides, bytes) = (tensor.stride(), tensor.kind().elt_size_in_bytes() as i64);
    let [batch, head, token, 1] = strides[..] else { return false };
    [batch, head, token].iter().all(|stride| stride * bytes % 16 == 0) && (tensor.data_ptr() as usize).is_multiple_of(16)
}

/// `Keys` of `quantise.cuh`.
#[repr(C)]
struct GivenKeys {
    keys: View,
    means: *const c_void,
    packed: *mut c_void,
    scales: *mut c_void,
    sizes: Sizes,
}

/// `Values` of `quantise.cuh`.
#[repr(C)]
struct GivenValues {
    values: View,
    packed: *mut c_void,
    scales: *mut c_void,
    sizes: Sizes,
}

/// How those that take keys and values end.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) heads: i64,
    pub(super) tokens: i64,
    pub(super) channels: i64,
    pub(super) tiles: i64,
}

/// `Attention` of `attention.cuh`.
#[repr(C)]
struct GivenAttention {
    queries: View,
    result: View,
    keys: *const c_void,
    key_scales: *const c_void,
    values: *const c_void,
    value_scales: *const c_void,
    heads: i64,
    query_tokens: i64,
    key_tokens: i64,
    channels: i64,
    key_tiles: i64,
    chosen: *const c_void,
    negligible: f64,
}

fn element(kind: Kind) -> Result<Element> {
    Element::of(kind).ok_or_else(|| Error::Input(format!("attention in 8 bits takes fp32, bf16 and fp16, and not {kind:?}")))
}

/// Tiles of so many keys.
pub fn key_tiles(tokens: i64) -> i64 {
    (tokens + KEY_TILE - 1) / KEY_TILE
}

/// Tiles of so many queries.
pub fn query_tiles(tokens: i64) -> i64 {
    (tokens + QUERY_TILE - 1) / QUERY_TILE
}

pub(super) fn shape(tensor: &Tensor) -> [i64; 4] {
    <[i64; 4]>::try_from(tensor.size()).expect("[batch, heads, tokens, channels]")
}

pub(super) fn work(name: &'static CStr, tensors: &[&Tensor]) -> OwnKernel {
    OwnKernel { name, kind: WorkKind::Pointwise, dtype: WorkType::Fp32, operations: 0.0, bytes: bytes_of(tensors) }
}

/// Keys minus `means` in int8, and the scale of each tile.
///
/// # Shapes
/// `keys` is `[B, heads, L, D]`, `means` `[B, heads, 1, D]` in fp32, `packed` `[B, heads, tiles, 64, head]` bytes, `scales` `[B, heads, tiles]` in fp32.
///
/// # Errors
/// The compiler's and the driver's.
pub fn quantise_keys(variant: Variant, keys: &Tensor, means: &Tensor, packed: &Tensor, scales: &Tensor) -> Result<()> {
    let [batch, heads, tokens, channels] = shape(keys);
    let tiles = key_tiles(tokens);
    variant.check(keys)?;
    check(means, keys, Kind::Float, &[batch, heads, 1, channels]);
    check(packed, keys, Kind::Uint8, &[batch, heads, tiles, KEY_TILE, variant.head]);
    check(scales, keys, Kind::Float, &[batch, heads, tiles]);
    let given = GivenKeys {
        keys: View::of(keys),
        means: means.data_ptr(),
        packed: packed.data_ptr(),
        scales: scales.data_ptr(),
        sizes: Sizes { heads, tokens, channels, tiles },
    };
    let blocks = [(tiles + WARPS - 1) / WARPS, heads, batch];
    // Keys are read twice; the second time they are in the cache.
    let work = work(c"lowmem::sage_keys", &[keys, packed]);
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked.
    unsafe { variant.run(keys.device(), KEYS, &work, blocks, &given) }
}

/// Values in int8, a channel's tokens side by side, and the scale of each channel of each tile.
///
/// # Shapes
/// `values` is `[B, heads, L, D]`, `packed` `[B, heads, head, tiles, 64]` bytes, `scales` `[B, heads, tiles, head]` in fp32.
///
/// # Errors
/// The compiler's and the driver's.
pub fn quantise_values(variant: Variant, values: &Tensor, packed: &Tensor, scales: &Tensor) -> Result<()> {
    let [batch, heads, tokens, channels] = shape(values);
    let tiles = key_tiles(tokens);
    variant.check(values)?;
    check(packed, values, Kind::Uint8, &[batch, heads, variant.head, tiles, KEY_TILE]);
    check(scales, values, Kind::Float, &[batch, heads, tiles, variant.head]);
    let given = GivenValues {
        values: View::of(values),
        packed: packed.data_ptr(),
        scales: scales.data_ptr(),
        sizes: Sizes { heads, tokens, channels, tiles },
    };
    // A warp takes eight channels of a tile.
    let blocks = [tiles * (variant.head / 8) / WARPS, heads, batch];
    let work = work(c"lowmem::sage_values", &[values, packed]);
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked.
    unsafe { variant.run(values.device(), VALUES, &work, blocks, &given) }
}

/// Keys and values as [`quantise_keys`] and [`quantise_values`] leave them.
#[derive(Debug)]
pub struct Packed {
    /// Keys in int8.
    pub keys: Tensor,
    /// A scale for each tile of them.
    pub key_scales: Tensor,
    /// Values in int8.
    pub values: Tensor,
    /// A scale for each channel of each tile.
    pub value_scales: Tensor,
    /// How many there are.
    pub tokens: i64,
}

/// The tiles of keys that each tile of queries attends to. Only [`super::sparge::choose`] makes one.
#[derive(Debug)]
pub struct Chosen {
    pub(super) tiles: Tensor,
    pub(super) by: BlockChoice,
}

impl Chosen {
    /// For each tile of queries how many there are, and which, in their order.
    ///
    /// # Shapes
    /// `[B, heads, tiles of queries, 1 + tiles of keys]`, of which what comes after those that are chosen means nothing.
    pub fn tiles(&self) -> Tensor {
        self.tiles.copy()
    }
}

/// Attention of `queries` over them, or over `chosen` tiles of them, into `result`.
///
/// # Shapes
/// Both are `[B, heads, L, D]`.
///
/// # Errors
/// The compiler's and the driver's.
pub fn attend(variant: Variant, queries: &Tensor, packed: &Packed, chosen: Option<&Chosen>, result: &Tensor) -> Result<()> {
    let [batch, heads, query_tokens, channels] = shape(queries);
    let key_tiles = key_tiles(packed.tokens);
    variant.check(queries)?;
    assert!(
        result.size() == queries.size() && result.kind() == queries.kind() && result.device() == queries.device(),
        "a place for the result"
    );
    check(&packed.keys, queries, Kind::Uint8, &[batch, heads, key_tiles, KEY_TILE, variant.head]);
    check(&packed.key_scales, queries, Kind::Float, &[batch, heads, key_tiles]);
    check(&packed.values, queries, Kind::Uint8, &[batch, heads, variant.head, key_tiles, KEY_TILE]);
    check(&packed.value_scales, queries, Kind::Float, &[batch, heads, key_tiles, variant.head]);
    if query_tokens == 0 || packed.tokens == 0 {
        return Err(Error::Input("attention in 8 bits: there is nothing to attend to".into()));
    }
    if let Some(chosen) = chosen {
        check(&chosen.tiles, queries, Kind::Int, &[batch, heads, query_tiles(query_tokens), 1 + key_tiles]);
    }
    let given = GivenAttention {
        queries: View::of(queries),
        result: View::of(result),
        keys: packed.keys.data_ptr(),
        key_scales: packed.key_scales.data_ptr(),
        values: packed.values.data_ptr(),
        value_scales: packed.value_scales.data_ptr(),
        heads,
        query_tokens,
        key_tokens: packed.tokens,
        channels,
        key_tiles,
        chosen: chosen.map_or(ptr::null(), |chosen| chosen.tiles.data_ptr().cast_const()),
        // In powers of two, as the kernel has its scores.
        negligible: chosen.map_or(f64::MAX, |chosen| chosen.by.pv_threshold * LOG2_E),
    };
    let blocks = [query_tiles(query_tokens), heads, batch];
    let (kernel, name, share) = match chosen {
        None => (ATTENTION, c"lowmem::sage_attention", 1.0),
        Some(chosen) => (CHOSEN_ATTENTION, c"lowmem::sparge_attention", chosen.by.count(key_tiles) as f64 / key_tiles as f64),
    };
    let work = OwnKernel {
        kind: WorkKind::SageAttention,
        dtype: WorkType::Int8,
        operations: share * operations((batch * heads) as f64, [query_tokens, packed.tokens], channels),
        ..work(name, &[queries, result, &packed.keys, &packed.values])
    };
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked. Chosen tiles are numbers of such, and one at least for each tile of queries: nobody but
    // the kernel that chooses makes them.
    unsafe { variant.run(queries.device(), kernel, &work, blocks, &given) }
}

/// Multiplications and additions of attention, all in int8.
pub fn operations(rows: f64, [queries, keys]: [i64; 2], channels: i64) -> f64 {
    4.0 * rows * queries as f64 * keys as f64 * channels as f64
}
