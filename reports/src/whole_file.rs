//! Files that people keep: each is there as a whole, or as it was before.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use atomic_write_file::AtomicWriteFile;

/// Writes `contents` to `path`: into a file without a name, which is on disk before it takes the place. A device, a pipe and the like are written to as they are; a link
/// stays, and what it leads to is replaced.
///
/// # Errors
/// What the system says, and then `path` is as it was.
pub fn write_whole(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let contents = contents.as_ref();
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return fs::write(path, contents);
    }
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut file = AtomicWriteFile::open(place)?;
    file.write_all(contents)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("a folder");
        let [file, link] = ["file", "link"].map(|name| dir.path().join(name));
        write_whole(&file, "one").expect("written");
        symlink("file", &link).expect("a link");
        write_whole(&link, "two").expect("written");
        assert_eq!(fs::read_to_string(&file).expect("there"), "two");
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 2);
        write_whole(Path::new("/dev/null"), "three").expect("a device takes it");
        assert!(!fs::metadata("/dev/null").expect("there").is_file());
        assert!(write_whole(dir.path(), "four").is_err());
    }
}
