//! GGUF: what stands before the tensors (keys, and where each tensor lies), then the tensors, many of them in blocks.
//!
//! Facts from ggml's `docs/gguf.md`, `gguf.cpp` and `ggml.h`. Sides stand innermost first. Tensors have four at most, so ComfyUI's programs flatten those of five, and say
//! under `comfy.gguf.orig_shape.NAME` what they were. Some models are in several files, `NAME-00001-of-00003.gguf`: each has tensors of its own,
//! and says under `split.count` how many there are, under `split.no` which one it is, from 0 on. A text encoder has its tokenizer under `tokenizer.ggml`, which is read
//! where it is asked for. All other values are skipped, but for the alignment.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::Kind;
use untrusted::shown;

use super::blocks::BlockType;
use super::mapped::{AGAIN, MappedFile, StoredTensor};
use crate::error::{Error, Result};
use crate::files::{Folder, limits};

/// What a file begins with.
const MAGIC: &[u8; 4] = b"GGUF";

/// Where the original sides of a tensor stand.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";

/// What tensors lie at multiples of, where no key says another number.
const ALIGNMENT: u64 = 32;

/// Numbers and names of types that are no blocks, and of those that are not read.
const PLAIN: [(u32, Kind); 8] = [
    (0, Kind::Float),
    (1, Kind::Half),
    (30, Kind::BFloat16),
    (28, Kind::Double),
    (24, Kind::Int8),
    (25, Kind::Int16),
    (26, Kind::Int),
    (27, Kind::Int64),
];
const NOT_READ: [(u32, &str); 13] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// Whether the file at `path` in `folder` begins as one does.
pub(super) fn is_one(path: &Path, folder: &Folder) -> bool {
    let mut first = [0; MAGIC.len()];
    folder.open(path).is_ok_and(|mut file| file.read_exact(&mut first).is_ok()) && first == *MAGIC
}

/// What is wrong with a file that is called one and does not begin so.
pub(super) fn not_one(path: &Path, folder: &Folder) -> Error {
    match MappedFile::open(path, folder) {
        Err(error) => error,
        Ok(_) => Error::at(path, &format!("not a GGUF file, which begins with those four letters: {AGAIN}")),
    }
}

/// The tensors of the GGUF file at `path` in `folder`, and where it is one of several, those of all of them.
///
/// # Errors
/// A file that cannot be read, is truncated, or is damaged, and a type that is not read; one of several that is not there or is another model's.
pub(super) fn open_file(path: &Path, folder: &Folder) -> Result<BTreeMap<String, StoredTensor>> {
    let (mut tensors, split) = open_one(path, folder)?;
    for (number, other) in others(path, split)? {
        if !untrusted::is_there(&other) {
            return Err(Error::at(&other, &format!("it is not there, and the model is in {} files: {AGAIN}", split.count)));
        }
        if !is_one(&other, folder) {
            return Err(not_one(&other, folder));
        }
        let (more, found) = open_one(&other, folder)?;
        if found != (Split { number, ..split }) {
            return Err(Error::at(&other, &format!("it says that it is number {} of {} files: {AGAIN}", found.number + 1, found.count)));
        }
        for (name, tensor) in more {
            if tensors.len() == limits::TENSORS || tensors.contains_key(&name) {
                return Err(tensor.error("another file of the model has it too, or there are more tensors than any model has"));
            }
            tensors.insert(name, tensor);
        }
    }
    if tensors.is_empty() { Err(damaged(path, "it has no tensors")) } else { Ok(tensors) }
}

/// The other files of the model that the one at `path` is part of, each with its number from 0 on.
fn others(path: &Path, split: Split) -> Result<Vec<(u64, PathBuf)>> {
    if split.count < 2 {
        return Ok(Vec::new());
    }
    let end = |number: u64| format!("-{:05}-of-{:05}.gguf", number + 1, split.count);
    let (name, own) = (path.file_name().unwrap_or_default().to_string_lossy(), end(split.number));
    let start = name.strip_suffix(&own).ok_or_else(|| {
        Error::at(path, &format!("it is number {} of {} files: have its name end in {own}", split.number + 1, split.count))
    })?;
    let numbers = (0..split.count).filter(|&number| number != split.number);
    Ok(numbers.map(|number| (number, path.with_file_name(format!("{start}{}", end(number))))).collect())
}

