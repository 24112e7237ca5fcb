//! Tensors where they lie in a file: the file is mapped into memory, so opening one costs no copy and a weight is read when it is used. What is streamed from
//! the file is read part by part, by whichever thread. What formats mean by names and shapes is not known here.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine_protocol::WeightDtype;
use tch::{Device, Kind, Tensor};
use untrusted::shown;

use super::blocks::BlockType;
use super::fp8;
use crate::cuda::{FileMapping, PlaceInFile, read_from_file};
use crate::error::{Error, Result};
use crate::files::{Folder, limits};
use crate::finite;

/// Bytes of a file that are resident at most while a tensor is copied out of it.
const PART_BYTES: i64 = 64 << 20;

/// What a file begins with that stands for another one, which was not fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What to do about a file that is not whole.
pub(crate) const AGAIN: &str = "fetch it again (`hf download REPOSITORY FILE --local-dir FOLDER` goes on where it stopped)";

/// Linux's number of the error that a disk gives that cannot be read.
const EIO: i32 = 5;

/// A file mapped into memory.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    file: File,
    mapping: FileMapping,
}

impl MappedFile {
    /// Maps the file at `path` in `folder`.
    ///
    /// # Errors
    /// A file that cannot be opened, and one that is empty.
    pub(super) fn open(path: &Path, folder: &Folder) -> Result<Self> {
        let file = folder.open(path)?;
        if file.metadata().map_err(|error| Error::file(path, error))?.len() == 0 {
            return Err(Error::at(path, "the file is empty: fetch it again"));
        }
        let mapping = FileMapping::new(&file).map_err(|error| Error::file(path, error))?;
        if mapping.bytes().starts_with(LFS_POINTER) {
            return Err(Error::at(path, "it is a Git LFS pointer, which stands for the file itself: run `git lfs pull` in its folder"));
        }
        Ok(Self { path: path.to_owned(), file, mapping })
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.mapping.bytes()
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// Reads the bytes of `target`, which is on the host, from `offset` on. A file that was cut shorter meanwhile is an error here, where the mapping would end
    /// the process.
    fn read(&self, offset: u64, target: &mut Tensor) -> Result<()> {
        read_from_file(&self.file, offset, target).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                Error::at(&self.path, "it is shorter than when it was opened: leave it alone while it is in use, or fetch it again")
            }
            _ if error.raw_os_error() == Some(EIO) => {
                Error::at(&self.path, &format!("its disk could not be read ({error}): see `dmesg`, or keep the file on another disk"))
            }
            _ => Error::file(&self.path, error),
        })
    }
}

/// One tensor of a mapped file.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    file: Arc<MappedFile>,
    /// Its name in the file.
    key: String,
    /// Where it starts, in bytes from the file's beginning.
    offset: u64,
    kind: Kind,
    shape: Vec<i64>,
    /// Elements from one to the next along each side; empty where they lie in order.
    strides: Vec<i64>,
    /// The blocks that it is in, where it is: then `kind` is what they are unpacked to.
    blocks: Option<&'static BlockType>,
    /// What its values are to be multiplied by: one number for all, one a row, or none at all.
    scales: Arc<[f32]>,
}

impl StoredTensor {
    /// A tensor whose elements lie in order from `offset` on.
    ///
    /// # Errors
    /// One that is not wholly in the file.
    pub(super) fn in_order(file: &Arc<MappedFile>, key: &str, kind: Kind, shape: Vec<i64>, offset: u64) -> Result<Self> {
        Self::strided(file, key, kind, (shape, Vec::new()), offset)
    }

    /// A tensor with `strides` between its elements, or none where they lie in order.
    ///
    /// # Errors
    /// One that is not wholly in the file, and one with more sides than any has.
    pub(super) fn strided(
        file: &Arc<MappedFile>,
        key: &str,
        kind: Kind,
        (shape, strides): (Vec<i64>, Vec<i64>),
        offset: u64,
    ) -> Result<Self> {
        let tensor = Self { file: Arc::clone(file), key: key.to_owned(), offset, kind, shape, strides, blocks: None, scales: Arc::new([]) };
        tensor.checked()
    }

    /// A tensor in blocks that lie in order from `offset` on.
    ///
    /// # Errors
    /// One that is not wholly in the file, and one that is no whole blocks.
    pub(super) fn in_blocks(file: &Arc<MappedFile>, key: &str, blocks: &'static BlockType, shape: Vec<i64>, offset: u64) -> Result<Self> {
        let (kind, strides, scales) = (Kind::Float, Vec::new(), Arc::new([]));
        Self { file: Arc::clone(file), key: key.to_owned(), offset, kind, shape, strides, blocks: Some(blocks), scales }.checked()
    }

