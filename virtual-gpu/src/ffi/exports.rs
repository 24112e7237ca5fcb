//! How functions are exported. Each is an `unsafe` one, as every C function is: its caller promises what the library's header says of the parameters.

use crate::device::Fault;

/// Exported functions of one library: each body gives a `Result<(), Fault>`, which `$answer` turns into that library's
/// status code. The bodies are safe code. Where `$ready` fails nothing else is done.
macro_rules! exports {
    ($answer:path; $($functions:tt)*) => { exports! { $answer, $crate::ffi::always; $($functions)* } };
    ($answer:path, $ready:path; $($(#[$meta:meta])* fn $name:ident($($parameter:ident: $kind:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($parameter: $kind),*) -> i32 {
            let body = || -> Result<(), $crate::device::Fault> { $body };
            if let Err(fault) = $ready() {
                return $answer(Err(fault));
            }
            $answer(body())
        }
    )*};
}

/// The same for bodies that follow an address, or a pointer as far as another parameter says.
macro_rules! unsafe_exports {
    ($answer:path; $($functions:tt)*) => { unsafe_exports! { $answer, $crate::ffi::always; $($functions)* } };
    ($answer:path, $ready:path; $($(#[$meta:meta])* fn $name:ident($($parameter:ident: $kind:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($parameter: $kind),*) -> i32 {
            // SAFETY: by the library's header, pointers and addresses hold what the other parameters say, and the program frees and changes nothing of it
            // before the call returns. What the body calls needs nothing beyond that.
            let body = || -> Result<(), $crate::device::Fault> { unsafe { $body } };
            if let Err(fault) = $ready() {
                return $answer(Err(fault));
            }
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

/// For functions that may be called at any time.
pub(crate) const fn always() -> Result<(), Fault> {
    Ok(())
}
