//! The data files: GPU profiles, models, sweep definitions and published figures. Ours are in the binary, or in `sweeps/` where the current folder is a checkout; a
//! user's own are in `~/.config/lowmem`. `sweeps/README.md` says which counts where two have the same name.

use std::borrow::Cow;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The data that this binary was built with.
static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../sweeps");
/// Where a checkout has the same.
const FOLDER: &str = "sweeps";
/// GPU profiles, among the data and among a user's own.
pub(crate) const GPUS: &str = "gpus";
/// Model definitions.
pub(crate) const MODELS: &str = "models";
/// The largest file that a person writes by hand, many times over: ours have 20 KB.
const MOST_BYTES: u64 = 4 << 20;

/// A data file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DataFile {
    /// What messages call it; a path where it is not in the binary.
    pub(crate) path: PathBuf,
    /// What it holds.
    pub(crate) text: Cow<'static, str>,
}

/// Whether the current folder is a checkout of lowmem.
pub(crate) fn is_checkout() -> bool {
    [MODELS, GPUS].iter().all(|name| Path::new(FOLDER).join(name).is_dir())
}

/// Where run directories go unless one is named.
pub(crate) fn runs() -> PathBuf {
    PathBuf::from(if is_checkout() { "reports/out" } else { "lowmem-runs" })
}

/// Where a user's own files are. None where the machine has no such place.
pub(crate) fn user_folder() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = named("XDG_CONFIG_HOME").or_else(|| Some(named("HOME")?.join(".config")))?;
    Some(folder.join("lowmem"))
}

/// All GPU profiles, or all models: `name` gives what one is called, and no two of a name are among them.
pub(crate) fn load_all<T: DeserializeOwned>(folder: &str, name: impl Fn(&T) -> &str) -> Result<Vec<T>, Error> {
    let ours = if is_checkout() { files_in(&Path::new(FOLDER).join(folder))? } else { built_in(folder) };
    // Ours are what our own tests are about.
    let own = user_folder().filter(|_| !cfg!(test)).map(|own| own.join(folder)).filter(|own| own.is_dir());
    let own = own.map_or(Ok(Vec::new()), |own| files_in(&own))?;
    let (first, second) = if is_checkout() && folder != GPUS { (ours, own) } else { (own, ours) };
    let mut all: Vec<T> = Vec::new();
    for file in first.iter().chain(&second) {
        let one: T = parse(&file.path, &file.text)?;
        if all.iter().all(|other| name(other) != name(&one)) {
            all.push(one);
        }
    }
    Ok(all)
}

/// The file at the path `word`, or else of that name among the sweep definitions and published figures; `.yaml` may be left out.
pub(crate) fn find(word: &str) -> Result<Option<DataFile>, Error> {
    let name = Path::new(word).strip_prefix(FOLDER).unwrap_or(Path::new(word));
    let names = [name.to_owned(), name.with_extension("yaml")];
    let in_checkout = is_checkout().then(|| PathBuf::from(FOLDER));
    let own = user_folder().map(|own| own.join(FOLDER));
    let folders: Vec<_> = in_checkout.iter().chain(&own).collect();
    let candidates = folders.into_iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
    let on_disk = [PathBuf::from(word)].into_iter().chain(candidates).find(|path| untrusted::is_there(path) && !path.is_dir());
    if let Some(path) = on_disk {
        let text = read(&path)?.into();
        return Ok(Some(DataFile { path, text }));
    }
    Ok(if is_checkout() { None } else { names.iter().find_map(|name| embedded(BUILT_IN.get_file(name)?)) })
}

/// The YAML files of a folder of the binary, in the order of their names.
fn built_in(folder: &str) -> Vec<DataFile> {
    let files = BUILT_IN.get_dir(folder).into_iter().flat_map(Dir::files).filter(|file| is_yaml(file.path()));
    let mut files: Vec<_> = files.filter_map(embedded).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn embedded(file: &'static include_dir::File<'static>) -> Option<DataFile> {
    Some(DataFile { path: Path::new(FOLDER).join(file.path()), text: file.contents_utf8()?.into() })
}

/// The YAML files of a folder on disk, in the order of their names.
fn files_in(folder: &Path) -> Result<Vec<DataFile>, Error> {
    let entries = fs::read_dir(folder).map_err(|error| Error::input(format!("{}: {error}", folder.display())))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_yaml(path)).collect();
    paths.sort();
    let file = |path: PathBuf| read(&path).map(|text| DataFile { path, text: text.into() });
    paths.into_iter().map(file).collect()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml")
}

/// Reads a text file that a person named.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let refused = |what: &str| Error::input(untrusted::line(&format!("{}: {what}", path.display())));
    let bytes = untrusted::read(path, MOST_BYTES).map_err(|error| match error.kind() {
        ErrorKind::NotFound => refused("no such file"),
        _ => refused(&error.to_string()),
    })?;
    String::from_utf8(bytes).map_err(|_| refused("it is no text in UTF-8"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_found_by_its_name() {
        for word in ["default", "default.yaml", "sweeps/default.yaml", "published.csv"] {
            let file = find(word).expect("readable").unwrap_or_else(|| panic!("{word} is in the binary"));
            assert!(file.path.starts_with("sweeps") && !file.text.is_empty(), "{}", file.path.display());
        }
        assert_eq!(find("no-such-definition").expect("nothing to read"), None);
    }
}