/// Whether the file of that name is one of several, and not the first.
pub(crate) fn goes_on(name: &str) -> bool {
    let Some((start, count)) = name.strip_suffix(".gguf").and_then(|name| name.rsplit_once("-of-")) else { return false };
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    start.rsplit_once('-').is_some_and(|(_, number)| is_number(number) && is_number(count) && number != "00001")
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::at(path, &format!("not a whole GGUF file: {what}: {AGAIN}"))
}

/// The tensors of one file, and of which files it is one.
fn open_one(path: &Path, folder: &Folder) -> Result<(BTreeMap<String, StoredTensor>, Split)> {
    let file = Arc::new(MappedFile::open(path, folder)?);
    let damaged = |what: &str| damaged(path, what);

    // 1. What stands before the tensors.
    let mut reader = Reader::of(&file);
    let header = Header::read(&mut reader).map_err(|fault| fault.error(path, &reader))?;
    let data = (reader.at as u64).next_multiple_of(header.alignment);

    // 2. The tensors.
    let mut tensors = BTreeMap::new();
    let mut places: Vec<(u64, u64)> = Vec::with_capacity(header.tensors.len());
    for Info { name, shape, number, offset } in header.tensors {
        let at = data.saturating_add(offset);
        let shape = header.shapes.get(&name).cloned().unwrap_or(shape);
        let stored = match (BlockType::numbered(number), PLAIN.iter().find(|(known, _)| *known == number)) {
            (Some(blocks), _) => StoredTensor::in_blocks(&file, &name, blocks, shape, at)?,
            (None, Some(&(_, kind))) => StoredTensor::in_order(&file, &name, kind, shape, at)?,
            (None, None) => {
                let known = NOT_READ.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
                let kind = known.unwrap_or_else(|| format!("number {number}"));
                return Err(Error::at(
                    path,
                    &format!("{}: type {kind} is not read: use the file in Q4_K, Q8_0 or another common type", shown(&name)),
                ));
            }
        };
        places.push((at, stored.bytes()));
        if tensors.insert(name.clone(), stored).is_some() {
            return Err(damaged(&format!("it has two tensors `{}`", shown(&name))));
        }
    }
    places.sort_unstable();
    match places.array_windows().any(|[(first, bytes), (next, _)]| first + bytes > *next) {
        true => Err(damaged("two of its tensors lie over each other")),
        false => Ok((tensors, header.split)),
    }
}

/// What a text encoder's file says of its tokenizer.
#[derive(Debug, Default)]
pub(crate) struct GgufTokenizer {
    /// What kind it is: `t5`.
    pub(crate) model: String,
    /// Of each token its text, score and kind, as SentencePiece numbers them.
    pub(crate) tokens: Vec<String>,
    pub(crate) scores: Vec<f32>,
    pub(crate) kinds: Vec<u64>,
    /// What is done to characters first.
    pub(crate) characters: Vec<u8>,
}

/// The tokenizer in the GGUF file at `path` in `folder`; nothing where it has none.
///
/// # Errors
/// A file that cannot be read, is truncated, or is damaged.
pub(crate) fn tokenizer(path: &Path, folder: &Folder) -> Result<Option<GgufTokenizer>> {
    if !is_one(path, folder) {
        return Err(not_one(path, folder));
    }
    let file = MappedFile::open(path, folder)?;
    let mut reader = Reader::of(&file);
    let mut found = GgufTokenizer::default();
    let read = begin(&mut reader).and_then(|(_, keys)| (0..keys).try_for_each(|_| found.read_key(&mut reader)));
    match read {
        Ok(()) => Ok(Some(found).filter(|found| !found.tokens.is_empty())),
        Err(fault) => Err(fault.error(path, &reader)),
    }
}

