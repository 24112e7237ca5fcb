//! The loader and the stack: functions by name, names by address, and what is called when the process ends.

use std::ffi::{CStr, CString, c_void};
use std::ptr;

/// Has `function` called when the process ends by `exit` or by returning from `main`.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function stays loaded: libraries with a handler are not unloaded before it ran.
    unsafe { libc::atexit(function) };
}

/// Whether a library of that name is loaded.
pub(crate) fn is_loaded(name: &CStr) -> bool {
    // SAFETY: the name ends with a zero byte, and nothing is loaded by this.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    // SAFETY: the handle is the loader's own, and not used afterwards.
    !handle.is_null() && unsafe { libc::dlclose(handle) } == 0
}

/// The address of a function that this shared object exports, by name: ours even where a real CUDA library is loaded
/// beside it. Where C has several versions of a function, who was built for CUDA 13 means the newest that we have, and for CUDA 12 the oldest.
pub(crate) fn own_function(name: &str, is_newest: bool) -> Option<u64> {
    let mut versions = ["", "_v2", "_v3", "_v4"];
    if is_newest {
        versions.reverse();
    }
    versions.iter().find_map(|version| {
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
    let is_known = unsafe { libc::dladdr(address.wrapping_sub(1) as *const c_void, &raw mut found) } != 0 && !found.dli_sname.is_null();
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
