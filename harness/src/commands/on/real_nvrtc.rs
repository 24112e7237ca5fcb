//! NVIDIA's own run-time compiler, where it is installed: it needs no GPU, and says what is wrong with a kernel. What it makes is loaded and not run.
//!
//! It lies in one folder with libraries that the virtual GPU stands in for, so it is linked into a folder by itself, which the loader sees first.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::error::Error;

/// The compiler and its built-in headers, of the CUDA that the virtual GPU stands in for.
const NAMES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc-builtins.so.13"];
/// Where packages from PyPI have it, below a folder of Python packages.
const IN_PACKAGES: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

/// Links it into `folder`, which is made for it. Whether it was found.
pub(super) fn link_into(folder: &Path, python_path: Option<&OsStr>) -> Result<bool, Error> {
    let Some(installed) = folders(python_path).into_iter().find(|folder| folder.join(NAMES[0]).is_file()) else { return Ok(false) };
    let failed = |error| Error::io(folder, error);
    fs::create_dir_all(folder).map_err(failed)?;
    for entry in fs::read_dir(&installed).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if NAMES.iter().any(|known| name.to_string_lossy().starts_with(known)) {
            symlink(entry.path(), folder.join(&name)).map_err(failed)?;
        }
    }
    Ok(true)
}

/// Where it may be: on the library path, and among the Python packages that the program will see.
fn folders(python_path: Option<&OsStr>) -> Vec<PathBuf> {
    let on_library_path = env::var_os("LD_LIBRARY_PATH");
    let listed = |path: Option<&OsStr>| path.map(|path| env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    let mut packages = listed(python_path);
    packages.extend(environment_packages());
    let in_packages = packages.iter().flat_map(|folder| IN_PACKAGES.map(|inner| folder.join(inner)));
    // Ours goes by that name too.
    let libraries = listed(on_library_path.as_deref()).into_iter().filter(|folder| !folder.ends_with("virtual-gpu"));
    libraries.chain(in_packages).collect()
}

/// The packages of the virtual environment that is active.
fn environment_packages() -> Vec<PathBuf> {
    let Some(lib) = env::var_os("VIRTUAL_ENV").map(|folder: OsString| PathBuf::from(folder).join("lib")) else { return Vec::new() };
    fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path().join("site-packages")).collect()
}
