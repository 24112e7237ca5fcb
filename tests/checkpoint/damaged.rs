//! Ten thousand damaged files of each format: each is read or refused, without a panic, and without memory beyond what the file has.

use std::fs;
use std::path::{Path, PathBuf};

use engine::Checkpoint;
use engine::text_encoder::Tokenizer;
use engine::weights::TensorStore;
use engine::weights::blocks::BlockType;
use engine_protocol::{CheckpointFiles, LoraFile, WeightDtype};
use image::ImageFormat;
use lowmem_tests::root;
use picture::Picture;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};
use rstest::rstest;
use tch::{Device, Kind, Tensor};

use crate::folder::fixture;
use crate::gguf::{self, Written};
use crate::in_blocks::fp32;
use crate::repackaged::{self, E4M3};

/// Some room for what the process has beside a file: other tests run in threads of the same one.
const ROOM: u64 = 512 << 20;

/// The most that this process has had in memory.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// A file in small blocks of several types.
fn in_blocks(folder: &Path) -> PathBuf {
    let path = folder.join("model.gguf");
    let tensor = Tensor::ones([1, 256], (Kind::Float, Device::Cpu));
    let kinds = [WeightDtype::Q4K, WeightDtype::Q6K, WeightDtype::Q5_1, WeightDtype::Iq4Nl];
    let blocks = kinds.into_iter().map(|kind| Written::in_blocks(kind.name(), &tensor, BlockType::of(kind).expect("blocks")).0);
    gguf::write(&path, &blocks.chain([Written::plain("convolution", &tensor.view([2, 2, 4, 4, 4]))]).collect::<Vec<_>>());
    path
}

/// A layer in 8 bits with its scale, and what says so.
fn scaled(folder: &Path) -> PathBuf {
    let path = folder.join("model.safetensors");
    let ones = |shape: &[i64], kind| Tensor::ones(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
    repackaged::write(
        &path,
        &vec![
            ("scaled_fp8".into(), ones(&[2], E4M3.0)),
            ("a.weight".into(), ones(&[4, 8], E4M3.0)),
            ("a.scale_weight".into(), ones(&[], Kind::Float)),
            ("b.weight".into(), ones(&[4, 8], Kind::Int8)),
            ("b.weight_scale".into(), ones(&[4, 1], Kind::Float)),
        ],
    );
    path
}

/// Reads all values of a file's tensors, of which there are no more bytes than it has.
fn read(path: &Path) -> bool {
    let Ok(store) = TensorStore::open(path) else { return false };
    let all: u64 = store.iter().map(|(_, stored)| stored.bytes()).sum();
    assert!(all <= fs::metadata(path).expect("a file").len(), "{all} bytes of tensors");
    store.iter().filter(|(_, stored)| stored.is_float()).for_each(|(_, stored)| drop(fp32(stored)));
    true
}

fn read_lora(path: &Path) -> bool {
    let loras = vec![LoraFile { path: path.to_owned(), strength: 1.0, noise: None }];
    Checkpoint::open_files(&CheckpointFiles { loras, ..CheckpointFiles::folder(fixture("original")) }).is_ok()
}

/// A copy of one of the fixtures.
fn a_copy(folder: &Path, of: &str) -> PathBuf {
    let of = root().join("tests/fixtures").join(of);
    let path = folder.join(of.file_name().expect("a name"));
    fs::copy(of, &path).expect("a copy");
    path
}

fn a_picture(folder: &Path, format: ImageFormat) -> PathBuf {
    let path = folder.join("picture");
    image::open(root().join("tests/fixtures/picture.png")).and_then(|picture| picture.save_with_format(&path, format)).expect("a picture");
    path
}

fn read_picture(path: &Path) -> bool {
    Picture::open(path).is_ok()
}

#[rstest]
#[case::gguf(in_blocks, read)]
#[case::gguf_tokenizer(|folder: &Path| a_copy(folder, "tokenizer/tokenizer.gguf"), |path: &Path| Tokenizer::open(path).is_ok())]
#[case::scaled(scaled, read)]
#[case::lora(|folder: &Path| a_copy(folder, "lora/kohya.safetensors"), read_lora)]
#[case::clip(|folder: &Path| a_copy(folder, "image_to_video.image_encoder.safetensors"), read)]
#[case::png(|folder: &Path| a_picture(folder, ImageFormat::Png), read_picture)]
#[case::jpeg(|folder: &Path| a_picture(folder, ImageFormat::Jpeg), read_picture)]
#[case::webp(|folder: &Path| a_picture(folder, ImageFormat::WebP), read_picture)]
fn ten_thousand_damaged_files_are_read_or_refused(#[case] make: fn(&Path) -> PathBuf, #[case] is_read: fn(&Path) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = make(folder.path());
    let whole = fs::read(&path).unwrap();
    assert!(is_read(&path), "whole it is read");
    let header = 600.min(whole.len());
    let damage = prop_oneof![
        4 => (0..header, any::<u8>()).prop_map(|(at, bit)| (at, vec![bit], usize::MAX)),
        4 => (0..header, prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| (at, bytes, usize::MAX)),
        1 => (0..whole.len()).prop_map(|length| (0, Vec::new(), length)),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| (4, bytes, usize::MAX)),
    ];
    let before = peak_bytes();
    let mut runner = TestRunner::new_with_rng(
        Cases { failure_persistence: None, ..Cases::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]),
    );
    let mut refused = 0;
    for _ in 0..10_000 {
        let (at, bytes, length) = damage.new_tree(&mut runner).expect("a damage").current();
        let mut file = whole.clone();
        let end = (at + bytes.len()).min(file.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
        file.truncate(length);
        fs::write(&path, &file).expect("the file");
        refused += usize::from(!is_read(&path));
    }
    assert!(refused > 1000, "{refused} refused");
    // The kernel's own sums of threads are a little behind: a peak may be less than it was.
    let more = peak_bytes().saturating_sub(before);
    assert!(more < ROOM, "{more} bytes more than before");
}