    /// Refuses one that cannot be.
    fn checked(self) -> Result<Self> {
        let tensor = self;
        if tensor.shape.len() > limits::SIDES {
            return Err(tensor.error(&format!(
                "it has {} sides, and no tensor of a model has more than {}",
                tensor.shape.len(),
                limits::SIDES
            )));
        }
        let elements = tensor.shape.iter().try_fold(tensor.kind.elt_size_in_bytes() as i64, |bytes, &side| bytes.checked_mul(side));
        match tensor.span().and_then(|bytes| bytes.checked_add(tensor.offset)) {
            Some(end) if end <= tensor.file.len() && elements.is_some() => Ok(tensor),
            _ => Err(tensor.error(&format!("lies beyond the end of the file: it is truncated or damaged, {AGAIN}"))),
        }
    }

    /// Of so many equal parts of its elements, one after the other, the one at `index`, with the sides `shape`.
    ///
    /// # Errors
    /// One that cannot be cut so: of other sides, in blocks, with a scale a row, or that does not lie in order.
    pub fn part(&self, index: i64, count: i64, shape: &[i64]) -> Result<Self> {
        let (all, of_one) = (self.shape.iter().product::<i64>(), shape.iter().product::<i64>());
        if of_one.checked_mul(count) != Some(all) || self.blocks.is_some() || self.scales.len() > 1 || !self.is_in_order() {
            return Err(self.error(&format!("it has sides {:?} and cannot be read as {count} of {shape:?}", self.shape)));
        }
        let offset = self.offset + (index * of_one) as u64 * self.kind.elt_size_in_bytes() as u64;
        Self { offset, shape: shape.to_vec(), strides: Vec::new(), ..self.clone() }.checked()
    }

    /// The same, its values multiplied by those of `scale`: one number, or one a row.
    ///
    /// # Errors
    /// A scale of another size or one that is no finite number, and a weight that has one already or does not lie in order.
    pub(super) fn scaled(self, scale: &StoredTensor) -> Result<Self> {
        let (count, rows) = (scale.parameters(), self.shape.first().copied().unwrap_or(1) as u64);
        if count != 1 && count != rows {
            return Err(
                scale.error(&format!("it has {count} values, and its weight has {rows} rows: only a scale for all or one a row is read"))
            );
        }
        if !self.scales.is_empty() || self.blocks.is_some() || !self.is_in_order() || !scale.is_in_order() || scale.bytes() == 0 {
            return Err(scale.error("its weight has another scale, or does not lie in order: fetch the file again"));
        }
        let mut values = Tensor::f_empty([count as i64], (Kind::Float, Device::Cpu))?;
        scale.read(0, &mut values)?;
        if let Some(value) = finite::not_finite(&values)? {
            return Err(scale.error(&format!("it holds {value}: fetch the file again")));
        }
        let values: Vec<f32> = Vec::try_from(values)?;
        Ok(Self { scales: values.into(), ..self })
    }

    /// Whether its values are numbers of the file times a scale.
    pub fn is_scaled(&self) -> bool {
        !self.scales.is_empty()
    }

