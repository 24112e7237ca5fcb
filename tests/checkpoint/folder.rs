//! Copies of the fixture's checkpoint, to damage.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use engine::Checkpoint;
use lowmem_tests::{copy_folder, root};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

/// Both layouts, by the names of their folders.
pub(crate) const LAYOUTS: [&str; 2] = ["diffusers", "original"];

/// The fixture's checkpoint in a layout.
pub(crate) fn fixture(layout: &str) -> PathBuf {
    root().join("tests/fixtures/checkpoint").join(layout)
}

/// The reference's tensors, in a safetensors file.
pub(crate) fn reference_file() -> Vec<u8> {
    fs::read(root().join("tests/fixtures/checkpoint.safetensors")).expect("the fixture")
}

/// A fact that the reference wrote down beside its tensors.
pub(crate) fn reference(name: &str) -> Value {
    let bytes = reference_file();
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
    let facts: Value = serde_json::from_str(&header.metadata().as_ref().expect("facts")["fixture"]).expect("JSON");
    facts[name].clone()
}

/// A copy of a checkpoint, gone when dropped.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// A copy of the fixture in `layout`.
    pub(crate) fn of(layout: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        copy_folder(&fixture(layout), folder.path());
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts `new` for the first `old` in a text file.
    pub(crate) fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.file(name)).expect("a text file");
        assert!(text.contains(old), "{name} has no `{old}`");
        fs::write(self.file(name), text.replacen(old, new, 1)).expect("the file");
    }

    /// Changes the bytes of a file.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file(name)).expect("a file");
        change(&mut bytes);
        fs::write(self.file(name), bytes).expect("the file");
    }

    /// What keeps a video from being made of it: opening it, or what is found in it.
    pub(crate) fn refusal(&self) -> String {
        match Checkpoint::open(self.path()) {
            Ok(checkpoint) => {
                let refusal = checkpoint.inventory().refusal.expect("nothing is wrong with it");
                let error = checkpoint
                    .sources()
                    .err()
                    .map_or_else(|| checkpoint.open_tokenizer().err().map(|e| e.to_string()), |e| Some(e.to_string()));
                assert_eq!(error.as_deref(), Some(refusal.as_str()), "loading says what the inventory says");
                refusal
            }
            Err(error) => error.to_string(),
        }
    }
}

/// Writes the `.pth` file `name` anew with another pickle.
pub(crate) fn with_pickle(folder: &Folder, name: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(fs::read(folder.file(name)).expect("an archive"))).expect("an archive");
    let mut writer = zip::ZipWriter::new(fs::File::create(folder.file(name)).expect("an archive"));
    let options = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("an archive");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("an archive");
        if entry.name().ends_with("data.pkl") {
            bytes = change(bytes);
        }
        writer.start_file(entry.name(), options).expect("an archive");
        writer.write_all(&bytes).expect("an archive");
    }
    writer.finish().expect("an archive");
}
