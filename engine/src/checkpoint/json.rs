//! Reading the small JSON files of a checkpoint, with the file and the key in each error.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use untrusted::shown;

use crate::error::{Error, Result};
use crate::files::{Folder, limits};

/// The longest side, count or width that a config may name: far above any model, and small enough for their products to be numbers.
const MOST: i64 = 1 << 20;

/// A JSON file, an object.
pub(super) struct Json {
    path: PathBuf,
    value: Value,
}

/// Where Hugging Face's cache has the files that its links lead to.
const BLOBS: &[u8] = b"/blobs/";

impl Json {
    /// Reads the file at `path` in `folder`.
    pub(super) fn read(path: &Path, folder: &Folder) -> Result<Self> {
        let text = folder.read_json(path, limits::CONFIG)?;
        if text.starts_with(b"../") && text.windows(BLOBS.len()).any(|part| part == BLOBS) {
            return Err(Error::at(
                path,
                "it is the text of a link into Hugging Face's cache, which was copied without its links: copy it with them (`cp -rL`), or fetch it again",
            ));
        }
        let value: Value = serde_json::from_slice(&text).map_err(|error| Error::at(path, &format!("not JSON: {error}: fetch it again")))?;
        if !value.is_object() {
            return Err(Error::at(path, "not a JSON object: fetch it again"));
        }
        Ok(Self { path: path.to_owned(), value })
    }

    /// An error about `key` of this file.
    pub(super) fn error(&self, key: &str, what: &str) -> Error {
        Error::at(&self.path, &format!("{key}: {what}"))
    }

    /// The value of `key`, or nothing where it is missing or null.
    pub(super) fn find<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|error| self.error(key, &shown(&error.to_string()))),
        }
    }

    /// The value of `key`.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.find(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    /// A size or a count, at least 1.
    pub(super) fn size(&self, key: &str) -> Result<i64> {
        let size = self.get(key)?;
        self.within(key, size)
    }

    /// A size or a count, `default` where it is missing.
    pub(super) fn size_or(&self, key: &str, default: i64) -> Result<i64> {
        let size = self.find(key)?.unwrap_or(default);
        self.within(key, size)
    }

    fn within(&self, key: &str, size: i64) -> Result<i64> {
        if (1..=MOST).contains(&size) { Ok(size) } else { Err(self.error(key, &format!("{size} is out of range: 1 to {MOST}"))) }
    }

    /// A positive number.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.find::<f64>(key)? {
            Some(number) if !(number.is_finite() && number > 0.0) => Err(self.error(key, &format!("{number} is not above 0"))),
            number => Ok(number),
        }
    }

    /// Refuses a value of `key` that is there and is not `wanted`.
    pub(super) fn only(&self, key: &str, wanted: impl Into<Value>, why: &str) -> Result<()> {
        let wanted = wanted.into();
        match self.value.get(key) {
            Some(value) if !value.is_null() && *value != wanted => {
                Err(self.error(key, &format!("is {}, and only {wanted} is supported ({why})", shown(&value.to_string()))))
            }
            _ => Ok(()),
        }
    }
}
