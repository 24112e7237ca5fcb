//! The place of a video: refused before anything runs where nothing could be written there, held against others while the video is made, and left clean after a worker
//! that was ended.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use engine_protocol::{Config, OutputFormat, unfinished};

use crate::error::Error;

/// Refuses an output that could not be written.
pub(super) fn check(output: &Path) -> Result<OutputFormat, Error> {
    let shown = output.display();
    let refuse = |what: String| Err(Error::input(format!("--output {shown}: {what}")));
    let format = OutputFormat::of(output).map_err(|error| Error::input(format!("--output {error}")))?;
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return refuse(format!("there is no folder {}: make it first", folder.display()));
    }
    if let Err(error) = tempfile::tempfile_in(folder) {
        return refuse(format!("the folder {} cannot be written to ({error}): name another place", folder.display()));
    }
    if format == OutputFormat::Pngs {
        if fs::symlink_metadata(output).is_ok() && !output.is_dir() {
            return refuse("that is a file, and a folder of PNGs is wanted: name a new folder, or a file that ends in .mp4".into());
        }
        if fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some()) {
            return refuse("that folder is not empty: name a new one".into());
        }
    } else if output.is_dir() {
        return refuse("that is a folder: name a file in it".into());
    }
    Ok(format)
}

/// Refuses a video that the format cannot hold.
pub(super) fn check_size(format: OutputFormat, config: &Config) -> Result<(), Error> {
    format.check_size(config.resolution.width, config.resolution.height).map_err(|error| Error::input(format!("--output: {error}")))
}

/// A place that no other run writes to meanwhile. What is not finished there when it is dropped is removed.
pub(super) struct Held {
    path: PathBuf,
    /// Locked: a run that was killed holds nothing, and what it left is taken over.
    file: File,
}

impl Held {
    /// Holds the place of a video until it is complete.
    pub(super) fn of(output: &Path, format: OutputFormat) -> Result<Self, Error> {
        let path = unfinished(output);
        let refused = |error: io::Error| Error::input(format!("--output {}: {}: {error}", output.display(), path.display()));
        loop {
            let file = open(&path, format).map_err(refused)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let (shown, half) = (output.display(), path.display());
                    return Err(Error::input(format!(
                        "--output {shown}: another lowmem is writing it now, into {half}: wait for it, or name another place"
                    )));
                }
                // Some file systems of the network know no locks.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            let held = Self { path: path.clone(), file };
            // The one that held it may have put it in its place meanwhile, and then this is its video.
            if held.is_in_place() {
                held.clear().map_err(refused)?;
                return Ok(held);
            }
        }
    }

    fn is_in_place(&self) -> bool {
        let same = |ours: fs::Metadata, there: fs::Metadata| (ours.dev(), ours.ino()) == (there.dev(), there.ino());
        self.file.metadata().and_then(|ours| Ok(same(ours, fs::symlink_metadata(&self.path)?))).unwrap_or(false)
    }

    /// Removes what another run left in it.
    fn clear(&self) -> io::Result<()> {
        if !self.path.is_dir() {
            return self.file.set_len(0);
        }
        fs::read_dir(&self.path)?.try_for_each(|entry| fs::remove_file(entry?.path()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A finished video is elsewhere by now, and another run may have begun one here. What cannot be removed has a name that says what it is.
        let _ = self.is_in_place().then(|| if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) });
    }
}

/// The file, or the folder, that is not complete yet.
fn open(path: &Path, format: OutputFormat) -> io::Result<File> {
    if format != OutputFormat::Pngs {
        let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        return OpenOptions::new().write(true).create(true).truncate(false).custom_flags(no_link).open(path);
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(path),
    }
}
