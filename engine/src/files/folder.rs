//! Where the files of a checkpoint may lie. A link is followed within the checkpoint's own folder, into the store of Hugging Face's cache that the folder is a snapshot of,
//! and into folders that the user has named. A link that leads elsewhere is refused: somebody else may have made it.

use std::fs::File;
use std::path::{Path, PathBuf};

use untrusted::shown;

use super::json::check_extent;
use super::limits::JsonLimits;
use crate::error::{Error, Result};

/// Folders that links in a checkpoint may lead to, separated by colons.
pub const LINKED_FOLDERS: &str = "LOWMEM_LINKED_FOLDERS";

/// A checkpoint's folder, from which files are opened.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Where files may lie; anywhere if nothing is said.
    allowed: Option<Vec<PathBuf>>,
}

impl Folder {
    /// Files that a person named one by one: links lead wherever they lead.
    pub fn anywhere() -> Self {
        Self { allowed: None }
    }

    /// The checkpoint in `root`.
    ///
    /// # Errors
    /// A folder that is not there.
    pub fn of(root: &Path) -> Result<Self> {
        let named = std::env::var_os(LINKED_FOLDERS).unwrap_or_default();
        Self::with(root, std::env::split_paths(&named))
    }

    fn with(root: &Path, named: impl Iterator<Item = PathBuf>) -> Result<Self> {
        let root = root.canonicalize().map_err(|error| Error::file(root, error))?;
        let blobs = cache_of(&root).and_then(|cache| cache.join("blobs").canonicalize().ok());
        // A folder that is not there now holds nothing.
        let named = named.filter(|folder| folder.is_absolute()).filter_map(|folder| folder.canonicalize().ok());
        Ok(Self { allowed: Some([root].into_iter().chain(blobs).chain(named).collect()) })
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// What is no regular file or is not there, and a link that leads to where no file of the checkpoint may lie.
    pub(crate) fn open(&self, path: &Path) -> Result<File> {
        let file = untrusted::open(path).map_err(|error| Error::file(path, error))?;
        let Some(allowed) = &self.allowed else { return Ok(file) };
        let place = untrusted::place_of(&file, path).map_err(|error| Error::file(path, error))?;
        if allowed.iter().any(|folder| place.starts_with(folder)) {
            return Ok(file);
        }
        let what = format!(
            "a link leads out of the checkpoint's folder, to {}: put the file itself here, or name its folder in {LINKED_FOLDERS}",
            shown(&place.to_string_lossy())
        );
        Err(Error::at(path, &what))
    }

    /// The bytes of a file that has no more than so many.
    ///
    /// # Errors
    /// Those of [`Folder::open`], and a file that has more.
    pub(crate) fn read(&self, path: &Path, most: u64) -> Result<Vec<u8>> {
        untrusted::read_opened(self.open(path)?, most).map_err(|error| Error::file(path, error))
    }

    /// The bytes of a JSON file that holds no more than its kind may.
    ///
    /// # Errors
    /// Those of [`Folder::open`], and a file that holds more.
    pub(crate) fn read_json(&self, path: &Path, limits: JsonLimits) -> Result<Vec<u8>> {
        let read = self.read(path, limits.bytes)?;
        check_extent(&read, limits).map_err(|what| Error::at(path, &format!("it has {what}: fetch it again")))?;
        Ok(read)
    }
}

/// The folder of a repository in Hugging Face's cache, where `root` is a snapshot in it: `models--NAME/snapshots/COMMIT`, whose files are links to `models--NAME/blobs`.
fn cache_of(root: &Path) -> Option<&Path> {
    let snapshots = root.parent()?;
    if snapshots.file_name()? == "snapshots" { snapshots.parent() } else { None }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_within_the_folder_its_cache_and_what_was_named() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for folder in ["models--a/blobs", "models--a/snapshots/1/vae", "models--a/other", "models--b/blobs", "drive"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["models--a/blobs/1", "models--a/other/1", "models--b/blobs/1", "drive/1", "models--a/snapshots/1/own"] {
            fs::write(at(file), file).unwrap();
        }
        symlink("/etc/passwd", at("models--a/blobs/out")).unwrap();
        let root = at("models--a/snapshots/1");
        // Where the checkpoint is named by a link, and where a folder of it is one.
        symlink(&root, at("named")).unwrap();
        symlink("../../../drive", root.join("text_encoder")).unwrap();
        let opens = |link: &str, named: &[PathBuf]| {
            let path = root.join("vae/link");
            let _ = fs::remove_file(&path);
            symlink(link, &path).unwrap();
            ["", "named"].map(|by| {
                let root = if by.is_empty() { root.clone() } else { at(by) };
                let folder = Folder::with(&root, named.iter().cloned()).unwrap();
                folder.open(&root.join("vae/link")).map(drop).map_err(|error| error.to_string())
            })
        };
        for inside in ["../../../blobs/1", "../own"] {
            assert!(opens(inside, &[]).iter().all(std::result::Result::is_ok), "{inside}: {:?}", opens(inside, &[]));
        }
        for outside in [
            "../../../other/1",
            "../../../../models--b/blobs/1",
            "../../../blobs/out",
            "/etc/passwd",
            "../../../../drive/1",
            "../text_encoder/1",
        ] {
            for said in opens(outside, &[PathBuf::new(), PathBuf::from("drive")]) {
                let said = said.expect_err(outside);
                assert!(said.contains("a link leads out of the checkpoint's folder, to /") && said.contains(LINKED_FOLDERS), "{said}");
            }
        }
        assert!(opens("../../../../drive/1", &[at("nowhere"), at("drive")]).iter().all(std::result::Result::is_ok));
        assert!(Folder::anywhere().open(&root.join("text_encoder/1")).is_ok());
        assert!(Folder::with(&root, [].into_iter()).unwrap().open(&root.join("text_encoder/1")).is_err());
    }
}
