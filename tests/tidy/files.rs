//! Each file by itself: it says what it is, it is not too long, and it stays inside the fence.

use lowmem_tests::root;

use crate::tree::files;

/// The longest that a source file may be.
const MAX_LINES: usize = 800;

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in files("rs") {
        assert!(text.starts_with("//! "), "{path}: begins without a `//!` line that says what it is");
    }
}

#[test]
fn no_file_is_too_long() {
    for extension in ["rs", "cpp", "py", "sh"] {
        for (path, text) in files(extension) {
            let lines = text.lines().count();
            assert!(lines <= MAX_LINES, "{path}: {lines} lines, at most {MAX_LINES}");
        }
    }
}

#[test]
fn unsafe_code_stays_inside_its_fence() {
    // Put together here, so that this file does not find itself.
    let fenced = ["un", "safe"].concat();
    for (path, text) in files("rs") {
        let is_inside = ["engine/src/cuda/ffi.rs", "engine/src/kernels/", "virtual-gpu/"].iter().any(|inside| path.starts_with(inside));
        if is_inside {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            assert!(!code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == fenced), "{path}:{}: {fenced}", number + 1);
        }
    }
}

#[test]
fn every_lint_that_is_off_gives_its_reason() {
    for (path, text) in files("rs") {
        for (number, line) in text.lines().enumerate() {
            let attribute = line.trim_start();
            let allows = attribute.starts_with("#[allow(") || attribute.starts_with("#![allow(");
            assert!(!allows, "{path}:{}: use #[expect(.., reason)]", number + 1);
        }
    }
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    // Put together here, so that this file does not find itself.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["todo", "!("].concat(), ["unimplemented", "!("].concat()];
    for (path, text) in files("rs") {
        for mark in &marks {
            assert!(!text.contains(mark.as_str()), "{path}: holds {mark}");
        }
    }
}

#[test]
fn the_documents_name_files_that_exist() {
    for document in ["README.md", "CONTRIBUTING.md", "docs/architecture.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"));
        for name in text.split('`').skip(1).step_by(2) {
            let is_a_pattern = name.contains("NAME");
            let looks_like_a_path = !is_a_pattern && name.contains('/') && name.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
            let generated = ["reports/out", "target/", "plots/"].iter().any(|start| name.starts_with(start));
            if looks_like_a_path && !generated {
                assert!(root().join(name).exists(), "{document}: `{name}` does not exist");
            }
        }
    }
}
