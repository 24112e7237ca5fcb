//! What a process leaves behind as a file, as the virtual GPU does with its report. A file that is not there and one that cannot be read are told apart: a real GPU
//! leaves none, nor does a process that was killed, while one that cannot be read hides what happened.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use virtual_gpu_protocol::ProcessReport;

use crate::error::Error;
use crate::scratch::Scratch;

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
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
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
    }
}
