//! The place of a video: refused before anything runs where nothing could be written there, and left clean after a worker that was ended.

use std::fs;
use std::path::Path;

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
        let half = unfinished(output);
        if half.exists() {
            return refuse(format!(
                "{} is left over from a run that was cut off, or a run is writing it now: remove it first",
                half.display()
            ));
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

/// Removes what a worker that could not clean up left behind.
pub(super) fn remove_unfinished(output: &Path) {
    let half = unfinished(output);
    // Mostly there is none; one that cannot be removed has a name that says what it is.
    let _ = if half.is_dir() { fs::remove_dir_all(&half) } else { fs::remove_file(&half) };
}
