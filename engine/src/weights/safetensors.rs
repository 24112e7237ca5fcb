//! Safetensors: one file, or several with an index that says which tensor is in which.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use tch::Kind;
use untrusted::shown;

use super::mapped::{AGAIN, MappedFile, StoredTensor};
use crate::error::{Error, Result};
use crate::files::{Folder, check_extent, limits};

/// Bytes before the header: its length, little-endian.
const LENGTH_BYTES: usize = 8;

/// The tensors of the safetensors file at `path` in `folder`.
///
/// # Errors
/// A file that cannot be read, is truncated, or is none.
pub(super) fn open_file(path: &Path, folder: &Folder) -> Result<BTreeMap<String, StoredTensor>> {
    let file = Arc::new(MappedFile::open(path, folder)?);
    let damaged = |what: &str| Error::at(path, &format!("not a whole safetensors file: {what}: {AGAIN}"));

    // 1. The header.
    let first = file.bytes().first_chunk::<LENGTH_BYTES>().ok_or_else(|| damaged(&format!("it has {} bytes", file.len())))?;
    let length = u64::from_le_bytes(*first);
    let data = length.saturating_add(LENGTH_BYTES as u64);
    if data > file.len() {
        return Err(damaged(&format!("its header should have {length} bytes, and the file has {}", file.len())));
    }
    let header = &file.bytes()[LENGTH_BYTES..data as usize];
    check_extent(header, limits::HEADER).map_err(|what| damaged(&format!("its header has {what}")))?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|error| damaged(&format!("its header is damaged ({})", shown(&error.to_string()))))?;

    // 2. The tensors, which fill the rest of the file exactly.
    let (mut tensors, mut end) = (BTreeMap::new(), data);
    for (name, info) in metadata.tensors() {
        let shape = info.shape.iter().map(|&side| side as i64).collect();
        let kind = kind_of(info.dtype).ok_or_else(|| Error::at(path, &format!("{}: type {:?} is not read", shown(&name), info.dtype)))?;
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

/// What of an index is needed.
#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// Gives the tensors of all files that the index at `path` in `folder` names to `take`, file by file.
///
/// # Errors
/// An index that cannot be read, that names a file outside its folder or one that is not there, what [`open_file`] refuses, and what `take` does.
pub(super) fn open_index(path: &Path, folder: &Folder, mut take: impl FnMut(BTreeMap<String, StoredTensor>) -> Result<()>) -> Result<()> {
    // 1. The index.
    let text = folder.read_json(path, limits::INDEX)?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|error| Error::at(path, &format!("not an index of shards: {}: fetch it again", shown(&error.to_string()))))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, shard) in &index.weight_map {
        if !Path::new(shard).components().all(|part| matches!(part, Component::Normal(_))) || shard.is_empty() {
            let what = format!("{}: its file `{}` lies outside the folder: only files beside the index are read", shown(key), shown(shard));
            return Err(Error::at(path, &what));
        }
        shards.entry(shard).or_default().push(key);
    }
    if shards.len() > limits::SHARDS {
        return Err(Error::at(path, &format!("it names {} files, and no model has more than {}", shards.len(), limits::SHARDS)));
    }

    // 2. Its files.
    let beside = path.parent().unwrap_or(Path::new(""));
    for (shard, keys) in shards {
        let file = beside.join(shard);
        if !untrusted::is_there(&file) {
            let first = keys.first().copied().unwrap_or_default();
            return Err(Error::at(path, &format!("{}: its file `{}` is not there: fetch it again", shown(first), shown(shard))));
        }
        let tensors = open_file(&file, folder)?;
        if let Some(key) = keys.into_iter().find(|&key| !tensors.contains_key(key)) {
            let what = format!("{}: not in this file, where {} has it: fetch both again", shown(key), path.display());
            return Err(Error::at(&file, &what));
        }
        take(tensors)?;
    }
    Ok(())
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
