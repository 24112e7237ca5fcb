//! Address space from the operating system.

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::{ptr, slice};

use crate::device::{AddressSpace, Reservation};

/// Readable, writable, and without memory behind it until it is touched.
pub(crate) struct Mapped;

/// Part of a mapping that was made for it, which goes back when this is dropped. Nothing here makes a reference to what stands in it: who follows an address
/// into it does so by unsafe code, and has to know that it is still there.
#[derive(Debug)]
struct Mapping {
    start: u64,
    bytes: u64,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped, is nobody else's, and is given back once.
        unsafe { libc::munmap(self.start as *mut c_void, self.bytes as usize) };
    }
}

impl Mapping {
    /// Keeps what lies from `start` on; what is left over on both sides goes back.
    fn trimmed(self, start: u64, bytes: u64) -> Self {
        let (whole_start, whole_end, end) = (self.start, self.start + self.bytes, start + bytes);
        std::mem::forget(self);
        if start > whole_start {
            drop(Self { start: whole_start, bytes: start - whole_start });
        }
        if whole_end > end {
            drop(Self { start: end, bytes: whole_end - end });
        }
        Self { start, bytes }
    }
}

impl Reservation for Mapping {
    fn address(&self) -> u64 {
        self.start
    }

    fn discard(&self, offset: u64, bytes: u64) {
        let offset = offset.min(self.bytes);
        let bytes = bytes.min(self.bytes - offset);
        // SAFETY: the range is part of this mapping, to which there are no references.
        unsafe { libc::madvise((self.start + offset) as *mut c_void, bytes as usize, libc::MADV_DONTNEED) };
    }
}

/// The least window onto the shared memory: a hundred gigabytes are 6,400 of them, and a process may have 65,530 mappings.
const WINDOW_BYTES: u64 = 16 << 20;
/// A block has no more windows than that: a larger one has larger windows.
const MOST_WINDOWS: u64 = 1024;

/// The shared memory of this process: a file in memory, longer than any window, of which as much takes memory as the largest window that is written.
/// None where the system has no such files.
fn shared_memory() -> Option<&'static OwnedFd> {
    static FILE: LazyLock<Option<OwnedFd>> = LazyLock::new(|| {
        // SAFETY: the name is a string of C.
        let file = unsafe { libc::memfd_create(c"virtual-gpu-page-locked".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: the descriptor is a new one, and nobody else's.
        let file = (file >= 0).then(|| unsafe { OwnedFd::from_raw_fd(file) })?;
        // SAFETY: the descriptor is open.
        let made_long = unsafe { libc::ftruncate(file.as_raw_fd(), 1 << 40) };
        (made_long == 0).then_some(file)
    });
    FILE.as_ref()
}

impl AddressSpace for Mapped {
    fn reserve_shared(&self, bytes: u64) -> Option<Box<dyn Reservation>> {
        let mapping = self.reserve(bytes, 4096)?;
        let window = (bytes / MOST_WINDOWS).next_power_of_two().max(WINDOW_BYTES);
        let show = |file: &OwnedFd, offset: u64| {
            let (start, length) = (mapping.address() + offset, window.min(bytes - offset));
            let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
            // SAFETY: what is replaced is part of the mapping that was just made, to which there are no references.
            let shown = unsafe { libc::mmap(start as *mut c_void, length as usize, access, flags, file.as_raw_fd(), 0) };
            shown != libc::MAP_FAILED
        };
        // Where the system refuses one, what is left stays ordinary memory: as good, only dearer.
        let _ = shared_memory().is_some_and(|file| (0..bytes.div_ceil(window)).all(|index| show(file, index * window)));
        Some(mapping)
    }

    fn reserve(&self, bytes: u64, alignment: u64) -> Option<Box<dyn Reservation>> {
        const PAGE: u64 = 4096;
        // More than is asked for, so that an aligned start lies within.
        let slack = if alignment > PAGE { alignment } else { 0 };
        let whole = bytes.checked_add(slack)?;
        let length = usize::try_from(whole).ok()?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the system chooses touches no memory that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            // To the program this is the device's memory running out, so the true reason must be said.
            eprintln!("lowmem: virtual GPU: the system refuses {bytes} bytes of address space (`ulimit -v`, vm.overcommit_memory)");
            return None;
        }
        let mapping = Mapping { start: start as u64, bytes: whole };
        let aligned = mapping.start.next_multiple_of(alignment);
        let mapping = mapping.trimmed(aligned, bytes);
        // A small copy must cost a page of 4 KiB, not one of 2 MiB. Where the system has no huge pages this fails, rightly.
        // SAFETY: the range was just mapped.
        unsafe { libc::madvise(mapping.start as *mut c_void, bytes as usize, libc::MADV_NOHUGEPAGE) };
        Some(Box::new(mapping))
    }
}

/// So many numbers in a file, all zero, which other processes may read at any time.
pub(crate) fn shared_numbers(path: &Path, count: usize) -> io::Result<&'static [AtomicU64]> {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let bytes = count * size_of::<AtomicU64>();
    // Written, and not only made as long: a full disk is met here and not where a number is stored.
    file.write_all(&vec![0; bytes])?;
    // SAFETY: a new mapping at an address that the system chooses touches no memory that exists.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is aligned to pages, as long as that, and never undone; all who change it do so by atomic numbers.
    Ok(unsafe { slice::from_raw_parts(start.cast(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_block_can_be_written_to_its_end_and_shows_the_same_memory_again() {
        // A window and a half; and one with larger windows, made when the first is in use.
        let blocks = [24 << 20, 40 << 30].map(|bytes| (Mapped.reserve_shared(bytes).expect("addresses"), bytes));
        for (block, bytes) in &blocks {
            let last = (block.address() + bytes - 8) as *mut u64;
            let first = block.address() as *mut u64;
            // SAFETY: they are the first and the last number of a mapping that is there.
            let read = unsafe {
                first.write(7);
                last.write(8);
                (first.read(), last.read())
            };
            assert_eq!(read, (7, 8));
        }
        let in_next_window = (blocks[0].0.address() + WINDOW_BYTES) as *const u64;
        // SAFETY: it is a number in a mapping that is there.
        assert_eq!(unsafe { in_next_window.read() }, 7, "the same memory stands behind both");
    }

    #[test]
    fn what_is_discarded_reads_as_zeros_and_no_more_than_the_mapping_is() {
        const BYTES: u64 = 3 * 4096;
        let (first, second) = (Mapped.reserve(BYTES, 2 << 20).expect("addresses"), Mapped.reserve(BYTES, 4096).expect("addresses"));
        assert!(first.address().is_multiple_of(2 << 20));
        let last_of = |mapping: &dyn Reservation| (mapping.address() + BYTES - 1) as *mut u8;
        for mapping in [&first, &second] {
            // SAFETY: it is the last byte of a mapping that is there.
            unsafe { last_of(&**mapping).write(7) };
        }
        first.discard(4096, u64::MAX);
        second.discard(u64::MAX, 1);
        // SAFETY: as above.
        let read = [&first, &second].map(|mapping| unsafe { last_of(&**mapping).read() });
        assert_eq!(read, [0, 7]);
    }
}
