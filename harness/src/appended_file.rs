//! A file that grows by whole lines, which others may read meanwhile and append to as well.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A file that is appended to, and never written over.
#[derive(Debug)]
pub(crate) struct AppendedFile {
    path: PathBuf,
    file: File,
}

impl AppendedFile {
    /// Opens it, or makes it. What is no regular file is refused; `option` is what named it.
    pub(crate) fn open(option: &str, path: &Path) -> Result<Self, Error> {
        let refused = |error: std::io::Error| Error::input(format!("{option} {}: {error}: name another file", path.display()));
        // Opening a pipe for writing would wait without end.
        if untrusted::is_there(path) {
            untrusted::open(path).map_err(refused)?;
        }
        let file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(refused)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Its first line, of so many bytes at most; empty where it has none.
    pub(crate) fn first_line(&self, most: u64) -> Result<Vec<u8>, Error> {
        let mut line = Vec::new();
        let read = BufReader::new((&self.file).take(most)).read_until(b'\n', &mut line);
        read.map_err(|error| Error::io(&self.path, error))?;
        Ok(line)
    }

    /// Appends whole lines, all of them or none, whoever else appends.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<(), Error> {
        let write = || {
            self.file.lock()?;
            let before = self.file.metadata()?.len();
            // Half a line would spoil the next one too. What cannot be cut off stays.
            let written = (&self.file).write_all(lines).inspect_err(|_| drop(self.file.set_len(before)));
            self.file.unlock().and(written)
        };
        write().map_err(|error| Error::io(&self.path, error))
    }

    /// Has what was appended on disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| Error::io(&self.path, error))
    }
}
