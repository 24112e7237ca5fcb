//! The zip archive that a `.pth` is: where each entry's bytes lie. Entries are uncompressed, each has a name of its own, and none lies over another.

use std::collections::BTreeMap;
use std::io::{Cursor, Error, ErrorKind, Read, Result as IoResult, Seek, SeekFrom};

use untrusted::shown;
use zip::{CompressionMethod, ZipArchive};

use crate::files::limits;

/// What a file is that is no such archive, and what to do about it.
pub(super) const AGAIN: &str = "(a truncated download, or a file from before PyTorch 1.6): fetch it again, or save it anew";

/// Where an entry's bytes lie, within the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) start: u64,
    pub(super) size: u64,
}

/// The entries of the archive `bytes`, by their names without the folder that the archive was saved as.
///
/// # Errors
/// What keeps it from being an archive that `torch.save` writes.
pub(super) fn entries(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    let count = count(bytes).ok_or_else(|| format!("it has no end of an archive {AGAIN}"))?;
    if count > limits::ENTRIES {
        return Err(format!("it has {count} entries, and that of a model has at most {}", limits::ENTRIES));
    }
    let failed = |error: zip::result::ZipError| format!("{} {AGAIN}", shown(&error.to_string()));
    let mut archive = ZipArchive::new(Budgeted { bytes: Cursor::new(bytes), left: limits::ARCHIVE_BYTES }).map_err(failed)?;
    let (mut entries, mut folder) = (BTreeMap::new(), None);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(failed)?;
        let (start, size) = (entry.data_start(), entry.size());
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("its entry `{}` is compressed, which `torch.save` does not do", shown(entry.name())));
        }
        if start.checked_add(size).is_none_or(|end| end > bytes.len() as u64) {
            return Err(format!("its entry `{}` lies beyond the end of the file {AGAIN}", shown(entry.name())));
        }
        // The folder says nothing, but there is one.
        let Some((own, name)) = entry.name().split_once('/') else { continue };
        if *folder.get_or_insert_with(|| own.to_owned()) != own {
            return Err(format!(
                "it has two folders, `{}` and `{}`, which `torch.save` does not make",
                shown(folder.as_deref().unwrap_or_default()),
                shown(own)
            ));
        }
        if entries.insert(name.to_owned(), Entry { start, size }).is_some() {
            return Err(format!("it has two entries `{}`", shown(name)));
        }
    }
    match overlapping(&entries) {
        Some([first, second]) => Err(format!("its entries `{}` and `{}` lie over each other", shown(first), shown(second))),
        None => Ok(entries),
    }
}

/// Two entries of which one begins before the other ends.
fn overlapping(entries: &BTreeMap<String, Entry>) -> Option<[&str; 2]> {
    let mut places: Vec<_> = entries.iter().filter(|(_, entry)| entry.size > 0).collect();
    places.sort_by_key(|(_, entry)| entry.start);
    places
        .array_windows()
        .find_map(|[(first, one), (second, other)]| (one.start + one.size > other.start).then_some([first.as_str(), second.as_str()]))
}

/// How many entries the archive says that it has: the zip crate makes room for as many before it looks at one.
fn count(bytes: &[u8]) -> Option<u64> {
    const END: (usize, &[u8]) = (22, b"PK\x05\x06");
    const LOCATOR: (usize, &[u8]) = (20, b"PK\x06\x07");
    const LARGE_END: (usize, &[u8]) = (56, b"PK\x06\x06");
    let record = |at: usize, (length, signature): (usize, &[u8])| {
        bytes.get(at..at.checked_add(length)?).filter(|record| record.starts_with(signature))
    };
    // A comment of up to 64 KiB may follow the record.
    let last = bytes.len().checked_sub(END.0)?;
    let at = (last.saturating_sub(usize::from(u16::MAX))..=last).rev().find(|&at| record(at, END).is_some())?;
    let count = u64::from(u16::from_le_bytes(*record(at, END)?.get(8..)?.first_chunk()?));
    // Where there are more, or the file is large, another record has the numbers. It stands where its own place says.
    let Some(locator) = at.checked_sub(LOCATOR.0).and_then(|at| record(at, LOCATOR)) else { return Some(count) };
    let large = record(u64::from_le_bytes(*locator.get(8..)?.first_chunk()?) as usize, LARGE_END)?;
    Some(count.max(u64::from_le_bytes(*large.get(24..)?.first_chunk()?)).max(u64::from_le_bytes(*large.get(32..)?.first_chunk()?)))
}

/// Bytes of a file, of which so many more are read.
struct Budgeted<'a> {
    bytes: Cursor<&'a [u8]>,
    left: u64,
}

impl Read for Budgeted<'_> {
    fn read(&mut self, target: &mut [u8]) -> IoResult<usize> {
        let read = self.bytes.read(target)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| Error::new(ErrorKind::FileTooLarge, "its directory is larger than that of any model"))?;
        Ok(read)
    }
}

impl Seek for Budgeted<'_> {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        self.bytes.seek(to)
    }
}
