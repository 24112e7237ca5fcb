//! Everything that comes from C or goes to it: pointers, strings, address space, the loader.
//!
//! The exported functions take `Out` and `Given` where their header has a pointer. Both have the pointer's layout, and
//! following one is sound on the promise that every C interface makes: the caller gives null or a pointer to what
//! the header says. That promise is used here, and nowhere else.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::{ptr, slice};

use crate::device::{AddressSpace, Fault};

/// A pointer to where a result goes.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// Writes the result; null is an invalid value.
    pub(crate) fn set(self, value: T) -> Result<(), Fault> {
        if self.0.is_null() {
            return Err(Fault::InvalidValue);
        }
        // SAFETY: not null, so by the header it points to a place for a T. Unaligned: not every caller is a C compiler.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Writes the result where the caller wants it.
    pub(crate) fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            let _ = self.set(value);
        }
    }

    /// The same place, for elements that follow.
    pub(crate) fn set_all(self, values: &[T])
    where
        T: Copy,
    {
        if !self.0.is_null() {
            // SAFETY: by the header the place holds as many elements as the caller said, and `values` is no longer.
            unsafe { ptr::copy_nonoverlapping(values.as_ptr(), self.0, values.len()) };
        }
    }

    /// What stands there now, for parameters that go both ways.
    pub(crate) fn get(self) -> Option<T>
    where
        T: Copy,
    {
        self.given().get()
    }

    /// The same pointer, to read what the caller put there.
    pub(crate) fn given(self) -> Given<T> {
        Given(self.0.cast_const())
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

impl Out<c_void> {
    /// The place as one for a T, where another parameter says what it is for.
    pub(crate) fn of<T>(self) -> Out<T> {
        Out(self.0.cast())
    }
}

/// A pointer to what is given.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Given<T>(*const T);

impl<T: Copy> Given<T> {
    pub(crate) fn get(self) -> Option<T> {
        // SAFETY: not null, so by the header it points to a T.
        (!self.0.is_null()).then(|| unsafe { self.0.read_unaligned() })
    }

    /// As many elements as the caller said.
    pub(crate) fn to_vec(self, count: usize) -> Vec<T> {
        if self.0.is_null() {
            return Vec::new();
        }
        // SAFETY: by the header the pointer has `count` elements.
        (0..count).map(|index| unsafe { self.0.add(index).read_unaligned() }).collect()
    }
}

/// A C string that is given.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct GivenText(*const c_char);

impl GivenText {
    pub(crate) fn get(self) -> Option<String> {
        // SAFETY: not null, so by the header it is a string that ends with a zero byte.
        (!self.0.is_null()).then(|| unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned())
    }
}

/// A C string of the program's whole life, for functions that answer with one.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct StaticText(*const c_char);

/// The text as C wants it.
pub(crate) const fn text(text: &'static CStr) -> StaticText {
    StaticText(text.as_ptr())
}

/// Room for a C string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct OutText(Out<u8>);

impl OutText {
    /// Writes the text, cut to the room that there is, with its zero byte.
    pub(crate) fn set(self, text: &str, room: usize) -> Result<(), Fault> {
        if self.0.is_null() || room == 0 {
            return Err(Fault::InvalidValue);
        }
        let mut bytes = text.as_bytes()[..text.len().min(room - 1)].to_vec();
        bytes.push(0);
        self.0.set_all(&bytes);
        Ok(())
    }
}

/// Moves bytes between two places, which may overlap. Both must have been found to hold them: device addresses by the
/// device's own books, host addresses by the caller's word.
pub(crate) fn move_bytes(destination: u64, source: u64, bytes: usize) {
    // SAFETY: see above; device memory is readable and writable address space.
    unsafe { ptr::copy(source as *const u8, destination as *mut u8, bytes) };
}

/// Fills a place that was found to hold the values, and is aligned for them.
pub(crate) fn fill<T: Copy>(destination: u64, value: T, count: usize) {
    for index in 0..count {
        // SAFETY: as for `move_bytes`.
        unsafe { (destination as *mut T).add(index).write(value) };
    }
}

/// Address space from the operating system: readable, writable, and without memory behind it until it is touched.
pub(crate) struct Mapped;

impl AddressSpace for Mapped {
    fn reserve(&self, bytes: u64, alignment: u64) -> Option<u64> {
        const PAGE: u64 = 4096;
        // More than is asked for, so that an aligned start lies within; what is left over on both sides goes back.
        let slack = if alignment > PAGE { alignment } else { 0 };
        let whole = usize::try_from(bytes.checked_add(slack)?).ok()?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the system chooses touches no memory that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), whole, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            // To the program this is the device's memory running out, so the true reason must be said.
            eprintln!("lowmem: virtual GPU: the system refuses {bytes} bytes of address space (`ulimit -v`, vm.overcommit_memory)");
            return None;
        }
        let start = start as u64;
        let aligned = start.next_multiple_of(alignment);
        let end = aligned + bytes;
        if aligned > start {
            self.release(start, aligned - start);
        }
        if start + whole as u64 > end {
            self.release(end, start + whole as u64 - end);
        }
        // A small copy must cost a page of 4 KiB, not one of 2 MiB. Where the system has no huge pages this fails, rightly.
        // SAFETY: the range was just mapped.
        unsafe { libc::madvise(aligned as *mut c_void, bytes as usize, libc::MADV_NOHUGEPAGE) };
        Some(aligned)
    }

    fn release(&self, address: u64, bytes: u64) {
        // SAFETY: `reserve` mapped the range, and the books give it back once.
        unsafe { libc::munmap(address as *mut c_void, bytes as usize) };
    }

    fn discard(&self, address: u64, bytes: u64) {
        // SAFETY: the range is part of a mapping of `reserve`; its contents are no longer wanted.
        unsafe { libc::madvise(address as *mut c_void, bytes as usize, libc::MADV_DONTNEED) };
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

/// Calls a host function that was put on a stream.
pub(crate) fn call_host(function: Option<extern "C" fn(*mut c_void)>, data: *mut c_void) -> Result<(), Fault> {
    function.ok_or(Fault::InvalidValue)?(data);
    Ok(())
}

/// Has `function` called when the process ends by `exit` or by returning from `main`.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function stays loaded: libraries with a handler are not unloaded before it ran.
    unsafe { libc::atexit(function) };
}

