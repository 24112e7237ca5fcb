//! What a process leaves behind as a file, as the virtual GPU does with its report. A file that is not there and one that cannot be read are told apart: a real GPU
//! leaves none, nor does a process that was killed, while one that cannot be read hides what happened.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use virtual_gpu_protocol::ProcessReport;

use crate::error::Error;
use crate::scratch::Scratch;

/// A report has some thousand bytes.
const MOST_BYTES: u64 = 4 << 20;

/// Where the virtual GPU's report of one worker goes. It is gone when dropped.
pub(super) struct ReportFile {
    path: PathBuf,
    _folder: Scratch,
}

impl ReportFile {
    /// A place where nothing is yet.
    pub(super) fn new() -> Result<Self, Error> {
        let folder = Scratch::new()?;
        Ok(Self { path: folder.path().join("report.json"), _folder: folder })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The report; none where the worker left none. Fails, in words, where it cannot be read.
    pub(super) fn read(&self) -> Result<Option<ProcessReport>, String> {
        read_left(&self.path)
    }
}

/// What stands in a file that a process may have left. Fails, in words, where it is there and cannot be read.
pub(crate) fn read_left<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    match read(path) {
        Ok(text) if text.len() as u64 > MOST_BYTES => Err(format!("it is larger than {} MiB", MOST_BYTES >> 20)),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The file's first bytes. Whoever left it may have left a pipe in its place, which is not waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let no_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_waiting).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_not_there_is_not_what_cannot_be_read() {
        let file = ReportFile::new().expect("a folder");
        assert_eq!(file.read(), Ok(None));
        let report = ProcessReport { pinned_peak_bytes: 5, ..ProcessReport::default() };
        let text = serde_json::to_string(&report).expect("JSON");
        fs::write(file.path(), &text).expect("written");
        assert_eq!(file.read(), Ok(Some(report)));
        for unreadable in ["", "{}", &text[1..]] {
            fs::write(file.path(), unreadable).expect("written");
            assert!(file.read().is_err(), "{unreadable}");
        }
        fs::write(file.path(), " ".repeat(5 << 20) + &text).expect("written");
        assert_eq!(file.read(), Err("it is larger than 4 MiB".into()));
        fs::remove_file(file.path()).expect("removed");
        fs::create_dir(file.path()).expect("made");
        assert_eq!(file.read(), Err("it is no regular file".into()));
    }
}
