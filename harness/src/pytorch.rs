//! PyTorch: the worker is linked to its libraries, which are not ours to ship. Where they are, and how they get there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use include_dir::{Dir, include_dir};

use crate::children::{Guarded, guarded};
use crate::error::Error;
use crate::scratch::Scratch;

/// The scripts that fetch it, and which version that is: those of `make setup`.
static SETUP: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../setup");
/// Which version, as pip reads it.
const PIN: &str = "libtorch.txt";
/// Names the cache folder, for those who want it elsewhere.
const CACHE: &str = "LOWMEM_CACHE";
/// Where `make build` links to it, beside the programs. The worker looks there by itself.
const BESIDE: &str = "libtorch/lib";

/// Where the loader must be told to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Folders {
    /// PyTorch's libraries, where the worker does not find them by itself.
    pub(crate) torch: Option<PathBuf>,
    /// NVIDIA's runtime, which PyTorch's libraries find beside them and the worker does not. Only where there is a driver.
    pub(crate) cuda: Option<PathBuf>,
}

/// Finds PyTorch for programs that lie in `beside`.
pub(crate) fn find(beside: &Path) -> Result<Folders, Error> {
    let is_there = |folder: &PathBuf| folder.join("libtorch_cpu.so").is_file();
    let linked = Some(beside.join(BESIDE)).filter(is_there);
    let fetched = if linked.is_some() { None } else { Some(wheel()?.join("torch/lib")).filter(is_there) };
    let Some(found) = linked.as_ref().or(fetched.as_ref()) else {
        let missing = format!("PyTorch {} is not in {}", version()?, cache()?.display());
        return Err(Error::input(format!(
            "{missing}: run `lowmem setup`, which fetches it once (half a gigabyte; Python 3 with pip is needed)"
        )));
    };
    // A link's `..` leads to where it points.
    let cuda = found.join("../../nvidia/cu13/lib").canonicalize().ok();
    Ok(Folders { torch: fetched, cuda })
}

/// Fetches it into the user's cache folder, where it is not there yet. The scripts tell on standard error what they do. Gives its folder.
pub(crate) fn fetch() -> Result<PathBuf, Error> {
    let place = Scratch::new()?;
    SETUP.extract(place.path()).map_err(|error| Error::io(place.path(), error))?;
    let mut command = Command::new("bash");
    command.arg(place.path().join("pytorch.sh")).env(CACHE, cache()?);
    let run = || Guarded::spawn(guarded(&command, Duration::ZERO)?.stdin(Stdio::null()).stdout(Stdio::null()))?.wait();
    let status = run().map_err(|error| Error::input(format!("bash: {error}: the script that fetches PyTorch needs it")))?;
    if !status.success() {
        return Err(Error::input("PyTorch could not be fetched: the message above says why"));
    }
    Ok(wheel()?.join("torch"))
}

/// The unpacked wheel of the version that is pinned.
fn wheel() -> Result<PathBuf, Error> {
    Ok(cache()?.join(format!("torch-{}", version()?)))
}

fn version() -> Result<&'static str, Error> {
    let pin = SETUP.get_file(PIN).and_then(include_dir::File::contents_utf8).unwrap_or_default();
    let version = pin.lines().find_map(|line| line.strip_prefix("torch==")?.split_whitespace().next());
    version.ok_or_else(|| Error::Fault(format!("setup/{PIN} names no version of torch")))
}

/// The user's cache folder, as the scripts find it too.
pub(crate) fn cache() -> Result<PathBuf, Error> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let in_home = || Some(named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?.join("lowmem"));
    named(CACHE).or_else(in_home).ok_or_else(|| Error::input(format!("there is no folder for PyTorch: set HOME or {CACHE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_and_their_pins_are_in_the_binary() {
        assert!(version().expect("a version").starts_with("2."));
        for name in ["pytorch.sh", "unpack.sh", "cuda-libraries.txt"] {
            assert!(SETUP.get_file(name).is_some(), "{name}");
        }
    }
}
