//! PyTorch's own files (`.pth`): a zip archive with a pickle about the tensors, and their values in an entry each, uncompressed.
//!
//! Nothing of the pickle is executed: see `pickle.rs`. Facts from PyTorch 2.13 `torch/serialization.py` and `torch/_utils.py`
//! (`_rebuild_tensor_v2`).

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use tch::Kind;
use zip::{CompressionMethod, ZipArchive};

use super::mapped::{MappedFile, StoredTensor};
use super::pickle::{Pickle, Value};
use crate::error::{Error, Result};

/// The longest pickle that is read: that of a model of ten thousand tensors has about 2 MB.
const MAX_PICKLE_BYTES: u64 = 256 << 20;

/// The tensors of the file at `path`.
///
/// # Errors
/// A file that cannot be read, is truncated, or holds something else than a dictionary of tensors.
pub(super) fn open_file(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let file = Arc::new(MappedFile::open(path)?);
    let damaged = |what: &str| Error::at(path, &format!("not a whole file of `torch.save`: {what}"));
    let again = "(a truncated download, or a file from before PyTorch 1.6): fetch it again, or save it anew";

    // 1. The archive: where each entry's bytes lie.
    let mut archive = ZipArchive::new(Cursor::new(file.bytes())).map_err(|error| damaged(&format!("{error} {again}")))?;
    let (mut entries, mut pickle, mut order) = (BTreeMap::new(), None, None);
    for index in 0..archive.len() {
        let mut entry = archive.by_index_raw(index).map_err(|error| damaged(&format!("{error} {again}")))?;
        // Under the name that the archive was saved as, which says nothing.
        let name = entry.name().split_once('/').map(|(_, name)| name.to_owned()).unwrap_or_default();
        if entry.compression() != CompressionMethod::Stored {
            return Err(damaged(&format!("its entry `{}` is compressed, which `torch.save` does not do", entry.name())));
        }
        match name.as_str() {
            "data.pkl" if entry.size() <= MAX_PICKLE_BYTES => pickle = Some(contents(&mut entry, path)?),
            "byteorder" if entry.size() <= 16 => order = Some(contents(&mut entry, path)?),
            _ => {}
        }
        entries.insert(name, (entry.data_start(), entry.size()));
    }
    if order.is_some_and(|order| order != b"little") {
        return Err(damaged("its bytes are in big-endian order, which is not read"));
    }

    // 2. The pickle: a dictionary from names to tensors.
    let pickle = pickle.ok_or_else(|| damaged(&format!("it has no `data.pkl` {again}")))?;
    let pickle = Pickle::read(&pickle).map_err(|what| damaged(&format!("its pickle cannot be read: {what}")))?;
    let Value::Dict(items) = pickle.root() else { return Err(damaged("its pickle is no dictionary of tensors")) };

    // 3. Each tensor's place.
    let mut tensors = BTreeMap::new();
    for &(key, value) in items {
        let key = pickle.text(key).ok_or_else(|| damaged("one of its names is no text"))?;
        let refuse = |what: &str| Error::at(path, &format!("{key}: {what}"));
        let described = describe(&pickle, value).map_err(|what| refuse(&what))?;
        let &(start, size) = entries.get(&format!("data/{}", described.storage)).ok_or_else(|| refuse("its values are not in the file"))?;
        let offset =
            (described.offset as u64).checked_mul(described.kind.elt_size_in_bytes() as u64).and_then(|bytes| start.checked_add(bytes));
        let offset = offset.ok_or_else(|| refuse("its place is beyond any file"))?;
        let stored = StoredTensor::strided(&file, key, described.kind, (described.shape, described.strides), offset)?;
        if offset.saturating_add(stored.span_bytes()) > start.saturating_add(size) {
            return Err(refuse("it lies beyond the end of its values: the file is damaged, fetch it again"));
        }
        tensors.insert(key.to_owned(), stored);
    }
    Ok(tensors)
}

fn contents(entry: &mut impl Read, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| Error::file(path, error))?;
    Ok(bytes)
}

/// What the pickle says about one tensor.
struct Description {
    kind: Kind,
    /// The entry of its values, under `data/`.
    storage: String,
    /// Elements before its first one there.
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// The tensor at `value`: the arguments of the function that would rebuild it.
fn describe(pickle: &Pickle, value: usize) -> std::result::Result<Description, String> {
    let Value::Call(function, arguments) = *pickle.get(value) else { return Err("it is no tensor".into()) };
    let function = pickle.global(function).unwrap_or_default();
    let arguments = pickle.sequence(arguments).unwrap_or_default();
    match (function.as_str(), arguments) {
        // A parameter is a tensor and whether it is trained. It may not hold another one.
        ("torch._utils._rebuild_parameter", &[tensor, ..]) => match *pickle.get(tensor) {
            Value::Call(inner, _) if pickle.global(inner).as_deref() == Some("torch._utils._rebuild_tensor_v2") => describe(pickle, tensor),
            _ => Err("it is no tensor".into()),
        },
        ("torch._utils._rebuild_tensor_v2", &[storage, offset, shape, strides, ..]) => {
            let (kind, storage) = describe_storage(pickle, storage)?;
            let offset = pickle.int(offset).filter(|&offset| offset >= 0).ok_or("its place is no number")?;
            let numbers = |place| {
                let items = pickle.sequence(place)?.iter().map(|&place| pickle.int(place).filter(|&number| number >= 0));
                items.collect::<Option<Vec<_>>>()
            };
            let (shape, strides) = (numbers(shape).ok_or("its shape is none")?, numbers(strides).ok_or("its strides are none")?);
            if shape.len() != strides.len() {
                return Err(format!("it has {} sides and {} strides", shape.len(), strides.len()));
            }
            Ok(Description { kind, storage, offset, shape, strides })
        }
        _ => Err(format!("it is no tensor but `{function}`, which is not executed")),
    }
}

/// Type and entry of the values that a tensor lies in.
fn describe_storage(pickle: &Pickle, place: usize) -> std::result::Result<(Kind, String), String> {
    let what = "its values are not where `torch.save` puts them";
    let Value::Persistent(name) = *pickle.get(place) else { return Err(what.into()) };
    let Some(&[_, kind, storage, ..]) = pickle.sequence(name) else { return Err(what.into()) };
    let kind = pickle.global(kind).ok_or(what)?;
    let storage = pickle.text(storage).ok_or(what)?.to_owned();
    let kind = match kind.as_str() {
        "torch.DoubleStorage" => Kind::Double,
        "torch.FloatStorage" => Kind::Float,
        "torch.HalfStorage" => Kind::Half,
        "torch.BFloat16Storage" => Kind::BFloat16,
        "torch.LongStorage" => Kind::Int64,
        "torch.IntStorage" => Kind::Int,
        "torch.ShortStorage" => Kind::Int16,
        "torch.CharStorage" => Kind::Int8,
        "torch.ByteStorage" => Kind::Uint8,
        "torch.BoolStorage" => Kind::Bool,
        other => return Err(format!("type `{other}` is not read")),
    };
    Ok((kind, storage))
}
