//! Safetensors: one file, or several with an index that says which tensor is in which.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;
use tch::Kind;

use super::mapped::{MappedFile, StoredTensor};
use crate::error::{Error, Result};

/// Bytes before the header: its length, little-endian.
const LENGTH_BYTES: usize = 8;

/// The longest header that is read, as the format's own library has it.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of the safetensors file at `path`.
///
/// # Errors
/// A file that cannot be read, is truncated, or is none.
pub(super) fn open_file(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let file = Arc::new(MappedFile::open(path)?);
    let damaged = |what: &str| Error::at(path, &format!("not a whole safetensors file: {what}: fetch it again"));

    // 1. The header.
    let first = file.bytes().first_chunk::<LENGTH_BYTES>().ok_or_else(|| damaged(&format!("it has {} bytes", file.len())))?;
    let length = u64::from_le_bytes(*first);
    let data = length.saturating_add(LENGTH_BYTES as u64);
    if length > MAX_HEADER_BYTES || data > file.len() {
        return Err(damaged(&format!("its header should have {length} bytes, and the file has {}", file.len())));
    }
    let header = &file.bytes()[LENGTH_BYTES..data as usize];
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| damaged(&format!("its header is damaged ({error})")))?;

    // 2. The tensors, which fill the rest of the file exactly.
    let (mut tensors, mut end) = (BTreeMap::new(), data);
    for (name, info) in metadata.tensors() {
        let shape = info.shape.iter().map(|&side| side as i64).collect();
        let kind = kind_of(info.dtype).ok_or_else(|| Error::at(path, &format!("{name}: type {:?} is not read", info.dtype)))?;
        let (from, to) = info.data_offsets;
        let stored = StoredTensor::in_order(&file, &name, kind, shape, data.saturating_add(from as u64))?;
        end = end.max(data.saturating_add(to as u64));
        tensors.insert(name, stored);
    }
    if end != file.len() {
        return Err(damaged(&format!("its header speaks of {end} bytes, and the file has {}", file.len())));
    }
    Ok(tensors)
}

/// The tensors of all files that the index at `path` names, file by file.
///
/// # Errors
/// An index that cannot be read, that names a file outside its folder or one that is not there, and what [`open_file`] refuses.
pub(super) fn open_index(path: &Path) -> Result<Vec<BTreeMap<String, StoredTensor>>> {
    // 1. The index.
    let text = fs::read(path).map_err(|error| Error::file(path, error))?;
    let index: Value =
        serde_json::from_slice(&text).map_err(|error| Error::at(path, &format!("not an index of shards: {error}: fetch it again")))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| Error::at(path, "not an index of shards: it has no `weight_map`: fetch it again"))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, shard) in map {
        let shard = shard.as_str().ok_or_else(|| Error::at(path, &format!("{key}: its file is no name but {shard}")))?;
        if !Path::new(shard).components().all(|part| matches!(part, Component::Normal(_))) || shard.is_empty() {
            return Err(Error::at(
                path,
                &format!("{key}: its file `{shard}` lies outside the folder: only files beside the index are read"),
            ));
        }
        shards.entry(shard).or_default().push(key);
    }

    // 2. Its files.
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::with_capacity(shards.len());
    for (shard, keys) in shards {
        let file = folder.join(shard);
        if !file.is_file() {
            let first = keys.first().copied().unwrap_or_default();
            return Err(Error::at(path, &format!("{first}: its file `{shard}` is not there: fetch it again")));
        }
        let tensors = open_file(&file)?;
        if let Some(key) = keys.into_iter().find(|&key| !tensors.contains_key(key)) {
            return Err(Error::at(&file, &format!("{key}: not in this file, where {} has it: fetch both again", path.display())));
        }
        files.push(tensors);
    }
    Ok(files)
}

/// libtorch's name of a type.
fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F8_E4M3 => Kind::Float8e4m3fn,
        Dtype::F8_E5M2 => Kind::Float8e5m2,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}
