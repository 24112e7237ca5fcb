//! The checkout as the tidy tests see it.

use std::fs;
use std::path::Path;

use lowmem_tests::root;

/// Files that people wrote, with their text; paths are relative to the root. What git ignores is left out.
pub(crate) fn files(extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root(), extension, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file found");
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_symlink() || name == "target" || (name.starts_with('.') && path.is_dir()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|ending| ending == extension) {
            let text = fs::read_to_string(&path).expect("a source file is text");
            let relative = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push((relative, text));
        }
    }
}
