//! Figures of `/proc`.

use std::fmt::Display;
use std::fs;

/// Bytes of a line of `/proc/meminfo`, such as `MemTotal`.
pub fn meminfo_bytes(key: &str) -> Option<u64> {
    kib(&read("/proc/meminfo")?, key)
}

/// Bytes of a line of this process's status, such as `VmHWM`.
pub fn status_bytes(key: &str) -> Option<u64> {
    status_bytes_of("self", key)
}

/// The same of another process, by its number.
pub fn status_bytes_of(process: impl Display, key: &str) -> Option<u64> {
    kib(&read(&format!("/proc/{process}/status"))?, key)
}

/// A limit of this process, such as `Max locked memory`, in bytes; empty where it has none.
pub(crate) fn limit(name: &str) -> Option<u64> {
    let limits = read("/proc/self/limits")?;
    limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

pub(crate) fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The bytes that a line says in KiB: `VmSize:  1234 kB`.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_in_bytes() {
        assert_eq!(kib("MemFree: 1 kB\nMemAvailable:   2048 kB\n", "MemAvailable"), Some(2 << 20));
        assert_eq!(kib("MemFree: 1 kB\n", "Mem"), None);
        // Read before its peak, which other tests may raise meanwhile.
        let resident = status_bytes("VmRSS");
        assert!(resident.is_some() && status_bytes("VmHWM") >= resident && meminfo_bytes("MemTotal").is_some());
    }
}
