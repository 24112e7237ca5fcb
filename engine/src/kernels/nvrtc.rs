//! NVRTC, CUDA's run-time compiler: CUDA C++ to machine code for one kind of GPU. It needs no GPU itself.
#![expect(unsafe_code, reason = "calls into NVRTC's C interface")]

use std::ffi::{CString, c_char, c_int};
use std::ptr;

use cudarc::nvrtc::sys;

use crate::error::{Error, Result};

/// A program's text: its files by name, the first of which includes the others.
pub(super) type Source = [(&'static str, &'static str)];

/// What a warp does, and the types of numbers: files of every program. And the tokens of a hidden state, of those that have them.
pub(super) const WARP: (&str, &str) = ("warp.cuh", include_str!("cuda/warp.cuh"));
pub(super) const ELEMENTS: (&str, &str) = ("elements.cuh", include_str!("cuda/elements.cuh"));
pub(super) const ROWS: (&str, &str) = ("rows.cuh", include_str!("cuda/rows.cuh"));

/// What came of a program.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Machine code (CUBIN).
    pub(super) image: Vec<u8>,
    /// What the compiler said.
    pub(super) log: String,
}

/// A program of NVRTC's that was compiled, which goes with this.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and nobody uses it afterwards.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

/// Its major and minor version.
///
/// # Errors
/// There is no NVRTC.
pub(super) fn version() -> Result<(i32, i32)> {
    // SAFETY: opens a library and closes it again; what it does as it is opened is NVIDIA's.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Input(
            "NVRTC, which compiles our kernels, is not on the library path (libnvrtc.so.13): run `lowmem setup`, or do without them: attn_type=sdpa, fused=false"
                .into(),
        ));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are places for one number.
    check(unsafe { sys::nvrtcVersion(&mut major, &mut minor) }, "nvrtcVersion")?;
    Ok((major, minor))
}

/// Compiles `source` with these options.
///
/// # Errors
/// There is no NVRTC, or it refuses: with what it says.
pub(super) fn compile(source: &Source, options: &[String]) -> Result<Compiled> {
    let (program, log) = Program::compile(source, options)?;
    // SAFETY: the program is alive; the image has as many bytes as NVRTC says just before.
    let image = unsafe { bytes(program.0, sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN) }?;
    Ok(Compiled { image, log })
}

/// The same in NVIDIA's intermediate language, PTX.
///
/// # Errors
/// Those of [`compile`].
#[cfg(test)]
pub(super) fn ptx(source: &Source, options: &[String]) -> Result<String> {
    let (program, _) = Program::compile(source, options)?;
    // SAFETY: the program is alive; the text has as many bytes as NVRTC says just before.
    let text = unsafe { bytes(program.0, sys::nvrtcGetPTXSize, sys::nvrtcGetPTX) }?;
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned())
}

impl Program {
    /// The program, and what the compiler said of it.
    fn compile(source: &Source, options: &[String]) -> Result<(Self, String)> {
        version()?;
        let texts = |which: fn(&(&'static str, &'static str)) -> &'static str| -> Vec<CString> {
            source.iter().map(|file| c_text(which(file))).collect()
        };
        let (names, files) = (texts(|file| file.0), texts(|file| file.1));
        let pointers = |texts: &[CString]| -> Vec<*const c_char> { texts.iter().map(|text| text.as_ptr()).collect() };
        let (name_pointers, file_pointers) = (pointers(&names), pointers(&files));
        let (Some((&name, header_names)), Some((&text, headers))) = (name_pointers.split_first(), file_pointers.split_first()) else {
            return Err(Error::Input("a program without a file".into()));
        };
        let mut program = Self(ptr::null_mut());
        // SAFETY: all texts end with a zero and live until the program is gone; both lists have as many entries as is said.
        let made =
            unsafe { sys::nvrtcCreateProgram(&mut program.0, text, name, headers.len() as c_int, headers.as_ptr(), header_names.as_ptr()) };
        check(made, "nvrtcCreateProgram")?;
        let options: Vec<CString> = options.iter().map(|option| c_text(option)).collect();
        let options = pointers(&options);
        // SAFETY: the program is alive, and the options are texts, of that number, that live until the call returns.
        let answer = unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, options.as_ptr()) };
        // SAFETY: the program is alive; the log has as many bytes as NVRTC says just before.
        let log = unsafe { bytes(program.0, sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog) }?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
        check(answer, &log)?;
        Ok((program, log))
    }
}

/// # Safety
/// The program is alive, and `get` writes as many bytes as `size` says.
unsafe fn bytes(
    program: sys::nvrtcProgram,
    size: unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult,
    get: unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult,
) -> Result<Vec<u8>> {
    let mut length = 0;
    // SAFETY: as the caller says; `length` is a place for one number.
    check(unsafe { size(program, &mut length) }, "its size")?;
    let mut bytes = vec![0_u8; length];
    // SAFETY: as the caller says.
    check(unsafe { get(program, bytes.as_mut_ptr().cast()) }, "its bytes")?;
    Ok(bytes)
}

/// Our own texts, and options made of numbers and names.
fn c_text(text: &str) -> CString {
    CString::new(text).expect("no zero in it")
}

fn check(answer: sys::nvrtcResult, said: &str) -> Result<()> {
    match answer {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        // libnvrtc-builtins lies beside it, and is looked for on the library path alone.
        sys::nvrtcResult::NVRTC_ERROR_BUILTIN_OPERATION_FAILURE => {
            Err(Error::Input("NVRTC does not find its own headers (libnvrtc-builtins): put their folder on LD_LIBRARY_PATH".into()))
        }
        failed => Err(Error::Input(format!("NVRTC does not compile our kernel ({failed:?}): {said}"))),
    }
}
