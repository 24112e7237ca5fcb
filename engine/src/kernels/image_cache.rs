//! Machine code of our kernels in the user's cache folder, so that each is compiled once: by its source, its options and the compiler's version.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use super::nvrtc::{self, Source};
use crate::error::Result;

/// How a CUBIN begins: it is an ELF file.
const MAGIC: &[u8] = b"\x7fELF";

/// The machine code of `source`, from the cache, or compiled and put there. A cache that cannot be written is none.
///
/// # Errors
/// NVRTC's.
pub(super) fn image(name: &str, source: &Source, options: &[String]) -> Result<Vec<u8>> {
    let version = nvrtc::version()?;
    let path = folder().map(|folder| folder.join(file_name(name, source, options, version)));
    if let Some(image) = path.as_deref().and_then(read) {
        return Ok(image);
    }
    let image = nvrtc::compile(source, options)?.image;
    if let Some(path) = path.filter(|_| image.starts_with(MAGIC)) {
        let _ = write(&path, &image);
    }
    Ok(image)
}

/// `kernels` in the user's cache folder, which `setup/libtorch.sh` and `lowmem setup` find by the same rule.
fn folder() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let in_home = || Some(named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?.join("lowmem"));
    Some(named("LOWMEM_CACHE").or_else(in_home)?.join("kernels"))
}

fn file_name(name: &str, source: &Source, options: &[String], version: (i32, i32)) -> String {
    let mut hasher = DefaultHasher::new();
    (source, options, version).hash(&mut hasher);
    format!("{name}-{:016x}.cubin", hasher.finish())
}

/// What was written whole: a file that ends early would be read beyond its end.
fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (image, length) = bytes.split_last_chunk::<8>()?;
    (image.starts_with(MAGIC) && u64::from_le_bytes(*length) == image.len() as u64).then(|| image.to_vec())
}

/// Made beside its place and moved there, its length after it.
fn write(path: &Path, image: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let made = path.with_extension(format!("part-{}", process::id()));
    fs::write(&made, [image, &(image.len() as u64).to_le_bytes()].concat())?;
    fs::rename(&made, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_whole_is_read_again() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("kernels/one.cubin");
        let image = b"\x7fELF and the rest".to_vec();
        assert_eq!(read(&path), None);
        write(&path, &image).expect("written");
        assert_eq!(read(&path), Some(image));
        let bytes = fs::read(&path).expect("the file");
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).expect("written");
            assert_eq!(read(&path), None, "{cut} bytes");
        }
        assert_eq!(fs::read_dir(place.path().join("kernels")).expect("the folder").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn another_source_option_or_compiler_is_another_file() {
        let name = |text: &'static str, option: &str, version| file_name("k", &[("k.cu", text)], &[option.to_owned()], version);
        let first = name("a", "-O3", (13, 0));
        assert_eq!(first, name("a", "-O3", (13, 0)));
        for other in [name("b", "-O3", (13, 0)), name("a", "-O2", (13, 0)), name("a", "-O3", (13, 1))] {
            assert_ne!(first, other);
        }
    }
}
