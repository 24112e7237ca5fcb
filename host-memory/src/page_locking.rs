//! What may keep this machine from page-locking as much as a plan wants.

use crate::proc::{limit, read};

/// What is known to hold page-locking down here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageLockLimit {
    /// Windows' subsystem for Linux, whose driver locks little: from 0.5 GiB (microsoft/WSL#14078) and 1 GiB of 63 (FlashML-org/FreeToken#233) up to half of the
    /// memory were seen. It says its limit to nobody.
    Wsl,
    /// `ulimit -l`, in bytes. NVIDIA's driver for Linux page-locks beyond it as a rule; other drivers and sandboxes may not.
    Ulimit(u64),
}

/// What holds page-locking down for this process, where something may.
pub fn page_lock_limit() -> Option<PageLockLimit> {
    if is_wsl(&read("/proc/sys/kernel/osrelease")?) {
        Some(PageLockLimit::Wsl)
    } else {
        limit("Max locked memory").map(PageLockLimit::Ulimit)
    }
}

/// Kernels of WSL are named `6.6.87.2-microsoft-standard-WSL2`, those of its first version `4.4.0-19041-Microsoft`.
fn is_wsl(kernel: &str) -> bool {
    kernel.to_ascii_lowercase().contains("microsoft")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wsl_is_known_by_its_kernel() {
        assert!(is_wsl("6.18.33.2-microsoft-standard-WSL2\n") && is_wsl("4.4.0-19041-Microsoft") && !is_wsl("6.8.0-45-generic"));
    }
}
