//! The tensors of a component's files, by name.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use super::changes::Change;
use super::mapped::{AGAIN, StoredTensor};
use super::{gguf, pth, safetensors, scales};
use crate::error::{Error, Result};
use crate::files::{Folder, limits};

/// The tensors of one or several files, by name. Cheap to open: nothing is read until a tensor is used.
#[derive(Debug, Clone, Default)]
pub struct TensorStore {
    tensors: BTreeMap<String, StoredTensor>,
    /// What is added to some of them as they are loaded.
    changes: BTreeMap<String, Vec<Change>>,
}

impl TensorStore {
    /// Opens a file that begins as GGUF does, or else by its extension: `.safetensors`, the `.json` index of several of them, or PyTorch's `.pth`, `.pt` and `.bin`.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated, or is none of these.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_in(&Folder::anywhere(), path)
    }

    /// As [`TensorStore::open`], of a file in `folder`.
    ///
    /// # Errors
    /// Its errors, and a file that lies elsewhere.
    pub fn open_in(folder: &Folder, path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let tensors = match extension {
            Some("incomplete" | "part") => return Err(Error::at(path, &format!("this download has not ended: {AGAIN}"))),
            _ if gguf::is_one(path, folder) => gguf::open_file(path, folder)?,
            Some("gguf") => return Err(gguf::not_one(path, folder)),
            Some("safetensors") => safetensors::open_file(path, folder)?,
            Some("json") => {
                let mut store = Self::default();
                safetensors::open_index(path, folder, |tensors| store.extend(tensors))?;
                store.tensors
            }
            Some("pth" | "pt" | "bin") => pth::open_file(path, folder)?,
            _ => return Err(Error::at(path, "unknown kind of weights: .safetensors, an index of them (.json), .gguf and .pth are read")),
        };
        Ok(Self { tensors: scales::joined(tensors)?, changes: BTreeMap::new() })
    }

    /// Takes in the tensors of another file.
    ///
    /// # Errors
    /// A name that is there already, and more tensors than any model has.
    fn extend(&mut self, tensors: BTreeMap<String, StoredTensor>) -> Result<()> {
        for (name, tensor) in tensors {
            if self.tensors.len() == limits::TENSORS {
                return Err(
                    tensor.error(&format!("no component of a model has more than {} tensors, and this is one more", limits::TENSORS))
                );
            }
            match self.tensors.entry(name) {
                Entry::Vacant(place) => drop(place.insert(tensor)),
                Entry::Occupied(place) => return Err(tensor.error(&format!("{} has it too", place.get().path().display()))),
            }
        }
        Ok(())
    }

    /// The same tensors under other names. `rename` may leave a name as it is.
    ///
    /// # Errors
    /// Two that would get the same name.
    pub fn renamed(self, rename: impl Fn(&str) -> String) -> Result<Self> {
        let mut store = Self::default();
        for (name, tensor) in self.tensors {
            store.extend(BTreeMap::from([(rename(&name), tensor)]))?;
        }
        Ok(store)
    }

    /// What `make` makes of each tensor: others, each with its name.
    ///
    /// # Errors
    /// Those of `make`, and two that would get the same name.
    pub fn rebuilt(self, make: impl Fn(&str, &StoredTensor) -> Result<Vec<(String, StoredTensor)>>) -> Result<Self> {
        let mut store = Self::default();
        for (name, tensor) in &self.tensors {
            for made in make(name, tensor)? {
                store.extend(BTreeMap::from([made]))?;
            }
        }
        Ok(store)
    }

    /// The tensor `name`.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// Has `change` added to the tensor `name` as it is loaded, after those that are added already.
    pub fn change(&mut self, name: String, change: Change) {
        self.changes.entry(name).or_default().push(change);
    }

    /// What is added to the tensor `name`.
    pub fn changes(&self, name: &str) -> &[Change] {
        self.changes.get(name).map_or(&[], Vec::as_slice)
    }

    /// Takes out the tensor `name`, where it is there.
    pub fn remove(&mut self, name: &str) -> Option<StoredTensor> {
        self.tensors.remove(name)
    }

    /// All names and tensors, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The files that the tensors are in, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self.tensors.values().map(|tensor| tensor.path().to_owned()).collect();
        files.sort();
        files.dedup();
        files
    }
}
