//! The Python that runs PyTorch programs: the interpreter that the wheel in `.libtorch` is for, with what torch imports.
//!
//! Without it these tests fail. Where it is meant to be missing, `LOWMEM_WITHOUT_PYTHON=1` (build.rs makes `without_python` of it) has them reported as ignored.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use lowmem_tests::root;

/// The interpreter, as the wheel's name says.
pub(crate) const PYTHON: &str = "python3.11";

/// Where PyTorch and what it imports are, for `PYTHONPATH`.
pub(crate) fn path_to_torch() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| {
        let answer = Command::new(PYTHON).args(["-c", ""]).output();
        let remedy = "install it, or say that it is meant to be missing: LOWMEM_WITHOUT_PYTHON=1";
        assert!(answer.is_ok_and(|output| output.status.success()), "there is no {PYTHON} here: {remedy}");
        // Fetches them, once.
        let packages = Command::new(root().join("setup/python-packages.sh")).output().expect("a shell");
        assert!(packages.status.success(), "{}", String::from_utf8_lossy(&packages.stderr));
        let packages = PathBuf::from(String::from_utf8_lossy(&packages.stdout).trim());
        let torch = root().join(".libtorch/torch").canonicalize().expect("`make setup` first");
        format!("{}:{}", packages.display(), torch.parent().expect("a wheel's folder").display())
    });
    &PATH
}
