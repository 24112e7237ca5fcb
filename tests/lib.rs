//! Where the tests find things: the checkout, its model definitions, and the programs that were built.

use std::path::{Path, PathBuf};

use engine_protocol::ModelSpec;

/// The root of the checkout.
///
/// # Panics
/// When the checkout has moved since it was built.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout is where it was built")
}

/// The model definition of that name.
///
/// # Panics
/// When there is none.
pub fn model(name: &str) -> ModelSpec {
    let path = root().join(format!("sweeps/models/{name}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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

/// Holds the committed file at `path`, from the root, against the text that the code makes for it; with LOWMEM_RENEW=1 it writes the text there.
///
/// # Panics
/// When they differ: `make generated` writes all such files anew.
pub fn generated(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os(RENEW).is_some_and(|wanted| wanted == "1") {
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = committed.lines().zip(text.lines()).position(|(old, new)| old != new);
    let line = differs.unwrap_or_else(|| committed.lines().count().min(text.lines().count())) + 1;
    assert!(committed == text, "{path}:{line} is not what the code makes: run `make generated`, and commit what it writes");
}

/// Has [`generated`] write what it would compare.
const RENEW: &str = "LOWMEM_RENEW";
