//! Where the tests find things: the checkout, its model definitions, and the programs that were built.

pub mod agreement;
pub mod any_flag;
pub mod measured;
pub mod sweep;

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Copies a folder and all in it.
///
/// # Panics
/// When it cannot be read, or the copy not written.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
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

/// The `lowmem` of this build. It sees no settings of the user's own (GPU profiles, rates of the host, models), which would change its answers.
///
/// # Panics
/// When it is not built.
pub fn lowmem() -> Command {
    let program = built("lowmem");
    let mut lowmem = Command::new(&program);
    lowmem.env("XDG_CONFIG_HOME", program.with_file_name("no-settings"));
    lowmem
}

/// Holds a generated document against what it is made from; with LOWMEM_RENEW=1, as `make generated` sets it, writes it anew.
///
/// # Panics
/// When the document is not what it should be.
pub fn generated(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("LOWMEM_RENEW").is_some() {
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{path}: {error}"));
        return;
    }
    let known = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}: `make generated` writes it"));
    assert_eq!(known, text, "{path} is not what it is made from: `make generated` writes it anew");
}

/// As [`generated`], for what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` in a document that people wrote.
///
/// # Panics
/// When the document is not what it should be, or lacks the two marks.
pub fn generated_between(path: &str, name: &str, text: &str) {
    let page = std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    generated(path, &replaced_between(&page, name, text));
}

/// `page` with `text` between the two marks of `name`.
///
/// # Panics
/// When a mark is missing.
pub fn replaced_between(page: &str, name: &str, text: &str) -> String {
    let [begin, end] = ["begin", "end"].map(|word| format!("<!-- {word} {name} -->\n"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{begin} is not in the page"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{end} is not in the page"));
    format!("{before}{begin}{text}{end}{after}")
}