impl GgufTokenizer {
    fn read_key(&mut self, reader: &mut Reader<'_>) -> Found<()> {
        let (key, kind) = (reader.text()?, reader.u32()?);
        match (key.as_str(), kind) {
            ("tokenizer.ggml.model", value::TEXT) => self.model = reader.text()?,
            ("tokenizer.ggml.tokens", value::ARRAY) => self.tokens = reader.list(value::TEXT, Reader::text)?,
            ("tokenizer.ggml.scores", value::ARRAY) => self.scores = reader.list(value::F32, |reader| Ok(f32::from_bits(reader.u32()?)))?,
            ("tokenizer.ggml.token_type", value::ARRAY) => self.kinds = reader.list(value::I32, |reader| reader.whole(4))?,
            ("tokenizer.ggml.precompiled_charsmap", value::ARRAY) => {
                self.characters = reader.list(value::U8, |reader| Ok(reader.whole(1)? as u8))?
            }
            (_, kind) => reader.skip(kind)?,
        }
        Ok(())
    }
}

/// What is wrong with what stands before the tensors.
enum Fault {
    /// It has no end.
    Ends,
    Is(String),
    Version(u32),
}

impl Fault {
    /// As an error of the file at `path`, of which `reader` was to read.
    fn error(self, path: &Path, reader: &Reader<'_>) -> Error {
        match self {
            Self::Ends if reader.bytes.len() == limits::GGUF_HEADER => {
                damaged(path, &format!("what stands before its tensors has more than {} bytes, which no model has", limits::GGUF_HEADER))
            }
            Self::Ends => damaged(path, "it ends before its tensors begin"),
            Self::Is(what) => damaged(path, &what),
            Self::Version(version) => {
                Error::at(path, &format!("GGUF of version {version} is not read: versions 2 and 3, little-endian, are"))
            }
        }
    }
}

/// What was read, or what is wrong with it.
type Found<T> = std::result::Result<T, Fault>;

/// Where a tensor lies, and what it is.
struct Info {
    name: String,
    shape: Vec<i64>,
    /// Of its type.
    number: u32,
    offset: u64,
}

/// Which one of how many files it is, counted from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Split {
    number: u64,
    count: u64,
}

/// How many tensors and keys a file says that it has.
fn begin(reader: &mut Reader<'_>) -> Found<(u64, u64)> {
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(Fault::Version(version));
    }
    let (tensors, keys) = (reader.u64()?, reader.u64()?);
    if tensors > limits::TENSORS as u64 || keys > limits::GGUF_KEYS {
        return Err(Fault::Is(format!("it says that it has {tensors} tensors and {keys} keys, which no model has")));
    }
    Ok((tensors, keys))
}

struct Header {
    alignment: u64,
    split: Split,
    /// What tensors of more sides than four had.
    shapes: BTreeMap<String, Vec<i64>>,
    tensors: Vec<Info>,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Found<Self> {
        let (tensors, keys) = begin(reader)?;
        let mut header = Self { alignment: ALIGNMENT, split: Split::default(), shapes: BTreeMap::new(), tensors: Vec::new() };
        for _ in 0..keys {
            header.read_key(reader)?;
        }
        for _ in 0..tensors {
            let name = reader.text()?;
            let sides = reader.u32()? as usize;
            if sides > limits::SIDES {
                return Err(Fault::Is(format!("its tensor `{}` has {sides} sides", shown(&name))));
            }
            let mut shape = Vec::with_capacity(sides);
            for _ in 0..sides {
                shape.push(i64::try_from(reader.u64()?).map_err(|_| Fault::Is(format!("its tensor `{}` has no size", shown(&name))))?);
            }
            shape.reverse();
            let (number, offset) = (reader.u32()?, reader.u64()?);
            if let Some(original) = header.shapes.get(&name) {
                let count = |sides: &[i64]| sides.iter().try_fold(1i64, |all, &side| all.checked_mul(side));
                if count(original).is_none() || count(original) != count(&shape) {
                    return Err(Fault::Is(format!("its tensor `{}` had other sides than it has numbers", shown(&name))));
                }
            }
            header.tensors.push(Info { name, shape, number, offset });
        }
        Ok(header)
    }

