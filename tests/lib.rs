//! Where the tests find things: the checkout, and the programs that were built.

use std::path::{Path, PathBuf};

/// The root of the checkout.
///
/// # Panics
/// When the checkout has moved since it was built.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout is where it was built")
}

/// Something in the folder that holds the built programs, two folders above `deps/TEST-HASH`: `lowmem`, `libvirtual_gpu.so`.
///
/// # Panics
/// When it is not there: `cargo build --release --workspace` makes it, and `make test` runs that first.
pub fn built(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("this program has a path");
    let path = here.ancestors().nth(2).expect("programs lie in target/release").join(name);
    assert!(path.exists(), "{} is not built: run `make build`", path.display());
    path
}