    /// The blocks that it is in; nothing where its numbers lie by themselves.
    pub fn blocks(&self) -> Option<&'static BlockType> {
        self.blocks
    }

    /// What it is packed in: a type of 8 bits, or blocks that make up its rows; nothing where its numbers lie in a type of arithmetic.
    pub fn packed(&self) -> Option<WeightDtype> {
        match self.blocks {
            Some(blocks) => blocks.bytes_of(*self.shape.last()?).map(|_| blocks.dtype),
            None => fp8::dtype_of(self.kind).filter(|_| self.is_in_order()),
        }
    }

    /// The scale of each row, `[rows, 1]`, 1 where it has none.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn scale_of_rows(&self) -> Result<Tensor> {
        let rows = self.shape.first().copied().unwrap_or(1);
        let scales = if self.is_scaled() { &self.scales[..] } else { &[1.0] };
        Ok(Tensor::f_from_slice(scales)?.f_view([-1, 1])?.f_expand([rows, 1], false)?)
    }

    /// Multiplies `values`, those from `first` on in fp32, by their scales.
    fn scale(&self, first: i64, values: &mut Tensor) -> Result<()> {
        if let [scale] = self.scales[..] {
            let _ = values.f_mul_scalar_(f64::from(scale))?;
            return Ok(());
        }
        let (count, columns) = (values.numel() as i64, self.shape[1..].iter().product::<i64>());
        let (row, end) = (first / columns, (first + count - 1) / columns + 1);
        let rows = Tensor::f_from_slice(&self.scales[row as usize..end as usize])?.f_view([-1, 1])?;
        let all = rows.f_expand([end - row, columns], false)?.f_reshape([-1])?;
        let _ = values.f_mul_(&all.f_narrow(0, first - row * columns, count)?)?;
        Ok(())
    }

    /// Its bytes, of a tensor that is a text.
    ///
    /// # Errors
    /// A file that cannot be read, and a tensor that is too large to be a text.
    pub fn text(&self) -> Result<Vec<u8>> {
        if self.bytes() > limits::TOKENIZER.bytes || !self.is_in_order() || self.blocks.is_some() {
            return Err(self.error("it is no text of a tokenizer: fetch the file again"));
        }
        let mut bytes = Tensor::f_empty([self.bytes() as i64], (Kind::Uint8, Device::Cpu))?;
        self.file.read(self.offset, &mut bytes)?;
        Ok(Vec::try_from(bytes)?)
    }

    /// Bytes from its first element to the end of its last; nothing where that is no number of bytes.
    fn span(&self) -> Option<u64> {
        if let Some(blocks) = self.blocks {
            let numbers = self.shape.iter().try_fold(1i64, |all, &side| all.checked_mul(side).filter(|_| side >= 0))?;
            return blocks.bytes_of(numbers).and_then(|bytes| u64::try_from(bytes).ok());
        }
        let size = self.kind.elt_size_in_bytes() as u64;
        let sides = || self.shape.iter().map(|&side| u64::try_from(side).ok());
        if self.strides.is_empty() {
            return sides().try_fold(size, |bytes, side| bytes.checked_mul(side?));
        }
        if self.shape.contains(&0) {
            return Some(0);
        }
        let steps = sides().zip(&self.strides).map(|(side, &stride)| side?.checked_sub(1)?.checked_mul(u64::try_from(stride).ok()?));
        steps.into_iter().try_fold(0u64, |last, step| last.checked_add(step?))?.checked_add(1)?.checked_mul(size)
    }

    /// Bytes from its first element to the end of its last.
    pub(super) fn span_bytes(&self) -> u64 {
        self.span().unwrap_or(u64::MAX)
    }

    /// Its sides.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether its values are real numbers: of a floating-point type, or whole ones with a scale.
    pub fn is_float(&self) -> bool {
        let is_scaled_whole = self.kind == Kind::Int8 && self.is_scaled();
        is_scaled_whole
            || matches!(self.kind, Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Float8e4m3fn | Kind::Float8e5m2)
    }

    /// How many elements it has.
    pub fn parameters(&self) -> u64 {
        self.shape.iter().product::<i64>() as u64
    }

    /// Bytes of its elements.
    pub fn bytes(&self) -> u64 {
        if self.blocks.is_some() { self.span_bytes() } else { self.parameters() * self.kind.elt_size_in_bytes() as u64 }
    }

    /// The file that it is in.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// What is wrong with it, with its file and its name there.
    pub fn error(&self, what: &str) -> Error {
        Error::at(&self.file.path, &format!("{}: {what}", shown(&self.key)))
    }

    /// Whether its elements lie in the file one after the other, so that any of them can be read by themselves.
    pub(super) fn is_in_order(&self) -> bool {
        let mut next = 1;
        let mut sides = self.shape.iter().zip(&self.strides).rev();
        sides.all(|(&side, &stride)| {
            let follows = side == 1 || stride == next;
            next *= side;
            follows
        })
    }

    /// Reads its elements from `first` on into `target`, which is on the host, has one side, and may have another type. They [lie in order](Self::is_in_order).
    ///
    /// # Errors
    /// A file that cannot be read, or that was cut shorter since it was opened.
    pub(super) fn read(&self, first: i64, target: &mut Tensor) -> Result<()> {
        if let Some(blocks) = self.blocks {
            return self.read_blocks(blocks, first, target);
        }
        let offset = self.offset + (first as usize * self.kind.elt_size_in_bytes()) as u64;
        if target.kind() == self.kind && !self.is_scaled() {
            return self.file.read(offset, target);
        }
        let mut stored = Tensor::f_empty(target.size().as_slice(), (self.kind, Device::Cpu))?;
        self.file.read(offset, &mut stored)?;
        if self.is_scaled() {
            // In fp32, and rounded once.
            stored = stored.f_to_kind(Kind::Float)?;
            self.scale(first, &mut stored)?;
        }
        Ok(target.f_copy_(&stored)?)
    }

    /// As [`Self::read`], of a tensor in blocks: those that the wanted numbers are in.
    fn read_blocks(&self, blocks: &BlockType, first: i64, target: &Tensor) -> Result<()> {
        let count = target.numel() as i64;
        let (from, to) = (first / blocks.numbers, (first + count + blocks.numbers - 1) / blocks.numbers);
        let mut packed = Tensor::f_empty([(to - from) * blocks.bytes], (Kind::Uint8, Device::Cpu))?;
        self.read_packed(from * blocks.bytes, &mut packed)?;
        if count == (to - from) * blocks.numbers {
            return blocks.unpack(&packed, target);
        }
        let values = Tensor::f_empty([(to - from) * blocks.numbers], (Kind::Float, Device::Cpu))?;
        blocks.unpack(&packed, &values)?;
        Ok(target.shallow_clone().f_copy_(&values.f_narrow(0, first - from * blocks.numbers, count)?)?)
    }

    /// Reads its bytes as the file has them, from `first` on, into `target`, bytes on the host.
    ///
    /// # Errors
    /// A file that cannot be read, or that was cut shorter since it was opened, and bytes beyond its own.
    pub(super) fn read_packed(&self, first: i64, target: &mut Tensor) -> Result<()> {
        if first as u64 + target.numel() as u64 > self.bytes() {
            return Err(self.error("it is smaller than the model's: fetch the file again"));
        }
        self.file.read(self.offset + first as u64, target)
    }

    /// What among its values is no finite number, in a word.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn not_finite(&self) -> Result<Option<&'static str>> {
        let fp32 = |sides: &[i64]| Tensor::f_empty(sides, (Kind::Float, Device::Cpu));
        if !self.is_in_order() {
            let mut values = fp32(&self.shape)?;
            self.copy_to(&mut values)?;
            return finite::not_finite(&values);
        }
        let (count, part) = (self.parameters() as i64, PART_BYTES / Kind::Float.elt_size_in_bytes() as i64);
        for first in (0..count).step_by(part as usize) {
            let mut values = fp32(&[part.min(count - first)])?;
            self.read(first, &mut values)?;
            if let Some(value) = finite::not_finite(&values)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Writes its values into `target`, which has as many elements, may have another type and may lie on the GPU: straight from the mapped file, where they
    /// have no scale.
    ///
    /// # Errors
    /// libtorch's.
    pub fn copy_to(&self, target: &mut Tensor) -> Result<()> {
        if !self.is_scaled() && self.blocks.is_none() {
            return self.copy_numbers(target);
        }
        let (count, part) = (self.parameters() as i64, PART_BYTES / Kind::Float.elt_size_in_bytes() as i64);
        let fp32 = |count: i64| Tensor::f_empty([count], (Kind::Float, Device::Cpu));
        if !target.is_contiguous() {
            let mut values = fp32(count)?;
            self.read(0, &mut values)?;
            return Ok(target.f_copy_(&values.f_view(target.size().as_slice())?)?);
        }
        let flat = target.f_view([-1])?;
        for first in (0..count).step_by(part as usize) {
            let mut values = fp32(part.min(count - first))?;
            self.read(first, &mut values)?;
            flat.f_narrow(0, first, values.size()[0])?.f_copy_(&values)?;
        }
        Ok(())
    }

    /// Writes the numbers that the file has for it into `target`, whatever their scale is; of a tensor in blocks, its bytes.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn copy_numbers(&self, target: &mut Tensor) -> Result<()> {
        if !self.strides.is_empty() || !target.is_contiguous() {
            let span = self.span_bytes();
            return self
                .copy_part(PlaceInFile { offset: self.offset, span, kind: self.kind, shape: &self.shape, strides: &self.strides }, target);
        }
        // A part at a time: the largest tensor of a text encoder has gigabytes.
        let kind = if self.blocks.is_some() { Kind::Uint8 } else { self.kind };
        let (flat, size) = (target.f_view([-1])?, kind.elt_size_in_bytes() as i64);
        let part = PART_BYTES / size;
        for begin in (0..flat.size()[0]).step_by(part as usize) {
            let count = part.min(flat.size()[0] - begin);
            let place = PlaceInFile {
                offset: self.offset + (begin * size) as u64,
                span: (count * size) as u64,
                kind,
                shape: &[count],
                strides: &[],
            };
            self.copy_part(place, &mut flat.f_narrow(0, begin, count)?)?;
        }
        Ok(())
    }

    /// Writes what is at `place` into `target`, and lets go of the file's pages: the host holds weights once, and not once more as pages of their file.
    fn copy_part(&self, place: PlaceInFile<'_>, target: &mut Tensor) -> Result<()> {
        let (offset, span) = (place.offset, place.span);
        self.file.mapping.copy_to(place, target)?;
        self.file.mapping.let_go(offset, span);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_cannot_be_read_is_an_error_with_what_to_do() {
        let mut opened = MappedFile::open(Path::new("Cargo.toml"), &Folder::anywhere()).unwrap();
        // What a process has at address 0 cannot be read: Linux answers as a broken disk does.
        opened.file = File::open("/proc/self/mem").unwrap();
        let mut target = Tensor::zeros([16], (Kind::Uint8, Device::Cpu));
        let said = opened.read(0, &mut target).unwrap_err().to_string();
        assert!(said.contains("Cargo.toml: its disk could not be read") && said.contains("see `dmesg`"), "{said}");
    }
}
