//! The Python that runs PyTorch programs: the interpreter that the wheel in `.libtorch` is for, with what torch imports.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use lowmem_tests::root;

/// The interpreter, as the wheel's name says.
pub(crate) const PYTHON: &str = "python3.11";

/// Where PyTorch and what it imports are, for `PYTHONPATH`. None, with a word about it, where the interpreter is not: the wheel is for no other.
pub(crate) fn path_to_torch() -> Option<String> {
    static PATH: LazyLock<Option<String>> = LazyLock::new(|| {
        let answers = Command::new(PYTHON).args(["-c", ""]).output().is_ok_and(|output| output.status.success());
        if !answers {
            return None;
        }
        // Fetches them, once.
        let packages = Command::new(root().join("setup/python-packages.sh")).output().expect("a shell");
        assert!(packages.status.success(), "{}", String::from_utf8_lossy(&packages.stderr));
        let packages = PathBuf::from(String::from_utf8_lossy(&packages.stdout).trim());
        let torch = root().join(".libtorch/torch").canonicalize().expect("`make setup` first");
        Some(format!("{}:{}", packages.display(), torch.parent().expect("a wheel's folder").display()))
    });
    if PATH.is_none() {
        eprintln!("not run: there is no {PYTHON} here");
    }
    PATH.clone()
}
