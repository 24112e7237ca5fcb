//! GGUF files, written as the reference's writer does (`gguf-py/gguf/gguf_writer.py`): which tensors, in which types.

use std::fs;
use std::path::{Path, PathBuf};

use engine::weights::blocks::BlockType;
use tch::{Device, Kind, Tensor};

/// Numbers of types in files.
const F32: u32 = 0;
const BF16: u32 = 30;
const ALIGNMENT: usize = 32;

/// A tensor as a file has it.
pub(crate) struct Written {
    name: String,
    /// Outermost first.
    sides: Vec<i64>,
    number: u32,
    bytes: Vec<u8>,
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::<u8>::try_from(tensor.contiguous().view([-1]).view_dtype(Kind::Uint8)).expect("bytes")
}

impl Written {
    /// A tensor in its own type, fp32 or bf16.
    pub(crate) fn plain(name: &str, tensor: &Tensor) -> Self {
        let number = if tensor.kind() == Kind::BFloat16 { BF16 } else { F32 };
        Self { name: name.to_owned(), sides: tensor.size(), number, bytes: bytes(tensor) }
    }

    /// A tensor in blocks, and what it is then.
    pub(crate) fn in_blocks(name: &str, tensor: &Tensor, kind: &BlockType) -> (Self, Tensor) {
        let count = tensor.numel() as i64;
        let packed = Tensor::zeros([kind.bytes_of(count).expect("whole blocks")], (Kind::Uint8, Device::Cpu));
        kind.pack(&tensor.to_kind(Kind::Float).contiguous(), &packed).expect("packed");
        let unpacked = Tensor::zeros(tensor.size().as_slice(), (Kind::Float, Device::Cpu));
        kind.unpack(&packed, &unpacked).expect("unpacked");
        (Self { name: name.to_owned(), sides: tensor.size(), number: kind.number(), bytes: bytes(&packed) }, unpacked)
    }
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend((text.len() as u64).to_le_bytes());
    into.extend(text.as_bytes());
}

/// Writes them.
pub(crate) fn write(path: &Path, tensors: &[Written]) {
    write_one(path, tensors, None, &[]);
}

/// Writes them behind the keys of another file, which has no tensors.
pub(crate) fn write_with_keys_of(keys: &Path, path: &Path, tensors: &[Written]) {
    write_one(path, tensors, None, &fs::read(keys).expect("a file"));
}

/// Writes them to `count` files in `folder`, as `llama-gguf-split` does, and says which is the first.
pub(crate) fn write_split(folder: &Path, tensors: &[Written], count: usize) -> PathBuf {
    let path = |number: usize| folder.join(format!("model-{:05}-of-{count:05}.gguf", number + 1));
    for (number, part) in tensors.chunks(tensors.len().div_ceil(count)).enumerate() {
        write_one(&path(number), part, Some([number as u16, count as u16]), &[]);
    }
    path(0)
}

fn write_one(path: &Path, tensors: &[Written], split: Option<[u16; 2]>, with_keys_of: &[u8]) {
    // Behind the letters, the version and how many tensors there are, which is none.
    let more = with_keys_of.get(16..24).map_or(0, |count| u64::from_le_bytes(count.try_into().expect("eight bytes")));
    let five: Vec<&Written> = tensors.iter().filter(|tensor| tensor.sides.len() > 4).collect();
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    let keys = 1 + five.len() + split.map_or(0, |numbers| numbers.len());
    file.extend((keys as u64 + more).to_le_bytes());
    file.extend(with_keys_of.get(24..).unwrap_or_default());
    for (key, number) in ["split.no", "split.count"].into_iter().zip(split.into_iter().flatten()) {
        text(&mut file, key);
        file.extend(2u32.to_le_bytes());
        file.extend(number.to_le_bytes());
    }
    text(&mut file, "general.architecture");
    file.extend(8u32.to_le_bytes());
    text(&mut file, "wan");
    for tensor in &five {
        text(&mut file, &format!("comfy.gguf.orig_shape.{}", tensor.name));
        file.extend(9u32.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        file.extend((tensor.sides.len() as u64).to_le_bytes());
        tensor.sides.iter().for_each(|&side| file.extend((side as i32).to_le_bytes()));
    }
    let mut offset = 0;
    for tensor in tensors {
        text(&mut file, &tensor.name);
        let flat = vec![tensor.sides.iter().product()];
        let sides = if tensor.sides.len() > 4 { &flat } else { &tensor.sides };
        file.extend((sides.len() as u32).to_le_bytes());
        sides.iter().rev().for_each(|&side| file.extend((side as u64).to_le_bytes()));
        file.extend(tensor.number.to_le_bytes());
        file.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
    }
    for tensor in tensors {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(&tensor.bytes);
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, file).expect("a file");
}
