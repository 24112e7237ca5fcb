//! `cargo bench --bench streaming`: a pass with weights that are streamed from their file, on this machine's disk and with none of the file in memory, against what
//! the disk alone takes for as many bytes. With `-- --write` the table goes to engine/benches/streaming.md.
//!
//! It runs on the CPU, where there is no bus: the disk is the bound. Arithmetic stands beside the reading, less of it than would be the bound itself. Both are timed in
//! turn, since a disk that others use too is not as fast all the time. The file goes to the build folder, or to the folder that LOWMEM_BENCH_FOLDER names.

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

/// Sides of a linear layer, in bf16, and how many make a group: the self-attention of a 14B block.
const SIDE: i64 = 5120;
const LAYERS: usize = 4;
const GROUPS: usize = 8;
/// Tokens of the arithmetic beside it.
const TOKENS: i64 = 8;
const PREFETCH: u32 = 2;
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::var_os("LOWMEM_BENCH_FOLDER").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let path = folder.path().join("model.safetensors");
    write(&path)?;
    let bytes = std::fs::metadata(&path)?.len() as f64;
    let mut table = "| round | disk alone s | pass s | of it arithmetic s | pass / disk |\n|--:|--:|--:|--:|--:|\n".to_owned();
    let mut shares = Vec::new();
    let mut before = bytes / disk_rate::read_whole(&path)?;
    for round in 1..=ROUNDS {
        disk_rate::forget(&path)?;
        let (pass, arithmetic) = pass(&path)?;
        // The disk before and after it.
        let after = bytes / disk_rate::read_whole(&path)?;
        let bound = (before + after) / 2.0;
        before = after;
        shares.push(pass / bound);
        writeln!(table, "| {round} | {bound:.2} | {pass:.2} | {arithmetic:.2} | {:.2} |", pass / bound)?;
    }
    shares.sort_by(f64::total_cmp);
    let said = format!(
        "A pass takes {:.2} times what the disk alone takes in the median ({:.2} to {:.2}).",
        shares[ROUNDS / 2],
        shares[0],
        shares[ROUNDS - 1]
    );
    println!("{table}\n{said}");
    if std::env::args().any(|word| word == "--write") {
        let text = format!(
            "# Streaming from the file\n\nMade by `make bench`: {:.2} GB of weights in bf16 in {GROUPS} groups, read from the disk in each round with none of them in memory before, on \
             {} cores, with {PREFETCH} groups on their way. The disk alone: the same file read by as many threads, right before and right after. There is no bus on the CPU, and arithmetic \
             stands beside the reading; \"of it arithmetic\" is how long the model computed meanwhile.\n\n{table}\n{said}\n",
            bytes / 1e9,
            std::thread::available_parallelism()?
        );
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/streaming.md"), text)?;
    }
    Ok(())
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

/// Seconds of a pass from the file, and of the arithmetic in it.
fn pass(path: &Path) -> engine::Result<(f64, f64)> {
    let groups = groups();
    let names: Vec<GroupName> = groups.iter().map(|group| group.name).collect();
    let places = vec![Place::Streamed { prefetch: PREFETCH, waits: Waits::InFile { ring: PageLocking::Never } }; groups.len()];
    let source = Source::open(path)?;
    let mut weights = Residency::new(groups, &places, WeightTypes::plain(Kind::BFloat16), Device::Cpu, &source)?;
    let input = Tensor::f_ones([TOKENS, SIDE], (Kind::BFloat16, Device::Cpu))?;
    let (begun, mut arithmetic) = (Instant::now(), 0.0);
    for name in names {
        weights.with(name, |weights| {
            let begun = Instant::now();
            for layer in 0..LAYERS {
                drop(weights.linear(&format!("layer{layer}"), &input)?);
            }
            arithmetic += begun.elapsed().as_secs_f64();
            Ok(())
        })?;
    }
    Ok((begun.elapsed().as_secs_f64(), arithmetic))
}