    fn read_key(&mut self, reader: &mut Reader<'_>) -> Found<()> {
        let (key, kind) = (reader.text()?, reader.u32()?);
        match (key.as_str(), kind) {
            ("general.alignment", value::U32) => {
                self.alignment = reader.u32()?.into();
                if !self.alignment.is_power_of_two() || self.alignment > 1 << 20 {
                    return Err(Fault::Is(format!("its tensors are to lie at multiples of {}", self.alignment)));
                }
            }
            ("split.count", value::U16) => self.split.count = reader.whole(2)?,
            ("split.no", value::U16) => self.split.number = reader.whole(2)?,
            (key, value::ARRAY) if key.starts_with(ORIGINAL_SHAPE) => {
                let (bytes, count) = (value::bytes(reader.u32()?).filter(|bytes| [4, 8].contains(bytes)), reader.u64()?);
                let (Some(bytes), true) = (bytes, count <= limits::SIDES as u64) else {
                    return Err(Fault::Is(format!("`{}` is no list of sides", shown(key))));
                };
                let mut shape = Vec::new();
                for _ in 0..count {
                    let side = reader.whole(bytes)?;
                    shape.push(i64::try_from(side).map_err(|_| Fault::Is(format!("`{}` is no list of sides", shown(key))))?);
                }
                self.shapes.insert(key[ORIGINAL_SHAPE.len()..].to_owned(), shape);
            }
            (_, kind) => reader.skip(kind)?,
        }
        Ok(())
    }
}

/// Types of values.
mod value {
    pub(super) const U8: u32 = 0;
    pub(super) const U16: u32 = 2;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const TEXT: u32 = 8;
    pub(super) const ARRAY: u32 = 9;

    /// Bytes of a number of that type.
    pub(super) fn bytes(kind: u32) -> Option<usize> {
        match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        }
    }
}

/// Bytes that are read one after the other.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// What stands before the tensors of `file`, behind its first letters.
    fn of(file: &'a MappedFile) -> Self {
        let within = file.bytes().len().min(limits::GGUF_HEADER);
        Self { bytes: &file.bytes()[..within], at: MAGIC.len() }
    }

    fn take(&mut self, count: usize) -> Found<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or(Fault::Ends)?;
        let taken = self.bytes.get(self.at..end).ok_or(Fault::Ends)?;
        self.at = end;
        Ok(taken)
    }

    /// A whole number of so many bytes, 8 at most.
    fn whole(&mut self, bytes: usize) -> Found<u64> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn u32(&mut self) -> Found<u32> {
        Ok(self.whole(4)? as u32)
    }

    fn u64(&mut self) -> Found<u64> {
        self.whole(8)
    }

    fn length(&mut self) -> Found<usize> {
        usize::try_from(self.u64()?).map_err(|_| Fault::Ends)
    }

    fn text(&mut self) -> Found<String> {
        let length = self.length()?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Fault::Is("one of its names is no text".into()))?;
        Ok(text.to_owned())
    }

    /// A list of values of that type, each of which is read so.
    fn list<T>(&mut self, kind: u32, read: impl Fn(&mut Self) -> Found<T>) -> Found<Vec<T>> {
        let (found, count) = (self.u32()?, self.length()?);
        if found != kind {
            return Err(Fault::Is(format!("one of its lists has values of type {found}, and not {kind}")));
        }
        if count > limits::PIECES {
            return Err(Fault::Is(format!("its tokenizer has more than {} pieces", limits::PIECES)));
        }
        (0..count).map(|_| read(self)).collect()
    }

    /// Goes past a value of that type.
    fn skip(&mut self, kind: u32) -> Found<()> {
        let unknown = |kind| Fault::Is(format!("one of its keys has a value of type {kind}, which there is not"));
        match kind {
            value::TEXT => {
                let length = self.length()?;
                self.take(length)?;
            }
            value::ARRAY => {
                let (kind, count) = (self.u32()?, self.length()?);
                match (kind, value::bytes(kind)) {
                    (_, Some(bytes)) => drop(self.take(count.checked_mul(bytes).ok_or(Fault::Ends)?)?),
                    (value::TEXT, None) => (0..count).try_for_each(|_| self.skip(value::TEXT))?,
                    (kind, None) => return Err(unknown(kind)),
                }
            }
            kind => drop(self.take(value::bytes(kind).ok_or_else(|| unknown(kind))?)?),
        }
        Ok(())
    }
}
