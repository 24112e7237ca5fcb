//! Opening files that may be anything: only regular ones are, and never more is read than was agreed to.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Opens the regular file at `path`, or that a link there leads to, for reading.
///
/// # Errors
/// The system's, and a path of something that is no regular file: a folder, a pipe, a socket, a device. What it is is in the message, the path is not.
pub fn open(path: &Path) -> Result<File> {
    // Most of what is no file is refused here, before it is opened: opening a device or a socket may do something, or say nothing of use.
    only_regular(&fs::metadata(path)?)?;
    // What stands there now may be another thing. Opening a pipe that nobody writes to would wait without end.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    only_regular(&file.metadata()?)?;
    Ok(file)
}

/// The bytes of the regular file at `path`, of which there are so many at most.
///
/// # Errors
/// Those of [`open`], and a file that is larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    read_opened(open(path)?, most)
}

/// As [`read`], of a file that was opened.
///
/// # Errors
/// The system's, and a file that is larger.
pub fn read_opened(file: File, most: u64) -> Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let too_large = |length: &str| Error::new(ErrorKind::FileTooLarge, format!("it has {length} bytes, and at most {most} are read"));
    if length > most {
        return Err(too_large(&length.to_string()));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // It may grow meanwhile.
    if file.take(most.saturating_add(1)).read_to_end(&mut bytes)? as u64 > most {
        return Err(too_large("more"));
    }
    Ok(bytes)
}

/// Whether there is anything at `path`, a link that leads nowhere included. Opening it says what it is.
pub fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Where an opened file lies, links followed. `path` is what it was opened by.
///
/// # Errors
/// The system's.
pub fn place_of(file: &File, path: &Path) -> Result<PathBuf> {
    // The descriptor is asked, and not the path, which may lead elsewhere by now. Without /proc the path has to do.
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).or_else(|_| path.canonicalize())
}

fn only_regular(metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = kind_of(metadata.file_type());
    let kind = if metadata.is_dir() { ErrorKind::IsADirectory } else { ErrorKind::InvalidInput };
    Err(Error::new(kind, format!("it is {what}, and only regular files are read")))
}

fn kind_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe (FIFO)"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "no file"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let _listener = UnixListener::bind(at("socket")).expect("a socket");
        symlink("/dev/zero", at("zero")).expect("a link");
        symlink("loop", at("loop")).expect("a link");
        for (name, part) in [
            ("pipe", "it is a pipe (FIFO), and only regular files are read"),
            ("socket", "it is a socket"),
            ("zero", "it is a device"),
            ("", "it is a folder"),
            ("loop", "Too many levels"),
            ("nowhere", "No such file"),
        ] {
            let said = open(&at(name)).expect_err(name).to_string();
            assert!(said.contains(part), "{name}: {said}");
            assert!(read(&at(name), 10).is_err(), "{name}");
        }
        assert!(is_there(&at("loop")) && !is_there(&at("nowhere")));
    }

    #[test]
    fn a_file_is_read_as_far_as_was_agreed_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "12345").expect("a file");
        assert_eq!(read(&path, 5).expect("as many as may be"), b"12345");
        assert_eq!(read(&path, 4).expect_err("too many").to_string(), "it has 5 bytes, and at most 4 are read");
        // A file of the kernel's says that it has none, and has some.
        assert!(read(Path::new("/proc/self/status"), 4).expect_err("too many").to_string().contains("it has more bytes"));
    }

    #[test]
    fn a_file_lies_where_links_lead_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().canonicalize().expect("it is there").join("real");
        fs::write(&real, "").expect("a file");
        let link = folder.path().join("link");
        symlink("real", &link).expect("a link");
        assert_eq!(place_of(&open(&link).expect("a file"), &link).expect("a place"), real);
    }
}
