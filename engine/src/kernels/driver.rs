//! What CUDA's driver does with a kernel of ours: it is loaded, and launched on the stream that libtorch computes on.
#![expect(unsafe_code, reason = "calls into the driver's C interface")]

use std::ffi::{CString, c_int, c_void};

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{DriverError, result, sys};
use tch::TchError;

use crate::cuda::{DEVICE, Stream};
use crate::error::{Error, Result};

/// A kernel in a module that stays loaded as long as the program lives. It is a handle of the driver's, which any thread may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function(usize);

/// The compute capability of the GPU, as major and minor.
pub(crate) fn capability() -> Result<(u32, u32)> {
    // SAFETY: opens a library and closes it again; libtorch has it open.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Input("there is no CUDA driver (libcuda.so.1)".into()));
    }
    let ask = || -> std::result::Result<(i32, i32), DriverError> {
        result::init()?;
        let device = result::device::get(DEVICE)?;
        let number = |attribute| {
            // SAFETY: the device is there, as just seen.
            unsafe { result::device::get_attribute(device, attribute) }
        };
        Ok((
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    };
    let (major, minor) = ask().map_err(|error| failed("its compute capability is not known", error))?;
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

/// The kernels of these names in a module of machine code.
///
/// # Safety
/// `image` is a whole CUBIN: the driver is not told where it ends.
pub(super) unsafe fn load<const COUNT: usize>(image: &[u8], names: [&str; COUNT]) -> Result<[Function; COUNT]> {
    // libtorch made the context that is current.
    // SAFETY: as the caller says.
    let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(|error| failed("our kernel is not loaded", error))?;
    let mut functions = [Function(0); COUNT];
    for (function, name) in functions.iter_mut().zip(names) {
        let name = CString::new(name).expect("our own names");
        // SAFETY: the module is loaded, and stays so.
        let found = unsafe { result::module::get_function(module, name) }.map_err(|error| failed("our kernel is not found", error))?;
        *function = Function(found as usize);
    }
    Ok(functions)
}

/// Launches `function` with one parameter, in blocks of so many threads.
///
/// # Safety
/// The function takes a parameter of this layout, in a grid and in blocks of these sizes, and may read and write what it points to until the stream has done it.
pub(super) unsafe fn launch<P>(function: Function, grid: [u32; 3], threads: u32, parameter: &P) -> Result<()> {
    let stream = Stream::current()?.driver()?;
    let [x, y, z] = grid;
    let mut parameters = [std::ptr::from_ref(parameter).cast_mut().cast::<c_void>()];
    // SAFETY: as the caller says. The parameter has been copied when the call returns.
    let launched =
        unsafe { result::launch_kernel(function.0 as sys::CUfunction, (x, y, z), (threads, 1, 1), 0, stream.cast(), &mut parameters) };
    launched.map_err(|error| failed("our kernel is not launched", error))
}

fn failed(what: &str, error: DriverError) -> Error {
    let code = error.0 as c_int;
    let text =
        if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY { "CUDA error: out of memory".into() } else { format!("{what}: {error}") };
    Error::Torch(TchError::Torch(format!("{text} ({code})")))
}
