//! Which keys attention in 8 bits attends to, where it leaves some out (`engine/src/attention/sage/choose.cuh`): kernels as functions of tensors.
#![expect(unsafe_code, reason = "kernels read and write memory by address: what they are given is held against what they do")]

use std::ffi::c_void;

use engine_protocol::{BlockChoice, WorkType};
use tch::{Kind, Tensor};

use super::element::{bytes_of, check};
use super::sage::{CHOICE, Chosen, MEANS, Sizes, Variant, View, WARPS, key_tiles, query_tiles, shape, work};
use crate::cuda::OwnKernel;
use crate::error::Result;

/// What keys are chosen by.
#[derive(Debug)]
pub struct KeyMeans {
    /// The mean of each tile of keys.
    pub means: Tensor,
    /// How alike the keys of each tile are.
    pub likeness: Tensor,
}

/// `Means` of `choose.cuh`.
#[repr(C)]
struct GivenMeans {
    keys: View,
    shared: *const c_void,
    means: *mut c_void,
    likeness: *mut c_void,
    sizes: Sizes,
}

/// `Choice` of `choose.cuh`.
#[repr(C)]
struct GivenChoice {
    queries: View,
    means: *const c_void,
    likeness: *const c_void,
    chosen: *mut c_void,
    heads: i64,
    query_tokens: i64,
    channels: i64,
    key_tiles: i64,
    count: i64,
    alike: f64,
}

/// The mean of each tile of keys minus what `shared` has, which all of them share, and how alike they are.
///
/// # Shapes
/// `keys` is `[B, heads, L, D]`, `shared` `[B, heads, 1, D]` in fp32.
///
/// # Errors
/// libtorch's, the compiler's and the driver's.
pub fn key_means(variant: Variant, keys: &Tensor, shared: &Tensor) -> Result<KeyMeans> {
    let [batch, heads, tokens, channels] = shape(keys);
    let tiles = key_tiles(tokens);
    variant.check(keys)?;
    check(shared, keys, Kind::Float, &[batch, heads, 1, channels]);
    let means = Tensor::f_empty([batch, heads, tiles, variant.head()], (Kind::Float, keys.device()))?;
    let likeness = Tensor::f_empty([batch, heads, tiles], (Kind::Float, keys.device()))?;
    let given = GivenMeans {
        keys: View::of(keys),
        shared: shared.data_ptr(),
        means: means.data_ptr(),
        likeness: likeness.data_ptr(),
        sizes: Sizes { heads, tokens, channels, tiles },
    };
    let work = work(c"lowmem::sparge_means", &[keys, &means]);
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked.
    unsafe { variant.run(keys.device(), MEANS, &work, [(tiles + WARPS - 1) / WARPS, heads, batch], &given) }?;
    Ok(KeyMeans { means, likeness })
}

/// Chooses for each tile of `queries` among so many `keys`.
///
/// # Shapes
/// `queries` is `[B, heads, L, D]`.
///
/// # Errors
/// libtorch's, the compiler's and the driver's.
pub fn choose(variant: Variant, queries: &Tensor, keys: &KeyMeans, by: BlockChoice) -> Result<Chosen> {
    let [batch, heads, query_tokens, channels] = shape(queries);
    let key_tiles = shape(&keys.means)[2];
    variant.check(queries)?;
    check(&keys.means, queries, Kind::Float, &[batch, heads, key_tiles, variant.head()]);
    check(&keys.likeness, queries, Kind::Float, &[batch, heads, key_tiles]);
    let tiles = Tensor::f_empty([batch, heads, query_tiles(query_tokens), 1 + key_tiles], (Kind::Int, queries.device()))?;
    let given = GivenChoice {
        queries: View::of(queries),
        means: keys.means.data_ptr(),
        likeness: keys.likeness.data_ptr(),
        chosen: tiles.data_ptr(),
        heads,
        query_tokens,
        channels,
        key_tiles,
        count: by.count(key_tiles),
        alike: by.similarity,
    };
    let blocks = [(query_tiles(query_tokens) + WARPS - 1) / WARPS, heads, batch];
    // A row of numbers is written, passed once for each of their bits and twice more, and written again.
    const PASSES: f64 = 36.0;
    let own = work(c"lowmem::sparge_choice", &[queries, &keys.means]);
    let work = OwnKernel {
        dtype: WorkType::Fp32,
        operations: 2.0 * (batch * heads * query_tiles(query_tokens) * key_tiles * variant.head()) as f64,
        bytes: own.bytes + PASSES * bytes_of(&[&tiles]),
        ..own
    };
    // SAFETY: it is what the kernel takes, and sizes are those of the tensors, as just checked.
    unsafe { variant.run(queries.device(), CHOICE, &work, blocks, &given) }?;
    Ok(Chosen { tiles, by })
}

/// The bytes of [`KeyMeans`], of so many heads in all, tokens and channels as they are packed.
pub fn means_bytes(heads: i64, tokens: i64, head: i64) -> i64 {
    heads * key_tiles(tokens) * (head + 1) * FP32
}

/// The bytes of [`Chosen`].
pub fn chosen_bytes(heads: i64, [queries, keys]: [i64; 2]) -> i64 {
    heads * query_tiles(queries) * (1 + key_tiles(keys)) * FP32
}

/// Bytes of an fp32 number, and of a tile's.
const FP32: i64 = 4;
