//! PyTorch's own files (`.pth`): a zip archive with a pickle about the tensors, and their values in an entry each, uncompressed.
//!
//! Nothing of the pickle is executed: see `pickle.rs`. Facts from PyTorch 2.13 `torch/serialization.py` and `torch/_utils.py`
//! (`_rebuild_tensor_v2`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tch::Kind;
use untrusted::shown;

use super::archive::{self, Entry};
use super::mapped::{MappedFile, StoredTensor};
use super::pickle::{Pickle, Value};
use crate::error::{Error, Result};
use crate::files::{Folder, limits};

/// The tensors of the file at `path` in `folder`.
///
/// # Errors
/// A file that cannot be read, is truncated, or holds something else than a dictionary of tensors.
pub(super) fn open_file(path: &Path, folder: &Folder) -> Result<BTreeMap<String, StoredTensor>> {
    let file = Arc::new(MappedFile::open(path, folder)?);
    let damaged = |what: &str| Error::at(path, &format!("not a whole file of `torch.save`: {what}"));

    // 1. The archive: where each entry's bytes lie.
    let entries = archive::entries(file.bytes()).map_err(|what| damaged(&what))?;
    let contents = |name: &str| entries.get(name).map(|&Entry { start, size }| &file.bytes()[start as usize..(start + size) as usize]);
    if contents("byteorder").is_some_and(|order| order != b"little") {
        return Err(damaged("its bytes are in big-endian order, which is not read"));
    }

    // 2. The pickle: a dictionary from names to tensors.
    let pickle = contents("data.pkl").ok_or_else(|| damaged(&format!("it has no `data.pkl` {}", archive::AGAIN)))?;
    if pickle.len() as u64 > limits::PICKLE_BYTES {
        return Err(damaged(&format!("its pickle has {} bytes, and that of a model has at most {}", pickle.len(), limits::PICKLE_BYTES)));
    }
    let pickle = Pickle::read(pickle, limits::PICKLE_MEMORY).map_err(|what| damaged(&format!("its pickle cannot be read: {what}")))?;
    let Value::Dict(items) = pickle.root() else { return Err(damaged("its pickle is no dictionary of tensors")) };

    // 3. Each tensor's place.
    let mut tensors = BTreeMap::new();
    for &(key, value) in items {
        let key = pickle.text(key).ok_or_else(|| damaged("one of its names is no text"))?;
        let refuse = |what: &str| Error::at(path, &format!("{}: {what}", shown(key)));
        let described = describe(&pickle, value).map_err(|what| refuse(&what))?;
        let &Entry { start, size } =
            entries.get(&format!("data/{}", described.storage)).ok_or_else(|| refuse("its values are not in the file"))?;
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
                // Many tensors may name one list: what has too many sides is refused before it is copied for each.
                let items = pickle
                    .sequence(place)
                    .filter(|items| items.len() <= limits::SIDES)?
                    .iter()
                    .map(|&place| pickle.int(place).filter(|&number| number >= 0));
                items.collect::<Option<Vec<_>>>()
            };
            let (shape, strides) = (numbers(shape).ok_or("its shape is none")?, numbers(strides).ok_or("its strides are none")?);
            if shape.len() != strides.len() {
                return Err(format!("it has {} sides and {} strides", shape.len(), strides.len()));
            }
            Ok(Description { kind, storage, offset, shape, strides })
        }
        _ => Err(format!("it is no tensor but `{}`, which is not executed", shown(&function))),
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
        other => return Err(format!("type `{}` is not read", shown(other))),
    };
    Ok((kind, storage))
}
