//! Measures what a GPU and its host take, apart from the work of models: copies, small kernels, and memory beside tensors. What kinds of work reach is measured in runs
//! of a model, whose operations are timed: see the harness.

use engine_protocol::{AttnType, Calibration, Measured, MeasuredMemory, Measurement, Secs};
use tch::{Device, Kind, Tensor};

use crate::attention::attend;
use crate::compute_device::start_gpu;
use crate::cuda::{CopyStream, DEVICE, Stream, allocator, host_slab, leave_out_autograd};
use crate::error::Result;
use crate::timing::mark;

/// Measurements of each, after one that is not counted; the median counts.
const REPEATS: usize = 5;
/// Copies, in bytes.
const COPIES: [i64; 2] = [64 << 20, 256 << 20];
/// What is page-locked to see what that takes.
const PINNED: i64 = 1 << 30;
/// Small kernels in a row.
const KERNELS: usize = 1000;
/// Products of this side before them, so that the GPU has work until all are asked for: 14 ms on a GPU of 80 TFLOP/s.
const SIDE: i64 = 8192;

/// Measures the GPU, which takes some seconds.
///
/// # Errors
/// No GPU, and memory that it has not.
pub fn measure() -> Result<Calibration> {
    // As in a case: what the host takes for a kernel is measured.
    leave_out_autograd();
    let device_name = start_gpu()?;
    let (_, memory_bytes) = allocator::free_and_total_bytes()?;
    // First, since whatever is done once is held from then on.
    let process = memory()?;
    let mut measurements = copies()?;
    measurements.extend(small_kernels()?);
    Ok(Calibration { device_name, memory_bytes, process, measurements })
}

fn on_gpu(kind: Kind) -> (Kind, Device) {
    (kind, Device::Cuda(DEVICE as usize))
}

/// What the driver calls used and the allocator does not hold.
fn beside_tensors() -> Result<u64> {
    allocator::synchronize()?;
    let (free, total) = allocator::free_and_total_bytes()?;
    Ok((total - free).saturating_sub(allocator::memory()?.reserved_bytes))
}

fn memory() -> Result<MeasuredMemory> {
    let _ = Tensor::f_zeros([1], on_gpu(Kind::Float))?;
    let context_bytes = beside_tensors()?;
    run_each_kind()?;
    let with_code = beside_tensors()?;
    let _ = Stream::from_pool()?;
    let with_pool = beside_tensors()?;
    let _pinned = host_slab(PINNED, true)?;
    let with_pinned = beside_tensors()?;
    Ok(MeasuredMemory {
        context_bytes,
        code_bytes: with_code.saturating_sub(context_bytes),
        pool_bytes: with_pool.saturating_sub(with_code),
        page_table_bytes: with_pinned.saturating_sub(with_pool),
        pinned_bytes: PINNED as u64,
    })
}

/// Runs what models run, so that its machine code is loaded.
fn run_each_kind() -> Result<()> {
    let random = |shape: &[i64]| Tensor::f_randn(shape, on_gpu(Kind::BFloat16));
    let rows = random(&[512, 1024])?;
    let products = rows.f_linear::<Tensor>(&random(&[1024, 1024])?, None)?.f_gelu("tanh")?.f_silu()?;
    let _ = products.f_layer_norm([1024], None::<&Tensor>, None, 1e-6, false)?.f_rms_norm([1024], Some(&random(&[1024])?), 1e-6)?;
    let heads = random(&[1, 8, 512, 128])?;
    let _ = attend(AttnType::Sdpa, &heads, &heads, &heads)?;
    let video = random(&[1, 3, 32, 32, 96])?.f_permute([0, 4, 1, 2, 3])?;
    let filter = random(&[96, 3, 3, 3, 96])?.f_permute([0, 4, 1, 2, 3])?;
    let _ = video.f_conv3d::<Tensor>(&filter, None, [1, 1, 1], [0, 1, 1], [1, 1, 1], 1)?;
    Ok(())
}

fn copies() -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for bytes in COPIES {
        let mut there = Tensor::f_empty([bytes], on_gpu(Kind::Uint8))?;
        let mut add = |what, secs| measurements.push(Measurement { what, amount: bytes as f64, secs });
        let pinned = host_slab(bytes, true)?;
        let mut copies = CopyStream::new(Stream::current()?);
        add(Measured::PinnedToDevice, median(|| Ok(()), || copies.copy(&there, &pinned, bytes))?);
        add(Measured::ToPinned, median(|| Ok(()), || Ok(pinned.shallow_clone().f_copy_(&there).map(drop)?))?);
        let pageable = Tensor::f_zeros([bytes], (Kind::Uint8, Device::Cpu))?;
        add(Measured::PageableToDevice, median(|| Ok(()), || Ok(there.f_copy_(&pageable).map(drop)?))?);
    }
    Ok(measurements)
}

fn small_kernels() -> Result<[Measurement; 2]> {
    let mut small = Tensor::f_zeros([1], on_gpu(Kind::Float))?;
    let one = small.f_ones_like()?;
    let mut row = || (0..KERNELS).try_for_each(|_| small.f_add_(&one).map(drop).map_err(Into::into));
    let waited_for = median(|| Ok(()), &mut row)?;
    let square = Tensor::f_zeros([SIDE, SIDE], on_gpu(Kind::BFloat16))?;
    let work = || (0..10).try_for_each(|_| square.f_mm(&square).map(drop).map_err(Into::into));
    let in_a_row = median(work, &mut row)?;
    let of = |what, secs| Measurement { what, amount: KERNELS as f64, secs };
    Ok([of(Measured::Launches, waited_for), of(Measured::SmallKernels, in_a_row)])
}

/// The median of what `run` takes on the device, each time after `before`.
fn median(before: impl Fn() -> Result<()>, mut run: impl FnMut() -> Result<()>) -> Result<Secs> {
    run()?;
    let mut all = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        allocator::synchronize()?;
        before()?;
        let begun = mark(Stream::current()?)?;
        run()?;
        let ended = mark(Stream::current()?)?;
        ended.synchronize()?;
        all.push(begun.until(&ended)?);
    }
    all.sort_by(|a, b| a.expected.total_cmp(&b.expected));
    Ok(all[REPEATS / 2])
}
