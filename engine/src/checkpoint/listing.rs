//! Which files of a checkpoint's folder are its weights, by their names alone.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::limits;

/// The file to open for the weights in `folder`: the index of several, or the only one.
pub(super) fn weights_file(folder: &Path) -> Result<PathBuf> {
    let files = files(folder, |name| name.ends_with(".safetensors.index.json") || name.ends_with(".safetensors"))?;
    let ending = |end: &str| files.iter().filter(|path| file_name(path).ends_with(end)).cloned().collect::<Vec<_>>();
    match (ending(".safetensors.index.json").as_slice(), ending(".safetensors").as_slice()) {
        ([index], _) => Ok(index.clone()),
        ([], [file]) => Ok(file.clone()),
        ([], []) => Err(Error::at(folder, "no .safetensors file in this folder: fetch the checkpoint again")),
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

/// The only `.pth` file in `root` whose name starts so.
pub(super) fn pth(root: &Path, start: &str) -> Result<PathBuf> {
    match files(root, |name| name.starts_with(start) && name.ends_with(".pth"))?.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(Error::at(root, &format!("no file {start}*.pth in this folder: fetch the checkpoint again"))),
        _ => Err(Error::at(root, &format!("several files {start}*.pth: keep the one that belongs to this checkpoint"))),
    }
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
