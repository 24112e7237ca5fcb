//! `libnvshmem_host.so.3`: the functions that answer with a pointer or with nothing, and so cannot say "not supported".

use crate::unsupported;

/// Null is how these say that there is no such memory.
macro_rules! no_memory {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> u64 {
            unsupported::met(stringify!($name));
            0
        }
    )*};
}

no_memory! { nvshmem_malloc nvshmem_ptr nvshmemx_mc_ptr nvshmem_free }

/// `NVSHMEM_STATUS_NOT_INITIALIZED`, which is 0.
#[unsafe(no_mangle)]
extern "C" fn nvshmemid_init_status() -> i32 {
    0
}
