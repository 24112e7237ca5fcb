//! `cargo bench --bench streaming`: a pass with weights that are streamed from their file, on this machine's disk and with none of the file in memory, against what
//! the disk alone takes for as many bytes. With `-- --write` the table goes to engine/benches/streaming.md.
//!
//! It runs on the CPU, where there is no bus: the disk is the bound. Arithmetic stands beside the reading, less of it than would be the bound itself. Both are timed in
//! turn, and the least of each counts, since others may use the disk and the processor too. The file goes to the build folder, or to the folder that LOWMEM_BENCH_FOLDER names.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::disk_rate;
use engine::memory::{PageLocking, Place, Residency, Waits};
use engine::weights::{Group, GroupName, Groups, Source, WeightTypes};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

/// Sides of a linear layer, in bf16, and how many make a group: half the self-attention of a 14B block.
const SIDE: i64 = 5120;
const LAYERS: usize = 2;
const GROUPS: usize = 24;
/// Timed are those after so many, whose buffers are there by then, and before the last ones, after which nothing is read that was not read before.
const BEFORE: usize = 4;
const AFTER: usize = 3;
/// Tokens of the arithmetic beside it, and layers of a group that compute.
const TOKENS: i64 = 1;
const COMPUTING: usize = 1;
const PREFETCH: u32 = 2;
const ROUNDS: usize = 11;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::var_os("LOWMEM_BENCH_FOLDER").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let path = folder.path().join("model.safetensors");
    write(&path)?;
    let bytes = std::fs::metadata(&path)?.len() as f64;
    let (mut disks, mut passes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        disks.push(bytes / disk_rate::read_whole(&path)?);
        let read = read_bytes()?;
        passes.push(pass(&path)?);
        // What came from the system's pages would say nothing of the disk.
        let (read, used) = (read_bytes()? - read, bytes * (GROUPS - AFTER) as f64 / GROUPS as f64);
        assert!(read >= 0.98 * used, "{read} bytes came from the disk, and {used} were used");
    }
    disks.sort_by(f64::total_cmp);
    passes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (disk, (secs, arithmetic)) = (disks[0], passes[0]);
    let mut table = "| | least s | median s | GB/s |\n|---|--:|--:|--:|\n".to_owned();
    writeln!(table, "| the disk alone | {disk:.2} | {:.2} | {:.2} |", disks[ROUNDS / 2], bytes / disk / 1e9)?;
    writeln!(
        table,
        "| a pass, with {arithmetic:.2} s of arithmetic beside it | {secs:.2} | {:.2} | {:.2} |",
        passes[ROUNDS / 2].0,
        bytes / secs / 1e9
    )?;
    let said = format!(
        "A pass takes {:.2} times what the disk alone takes, {:.2} times in the medians.",
        secs / disk,
        passes[ROUNDS / 2].0 / disks[ROUNDS / 2]
    );
    println!("{table}\n{said}");
    if std::env::args().any(|word| word == "--write") {
        let text = format!(
            "# Streaming from the file\n\nMade by `make bench`: {:.2} GB of weights in bf16 in {GROUPS} groups, read {ROUNDS} times from the disk with none of them in memory before, on \
             {} cores, with {PREFETCH} groups on their way, and by turns with the same file read by as many threads and nothing else: the disk alone. There is no bus on the CPU. Others may use \
             disk and processor too, so the least of each is what counts.\n\n{table}\n{said}\n",
            bytes / 1e9,
            std::thread::available_parallelism()?
        );
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/streaming.md"), text)?;
    }
    Ok(())
}

/// Bytes that this process has had from disks.
fn read_bytes() -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: ")).ok_or("the system does not count what is read")?;
    Ok(line.trim().parse()?)
}

fn groups() -> Vec<Group> {
    let group = |index| Group::new(GroupName::numbered("blocks", index as u32, ""), format!("blocks.{index}."));
    let names = (0..LAYERS).map(|layer| format!("layer{layer}")).collect::<Vec<_>>();
    (0..GROUPS).map(|index| names.iter().fold(group(index), |group, name| group.linear(name, SIDE, SIDE))).collect()
}

/// Writes numbers that no disk makes smaller.
fn write(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut bytes = vec![0; (SIDE * SIDE * 2) as usize];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    let mut tensors = Vec::new();
    for group in &groups() {
        for param in &group.params {
            let shape: Vec<usize> = param.shape.iter().map(|&side| side as usize).collect();
            let view = TensorView::new(Dtype::BF16, shape.clone(), &bytes[..shape.iter().product::<usize>() * 2])?;
            tensors.push((group.key(param), view));
        }
    }
    Ok(safetensors::serialize_to_file(tensors, None, path)?)
}

/// Seconds for as many bytes as the file has, as a pass takes them, and of the arithmetic in that: from one group to another, between which as many groups were read
/// as were used.
fn pass(path: &Path) -> engine::Result<(f64, f64)> {
    let groups = groups();
    let names: Vec<GroupName> = groups.iter().map(|group| group.name).collect();
    let places = vec![Place::Streamed { prefetch: PREFETCH, waits: Waits::InFile { ring: PageLocking::Never } }; groups.len()];
    let source = Source::open(path)?;
    let mut weights = Residency::new(groups, &places, WeightTypes::plain(Kind::BFloat16), Device::Cpu, &source)?;
    let input = Tensor::f_ones([TOKENS, SIDE], (Kind::BFloat16, Device::Cpu))?;
    disk_rate::forget(path)?;
    let (mut begun, mut arithmetic) = (Instant::now(), 0.0);
    for (index, name) in names.into_iter().take(GROUPS - AFTER).enumerate() {
        weights.with(name, |weights| {
            let begun = Instant::now();
            for layer in 0..COMPUTING {
                drop(weights.linear(&format!("layer{layer}"), &input)?);
            }
            arithmetic += begun.elapsed().as_secs_f64();
            Ok(())
        })?;
        if index + 1 == BEFORE {
            (begun, arithmetic) = (Instant::now(), 0.0);
        }
    }
    let of_file = GROUPS as f64 / (GROUPS - BEFORE - AFTER) as f64;
    Ok((begun.elapsed().as_secs_f64() * of_file, arithmetic * of_file))
}
