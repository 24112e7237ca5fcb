//! A folder `models` as ComfyUI has it: which of its files make a model, found by what they hold.

use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::CheckpointFiles;

use super::content::Content;
use super::listing::file_name;
use super::single_files::OpenedFile;
use crate::error::{Error, Result};
use crate::files::{Folder, limits};
use crate::weights::gguf::goes_on;

/// Where such files lie, by today's names and those before.
const TRANSFORMERS: [&str; 2] = ["diffusion_models", "unet"];
const TEXT_ENCODERS: [&str; 2] = ["text_encoders", "clip"];
const IMAGE_ENCODERS: [&str; 1] = ["clip_vision"];
const VAES: [&str; 1] = ["vae"];

/// Folders below those that are looked into.
const DEPTH: usize = 2;

/// Whether `root` looks like such a folder.
pub(super) fn is_one(root: &Path) -> bool {
    let has = |folders: &[&str]| folders.iter().any(|folder| root.join(folder).is_dir());
    has(&TRANSFORMERS) && (has(&TEXT_ENCODERS) || has(&VAES))
}

/// The files of the one model that `root` holds. `named` are those that somebody named, which are not looked for.
pub(super) fn find(root: &Path, folder: &Folder, named: &CheckpointFiles) -> Result<CheckpointFiles> {
    let mut files = named.clone();
    // 1. The transformer, or the two of a pool: which of them is for high noise stands in their names alone.
    if files.transformer.is_none() {
        let found = files_of(root, folder, &TRANSFORMERS, |file| matches!(file.content, Content::Transformer { .. }))?;
        let is = |path: &Path, noise: &str| file_name(path).to_ascii_lowercase().contains(noise);
        match found.as_slice() {
            [one] => files.transformer = Some(one.clone()),
            [a, b] if is(a, "high") && is(b, "low") => {
                (files.transformer, files.low_noise_transformer) = (Some(a.clone()), Some(b.clone()))
            }
            found => return Err(which(root, found, "transformer", "diffusion_models")),
        }
    }
    // 2. What belongs to it.
    if files.text_encoder.is_none() {
        let found = files_of(root, folder, &TEXT_ENCODERS, |file| matches!(file.content, Content::TextEncoder { .. }))?;
        files.text_encoder = Some(only(root, found, "text-encoder", "text_encoders")?);
    }
    if files.vae.is_none() {
        let found = files_of(root, folder, &VAES, |file| matches!(file.content, Content::Vae { is_original: true }))?;
        // Two VAEs of Wan are there often, and one of them has as many channels as the transformer.
        let fitting = match (found.as_slice(), &files.transformer) {
            ([_, _, ..], Some(transformer)) => {
                let channels = OpenedFile::open(folder, transformer)?.channels();
                let fits = |path: &PathBuf| OpenedFile::open(folder, path).is_ok_and(|vae| vae.channels() == channels);
                found.into_iter().filter(fits).collect()
            }
            _ => found,
        };
        files.vae = Some(only(root, fitting, "vae", "vae")?);
    }
    let sees = |transformer: &PathBuf| OpenedFile::open(folder, transformer).is_ok_and(|file| file.sees_pictures());
    if files.image_encoder.is_none() && files.transformer.as_ref().is_some_and(sees) {
        let found = files_of(root, folder, &IMAGE_ENCODERS, |file| file.content == Content::ImageEncoder)?;
        files.image_encoder = Some(only(root, found, "image-encoder", "clip_vision")?);
    }
    Ok(files)
}

/// The only one of `found`.
fn only(root: &Path, found: Vec<PathBuf>, option: &str, place: &str) -> Result<PathBuf> {
    match <[PathBuf; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(found) => Err(which(root, &found, option, place)),
    }
}

/// None was found, or several were.
fn which(root: &Path, found: &[PathBuf], option: &str, place: &str) -> Error {
    let names: Vec<String> = found.iter().map(|path| path.strip_prefix(root).unwrap_or(path).display().to_string()).collect();
    let what = match names.as_slice() {
        [] => format!("no {} of Wan in {place} there: fetch one, or name its file with --{option}", option.replace('-', " ")),
        names => format!("{} files could be the {}: name one with --{option}: {}", names.len(), option.replace('-', " "), names.join(", ")),
    };
    Error::at(root, &what)
}

/// The files in these folders of `root` that hold what is wanted. What cannot be opened is another program's.
fn files_of(root: &Path, folder: &Folder, folders: &[&str], is_wanted: impl Fn(&OpenedFile) -> bool) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for name in folders {
        collect(&root.join(name), DEPTH, &mut paths)?;
    }
    paths.sort();
    paths.retain(|path| OpenedFile::open(folder, path).is_ok_and(|file| is_wanted(&file)));
    Ok(paths)
}

/// Adds the files of weights in `folder` and in those below it to `paths`.
fn collect(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, paths)?;
            }
            continue;
        }
        let is_weights =
            path.extension().is_some_and(|extension| ["safetensors", "gguf", "pth", "pt", "bin"].iter().any(|known| extension == *known));
        if is_weights && !goes_on(&file_name(&path)) {
            if paths.len() == limits::FILES {
                return Err(Error::at(folder, &format!("more than {} files of weights: name those that you mean", limits::FILES)));
            }
            paths.push(path);
        }
    }
    Ok(())
}
