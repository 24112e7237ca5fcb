//! Which files of a checkpoint's folder are its weights, by their names alone.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::limits;
use crate::weights::AGAIN;
use crate::weights::gguf::goes_on;

/// The file to open for the weights in `folder`: the index of several, or the only one.
pub(super) fn weights_file(folder: &Path) -> Result<PathBuf> {
    let files = files(folder, |name| name.ends_with(".safetensors.index.json") || name.ends_with(".safetensors"))?;
    let ending = |end: &str| files.iter().filter(|path| file_name(path).ends_with(end)).cloned().collect::<Vec<_>>();
    match (ending(".safetensors.index.json").as_slice(), ending(".safetensors").as_slice()) {
        ([index], _) => Ok(index.clone()),
        ([], [file]) => Ok(file.clone()),
        ([], []) => other_file(folder)?.ok_or_else(|| no_file(folder, "no .safetensors file in this folder")),
        // Variants in other types lie beside the one without a suffix, which is the one that is loaded.
        (indices, files) => {
            let all = if indices.is_empty() { files } else { indices };
            let plain = all.iter().find(|path| {
                let name = file_name(path);
                ["diffusion_pytorch_model.safetensors", "model.safetensors"]
                    .iter()
                    .any(|plain| name == *plain || name == format!("{plain}.index.json"))
            });
            plain.cloned().ok_or_else(|| Error::at(folder, "several .safetensors files and no index of them: fetch the checkpoint again"))
        }
    }
}

/// The only `.pth` file in `root` whose name starts so, or where there is none the only safetensors file that has `part` in its name too.
pub(super) fn pth(root: &Path, start: &str, part: &str) -> Result<PathBuf> {
    let mut found = files(root, |name| name.starts_with(start) && name.ends_with(".pth"))?;
    if found.is_empty() {
        found = files(root, |name| name.starts_with(start) && name.contains(part) && name.ends_with(".safetensors"))?;
    }
    match found.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(no_file(root, &format!("no file {start}*.pth in this folder"))),
        _ => Err(Error::at(root, &format!("several files {start}*.pth: keep the one that belongs to this checkpoint"))),
    }
}

/// Whether there is a file in `folder` whose name starts so.
pub(super) fn has(folder: &Path, start: &str) -> bool {
    files(folder, |name| name.starts_with(start)).is_ok_and(|found| !found.is_empty())
}

/// The first file in `folder` that may be weights by its name; nothing where there is none.
pub(super) fn first_weights(folder: &Path) -> Option<PathBuf> {
    let endings = [".safetensors", ".gguf", ".pth"];
    files(folder, |name| endings.iter().any(|end| name.ends_with(end))).ok()?.into_iter().next()
}

/// The snapshot that is meant by a model's folder in Hugging Face's cache: the one of `main`, or the only one.
pub(super) fn snapshot(model: &Path) -> Option<PathBuf> {
    const MOST: u64 = 200;
    let snapshots = model.join("snapshots");
    let main = untrusted::read(&model.join("refs/main"), MOST).ok().and_then(|text| String::from_utf8(text).ok());
    // It is a name, and leads nowhere else.
    let main =
        main.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let named = main.map(|name| snapshots.join(name)).filter(|place| place.is_dir());
    named.or_else(|| {
        let all = fs::read_dir(&snapshots).ok()?.take(2).filter_map(|entry| Some(entry.ok()?.path()));
        <[PathBuf; 1]>::try_from(all.collect::<Vec<_>>()).ok().map(|[only]| only)
    })
}

/// The only GGUF file in `folder`, or the only one of `torch.save`, which is what there was before safetensors.
fn other_file(folder: &Path) -> Result<Option<PathBuf>> {
    let only = |found: Vec<PathBuf>| <[PathBuf; 1]>::try_from(found).ok().map(|[file]| file);
    let in_blocks = only(files(folder, |name| name.ends_with(".gguf") && !goes_on(name))?);
    Ok(in_blocks.or(only(files(folder, |name| name.ends_with(".bin") || name.ends_with(".pth"))?)))
}

/// What is missing in `folder`, and why as far as other files there tell: a download that has not ended.
fn no_file(folder: &Path, what: &str) -> Error {
    let with = |endings: &[&str]| files(folder, |name| endings.iter().any(|end| name.ends_with(end))).ok()?.into_iter().next();
    if let Some(file) = with(&[".incomplete", ".part", ".aria2", ".crdownload", ".tmp"]) {
        return Error::at(&file, &format!("{what}, and this download has not ended: {AGAIN}"));
    }
    Error::at(folder, &format!("{what}: {AGAIN}"))
}

/// The last part of a path, as people read it.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What in `folder` has a name that is wanted, in the order of the names.
fn files(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| Error::file(folder, error))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_wanted(&file_name(path)));
    let mut files: Vec<PathBuf> = paths.take(limits::FILES + 1).collect();
    if files.len() > limits::FILES {
        return Err(Error::at(folder, &format!("more than {} files of weights, which no checkpoint has", limits::FILES)));
    }
    files.sort();
    Ok(files)
}
