//! Measures what a GPU reaches: copies, matrix products, attention, convolutions, and what goes by memory, each over a few sizes of the models' own.
//!
//! Everything is large enough that asking for it and the first microseconds of a kernel do not count, and small enough for 8 GB.

use engine_protocol::{AttnType, Calibration, Measured, Measurement, Secs, WorkKind};
use tch::{Device, Kind, Tensor};

use crate::attention::attend;
use crate::compute_device::start_gpu;
use crate::cuda::{CopyStream, DEVICE, Stream, allocator, host_slab};
use crate::error::Result;
use crate::timing::mark;

/// Measurements of each, after one that is not counted; the median counts.
const REPEATS: usize = 5;
/// Copies, in bytes.
const COPIES: [i64; 2] = [64 << 20, 256 << 20];
/// Matrix products, as rows, inner and outer side: squares, and layers of the 1.3B and 14B models.
const PRODUCTS: [[i64; 3]; 5] = [[4096, 4096, 4096], [8192, 8192, 8192], [32760, 1536, 8960], [32760, 5120, 5120], [16384, 5120, 13824]];
/// Attention, as tokens and heads of 128.
const ATTENTION: [[i64; 2]; 2] = [[8192, 24], [16384, 12]];
/// Convolutions of the VAE's decoder over three frames, as channels, height and width.
const CONVOLUTIONS: [[i64; 3]; 3] = [[384, 60, 104], [192, 240, 416], [96, 480, 832]];
/// What goes by memory, as rows and the size of a row.
const ROWS: [[i64; 2]; 2] = [[32760, 5120], [75600, 5120]];

/// Measures the GPU, which takes some seconds.
///
/// # Errors
/// No GPU, and memory that it has not.
pub fn measure() -> Result<Calibration> {
    let device_name = start_gpu(false)?;
    let mut measurements = Vec::new();
    let mut add = |what, size: String, amount: f64, secs| measurements.push(Measurement { what, size, amount, secs });
    let gpu = |shape: &[i64]| Tensor::f_randn(shape, (Kind::BFloat16, Device::Cuda(DEVICE as usize)));
    let bytes_of = |tensor: &Tensor| tensor.numel() as f64 * 2.0;

    for bytes in COPIES {
        let size = format!("{} MiB", bytes >> 20);
        let mut there = Tensor::f_empty([bytes], (Kind::Uint8, Device::Cuda(DEVICE as usize)))?;
        let pinned = host_slab(bytes, true)?;
        let mut copies = CopyStream::new(Stream::current()?);
        let secs = median(|| copies.copy(&there, &pinned, bytes))?;
        add(Measured::PinnedToDevice, size.clone(), bytes as f64, secs);
        let secs = median(|| Ok(pinned.shallow_clone().f_copy_(&there).map(drop)?))?;
        add(Measured::ToPinned, size.clone(), bytes as f64, secs);
        let pageable = Tensor::f_zeros([bytes], (Kind::Uint8, Device::Cpu))?;
        let secs = median(|| Ok(there.f_copy_(&pageable).map(drop)?))?;
        add(Measured::PageableToDevice, size, bytes as f64, secs);
    }
    for [rows, inner, outer] in PRODUCTS {
        let (a, b) = (gpu(&[rows, inner])?, gpu(&[outer, inner])?);
        let secs = median(|| Ok(a.f_linear::<Tensor>(&b, None).map(drop)?))?;
        add(Measured::Work(WorkKind::Gemm), format!("{rows} x {inner} x {outer}"), 2.0 * (rows * inner) as f64 * outer as f64, secs);
    }
    for (kind, attn_type) in [(WorkKind::Attention, AttnType::Flash), (WorkKind::CudnnAttention, AttnType::Sdpa)] {
        for [tokens, heads] in ATTENTION {
            let heads_of = || Ok::<_, crate::Error>(gpu(&[1, tokens, heads, 128])?.f_transpose(1, 2)?);
            let [q, k, v] = [heads_of()?, heads_of()?, heads_of()?];
            let secs = median(|| attend(attn_type, &q, &k, &v).map(drop))?;
            let operations = 4.0 * (tokens * tokens) as f64 * (heads * 128) as f64;
            add(Measured::Work(kind), format!("{tokens} tokens, {heads} heads of 128"), operations, secs);
        }
    }
    for [channels, height, width] in CONVOLUTIONS {
        // Channels innermost, as the engine keeps them.
        let inner = |shape: [i64; 5]| Ok::<_, crate::Error>(gpu(&shape)?.f_permute([0, 4, 1, 2, 3])?);
        let (input, weight) = (inner([1, 3, height, width, channels])?, inner([channels, 3, 3, 3, channels])?);
        let secs = median(|| Ok(input.f_conv3d::<Tensor>(&weight, None, [1, 1, 1], [0, 1, 1], [1, 1, 1], 1).map(drop)?))?;
        let operations = 2.0 * (channels * height * width) as f64 * (channels * 27) as f64;
        add(Measured::Work(WorkKind::Convolution), format!("{channels} channels, 3x{height}x{width}"), operations, secs);
    }
    for [rows, row] in ROWS {
        let mut x = gpu(&[rows, row])?;
        let (y, weight) = (gpu(&[rows, row])?, gpu(&[row])?);
        let bytes = bytes_of(&x);
        let size = format!("{rows} x {row}");
        let secs = median(|| Ok(x.f_add_(&y).map(drop)?))?;
        add(Measured::Work(WorkKind::Pointwise), format!("add_, {size}"), 3.0 * bytes, secs);
        let secs = median(|| Ok(x.f_copy_(&y).map(drop)?))?;
        add(Measured::Work(WorkKind::Pointwise), format!("copy_, {size}"), 2.0 * bytes, secs);
        let secs = median(|| Ok(y.f_layer_norm([row], None::<&Tensor>, None, 1e-6, false).map(drop)?))?;
        add(Measured::Work(WorkKind::Reduction), format!("layer_norm, {size}"), 2.0 * bytes, secs);
        let secs = median(|| Ok(y.f_rms_norm([row], Some(&weight), 1e-6).map(drop)?))?;
        add(Measured::Work(WorkKind::Reduction), format!("rms_norm, {size}"), 2.0 * bytes, secs);
    }
    Ok(Calibration { device_name, measurements })
}

/// The median of what `run` takes on the device.
fn median(mut run: impl FnMut() -> Result<()>) -> Result<Secs> {
    run()?;
    let mut all = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        allocator::synchronize()?;
        let begun = mark(Stream::current()?)?;
        run()?;
        let ended = mark(Stream::current()?)?;
        ended.synchronize()?;
        all.push(begun.until(&ended)?);
    }
    all.sort_by(|a, b| a.expected.total_cmp(&b.expected));
    Ok(all[REPEATS / 2])
}