/// The address of a function that this shared object exports, by name: ours even where a real CUDA library is loaded
/// beside it. Where C has several versions of a function, the newest that we have is meant.
pub(crate) fn own_function(name: &str) -> Option<u64> {
    ["", "_v2", "_v3", "_v4"].iter().find_map(|version| {
        let symbol = CString::new(format!("{name}{version}")).ok()?;
        // SAFETY: the handle is this object's own and the name ends with a zero byte.
        let address = unsafe { libc::dlsym(own_object()?, symbol.as_ptr()) };
        (!address.is_null()).then_some(address as u64)
    })
}

/// Where the functions that led here go on, this one's caller first, as far as the stack can be read.
pub(crate) fn callers() -> Vec<u64> {
    const MOST: usize = 96;
    let mut found = [ptr::null_mut(); MOST];
    // SAFETY: there is room for as many addresses as are said.
    let count = unsafe { libc::backtrace(found.as_mut_ptr(), MOST as i32) };
    found[..count.max(0) as usize].iter().map(|&address| address as u64).collect()
}

/// The exported function that goes on at that address.
pub(crate) fn function_at(address: u64) -> Option<String> {
    let mut found =
        libc::Dl_info { dli_fname: ptr::null(), dli_fbase: ptr::null_mut(), dli_sname: ptr::null(), dli_saddr: ptr::null_mut() };
    // A call that never returns may be a function's last instruction, so the one before is asked for.
    // SAFETY: any address will do, and `found` has room for the answer.
    let is_known = unsafe { libc::dladdr((address - 1) as *const c_void, &raw mut found) } != 0 && !found.dli_sname.is_null();
    // SAFETY: the loader's own text, which stays for as long as the library does: code of it is running.
    is_known.then(|| unsafe { CStr::from_ptr(found.dli_sname) }.to_string_lossy().into_owned())
}

fn own_object() -> Option<*mut c_void> {
    let mut found =
        libc::Dl_info { dli_fname: ptr::null(), dli_fbase: ptr::null_mut(), dli_sname: ptr::null(), dli_saddr: ptr::null_mut() };
    // SAFETY: any address of this object does, and `found` has room for the answer.
    if unsafe { libc::dladdr(own_object as *const c_void, &raw mut found) } == 0 {
        return None;
    }
    // SAFETY: the loader's own name of an object that is loaded, which is therefore not loaded again.
    let handle = unsafe { libc::dlopen(found.dli_fname, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    (!handle.is_null()).then_some(handle)
}

/// Exported functions of one library: each body gives a `Result<(), Fault>`, which `$answer` turns into that library's
/// status code.
macro_rules! exports {
    ($answer:path; $($(#[$meta:meta])* fn $name:ident($($parameter:ident: $kind:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        extern "C" fn $name($($parameter: $kind),*) -> i32 {
            let body = || -> Result<(), $crate::device::Fault> { $body };
            $answer(body())
        }
    )*};
}

/// Exported functions with nothing to do here: they succeed (every library's success is 0), whatever they are given.
macro_rules! succeed {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> i32 {
            0
        }
    )*};
}

/// Exported library calls that would have run kernels: they are counted and succeed.
macro_rules! count_as_launch {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> i32 {
            $crate::process::launched();
            0
        }
    )*};
}
