//! `libnvrtc.so.13`: the run-time compiler. It takes every program for a correct one: what it makes is never run, and modules are not read.

use std::collections::BTreeMap;
use std::ffi::CString;

use crate::cudart::runtime_version;
use crate::device::Fault;
use crate::ffi::{Address, GivenText, Handle, InOut, Out, OutText, StaticText, text};
use crate::handle_table::HandleTable;

/// `NVRTC_ERROR_INVALID_INPUT`, `NVRTC_ERROR_INVALID_PROGRAM` and `NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID`.
const INVALID_INPUT: i32 = 3;
const INVALID_PROGRAM: i32 = 4;
const UNKNOWN_NAME: i32 = 10;

/// Programs, each with the kernels that were named in it: their names after compilation are the same, and stay where they are until the program goes.
static PROGRAMS: HandleTable<BTreeMap<String, CString>> = HandleTable::of("nvrtc");

fn answer(result: Result<(), Fault>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Fault::InvalidHandle) => INVALID_PROGRAM,
        Err(Fault::InvalidSymbol) => UNKNOWN_NAME,
        Err(_) => INVALID_INPUT,
    }
}

/// Code and log are empty texts, of which the final zero is a byte.
fn empty_size(program: u64, bytes: Out<usize>) -> Result<(), Fault> {
    PROGRAMS.lock().get(program)?;
    bytes.set(1)
}

/// # Safety
/// There is room for the final zero.
unsafe fn empty(program: u64, place: OutText) -> Result<(), Fault> {
    PROGRAMS.lock().get(program)?;
    // SAFETY: as the caller says.
    unsafe { place.set("", 1) }
}

exports! { answer;
    fn nvrtcVersion(major: Out<i32>, minor: Out<i32>) {
        // It is the one of the program's CUDA.
        major.set(runtime_version() / 1000)?;
        minor.set(runtime_version() % 1000 / 10)
    }

    fn nvrtcCreateProgram(program: Out<u64>, source: GivenText, _name: Address, _count: i32, _headers: Address, _names: Address) {
        source.get().ok_or(Fault::InvalidValue)?;
        program.set(PROGRAMS.lock().insert(BTreeMap::new()))
    }

    fn nvrtcDestroyProgram(program: InOut<u64>) {
        let handle = program.get().ok_or(Fault::InvalidValue)?;
        PROGRAMS.lock().remove(handle)?;
        program.set(0)
    }

    fn nvrtcAddNameExpression(program: Handle, name: GivenText) {
        let name = name.get().ok_or(Fault::InvalidValue)?;
        let kept = CString::new(name.as_str()).map_err(|_| Fault::InvalidValue)?;
        PROGRAMS.lock().get_mut(program)?.entry(name).or_insert(kept);
        Ok(())
    }

    fn nvrtcCompileProgram(program: Handle, _count: i32, _options: Address) {
        PROGRAMS.lock().get(program).map(drop)
    }

    fn nvrtcGetLoweredName(program: Handle, name: GivenText, lowered: Out<u64>) {
        let name = name.get().ok_or(Fault::InvalidValue)?;
        let programs = PROGRAMS.lock();
        let kept = programs.get(program)?.get(&name).ok_or(Fault::InvalidSymbol)?;
        lowered.set(kept.as_ptr() as u64)
    }

    fn nvrtcGetCUBINSize(program: Handle, bytes: Out<usize>) {
        empty_size(program, bytes)
    }

    fn nvrtcGetPTXSize(program: Handle, bytes: Out<usize>) {
        empty_size(program, bytes)
    }

    fn nvrtcGetProgramLogSize(program: Handle, bytes: Out<usize>) {
        empty_size(program, bytes)
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetErrorString(code: i32) -> StaticText {
    text(match code {
        0 => c"NVRTC_SUCCESS",
        INVALID_INPUT => c"NVRTC_ERROR_INVALID_INPUT",
        INVALID_PROGRAM => c"NVRTC_ERROR_INVALID_PROGRAM",
        UNKNOWN_NAME => c"NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID",
        _ => c"unrecognized error code",
    })
}

unsafe_exports! { answer;
    fn nvrtcGetCUBIN(program: Handle, place: OutText) {
        empty(program, place)
    }

    fn nvrtcGetPTX(program: Handle, place: OutText) {
        empty(program, place)
    }

    fn nvrtcGetProgramLog(program: Handle, place: OutText) {
        empty(program, place)
    }
}
