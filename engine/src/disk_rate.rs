//! Measures what a disk gives when weights are streamed from it: parts of a file by several threads, as `memory` reads them, none of them from the system's pages.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use engine_protocol::{DiskRate, DiskRateSource};
use rustix::fs::{Advice, fadvise};

use crate::error::{Error, Result};
use crate::memory::{PART_BYTES, READERS};

/// Measurements, each of another part of the file.
const ROUNDS: u64 = 5;
/// Bytes of each, where the file has so many: at 7 GB/s a twentieth of a second.
const ROUND_BYTES: u64 = 384 << 20;
/// A smaller file says nothing of a large one.
const LEAST_BYTES: u64 = 64 << 20;

/// Measures the disk that holds the largest file in `folder` or in its folders: the slowest, the median and the fastest of several rounds.
///
/// # Errors
/// A folder without a large file, and one that cannot be read.
pub fn measure(folder: &Path) -> Result<DiskRate> {
    let (path, bytes) = largest(folder, 2)?.filter(|&(_, bytes)| bytes >= LEAST_BYTES).ok_or_else(|| {
        Error::at(folder, &format!("no file in it has {} MiB, and from a smaller one a disk's rate is not known", LEAST_BYTES >> 20))
    })?;
    let failed = |error: std::io::Error| Error::file(&path, error);
    let file = untrusted::open(&path).map_err(failed)?;
    // What is not on the disk yet cannot leave the system's pages.
    file.sync_data().map_err(failed)?;
    let round_bytes = ROUND_BYTES.min(bytes / ROUNDS);
    let rate = |round: u64| read(&file, round * (bytes / ROUNDS), round_bytes).map_err(failed);
    let mut rates = (0..ROUNDS).map(rate).collect::<Result<Vec<_>>>()?;
    rates.sort_by(f64::total_cmp);
    Ok(DiskRate { low: rates[0], expected: rates[rates.len() / 2], high: rates[rates.len() - 1], source: DiskRateSource::Measured })
}

/// Bytes a second of the file at `path` as a whole, none of which is in memory before.
///
/// # Errors
/// A file that cannot be read.
pub fn read_whole(path: &Path) -> Result<f64> {
    let failed = |error: std::io::Error| Error::file(path, error);
    let file = untrusted::open(path).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    read(&file, 0, bytes).map_err(failed)
}

/// Has the system keep nothing of the file at `path` in memory.
///
/// # Errors
/// A file that cannot be opened.
pub fn forget(path: &Path) -> Result<()> {
    let forget = || Ok(fadvise(untrusted::open(path)?, 0, None, Advice::DontNeed)?);
    forget().map_err(|error: std::io::Error| Error::file(path, error))
}

/// The largest file in `folder`, and in folders so deep below it.
fn largest(folder: &Path, depth: usize) -> Result<Option<(PathBuf, u64)>> {
    let failed = |error: std::io::Error| Error::file(folder, error);
    let mut found: Option<(PathBuf, u64)> = None;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let other = if metadata.is_file() {
            Some((path, metadata.len()))
        } else if metadata.is_dir() && depth > 0 {
            largest(&path, depth - 1)?
        } else {
            None
        };
        found = found.into_iter().chain(other).max_by_key(|&(_, bytes)| bytes);
    }
    Ok(found)
}

/// Bytes a second of so many bytes from `first` on, none of which is in memory before.
fn read(file: &File, first: u64, bytes: u64) -> std::io::Result<f64> {
    fadvise(file, first, std::num::NonZeroU64::new(bytes), Advice::DontNeed)?;
    let next = AtomicU64::new(first);
    let part = PART_BYTES as u64;
    let work = || -> std::io::Result<()> {
        let mut buffer = vec![0; part as usize];
        loop {
            let offset = next.fetch_add(part, Ordering::Relaxed);
            if offset >= first + bytes {
                return Ok(());
            }
            file.read_exact_at(&mut buffer[..part.min(first + bytes - offset) as usize], offset)?;
        }
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..READERS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it only reads"))
    })?;
    Ok(bytes as f64 / begun.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_file_is_read_and_a_small_one_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("transformer");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("small"), [1; 10]).unwrap();
        let error = measure(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no file in it has 64 MiB"), "{error}");
        fs::write(inner.join("large"), vec![1; LEAST_BYTES as usize]).unwrap();
        assert_eq!(largest(folder.path(), 2).unwrap().map(|(path, _)| path), Some(inner.join("large")));
        let rate = measure(folder.path()).unwrap();
        assert!(0.0 < rate.low && rate.low <= rate.expected && rate.expected <= rate.high, "{rate:?}");
        assert_eq!(rate.source, DiskRateSource::Measured);
        assert!(measure(Path::new("/nowhere")).is_err());
    }
}
