//! The data files in `sweeps/`: those of the current directory, else those that this binary was built beside.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use engine_protocol::GpuProfile;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The checkout that this binary was built in.
const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The directory that holds `sweeps/`.
pub(crate) fn root() -> PathBuf {
    let here = Path::new("sweeps/models").is_dir() && Path::new("sweeps/gpus").is_dir();
    let built_in = Path::new(BUILT_IN);
    if here || !built_in.join("sweeps").is_dir() {
        return PathBuf::new();
    }
    // Without the `..`, so that messages and links are short.
    built_in.canonicalize().unwrap_or_else(|_| built_in.to_owned())
}

/// Where run directories go unless one is named.
pub(crate) fn runs() -> PathBuf {
    root().join("reports/out")
}

/// Where a user's own files are: measured rates, GPU profiles. None where the machine has no such place.
pub(crate) fn user_folder() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = named("XDG_CONFIG_HOME").or_else(|| Some(named("HOME")?.join(".config")))?;
    Some(folder.join("lowmem"))
}

/// A user's own GPU profiles, in that folder.
pub(crate) const USER_GPUS: &str = "gpus";

/// A user's own GPU profiles: calibrated ones, and GPUs that we have none of.
pub(crate) fn user_gpus() -> Result<Vec<GpuProfile>, Error> {
    // Ours are what tests are about.
    let folder = user_folder().filter(|_| !cfg!(test)).map(|folder| folder.join(USER_GPUS));
    folder.filter(|folder| folder.is_dir()).map_or(Ok(Vec::new()), |folder| load_folder(&folder))
}

/// Reads every YAML file of `sweeps/FOLDER`, in the order of their names.
pub(crate) fn load_all<T: DeserializeOwned>(folder: &str) -> Result<Vec<T>, Error> {
    load_folder(&root().join("sweeps").join(folder))
}

fn load_folder<T: DeserializeOwned>(dir: &Path) -> Result<Vec<T>, Error> {
    let entries = fs::read_dir(dir).map_err(|error| Error::input(format!("{}: {error}: run it in a checkout of lowmem", dir.display())))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths.iter().map(|path| parse(path, &read(path)?)).collect()
}

/// Reads a text file that a person named.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::input(format!("{}: no such file", path.display())),
        _ => Error::input(format!("{}: {error}", path.display())),
    })
}

/// Parses YAML, with `file:line:column` where it is not what it should be.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    serde_yaml::from_str(text).map_err(|error| yaml_error(path, &error))
}

/// A mistake in YAML with its place.
pub(crate) fn yaml_error(path: &Path, error: &serde_yaml::Error) -> Error {
    let bare = error.without_snippet().to_string();
    let place = error.location().map(|at| (at.line(), at.column()));
    match place {
        Some((line, column)) => {
            let message = bare.replace(&format!(" at line {line}, column {column}"), "");
            Error::input(format!("{}:{line}:{column}: {message}", path.display()))
        }
        None => Error::input(format!("{}: {bare}", path.display())),
    }
}

/// The nearest of `names` to a misspelt one, where one is near.
pub(crate) fn nearest<'a>(names: impl Iterator<Item = &'a str>, misspelt: &str) -> Option<&'a str> {
    let scored = names.map(|name| (name, strsim::jaro_winkler(name, misspelt)));
    let best = scored.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (best.1 > 0.7).then_some(best.0)
}
