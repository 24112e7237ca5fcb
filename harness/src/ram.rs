//! The machine's memory (RAM) as a budget: what cases may take of it, and where that figure is from.

use engine_protocol::{Device, gib};
use host_memory::{PageLockLimit, page_lock_limit};

use crate::error::Error;
use crate::gpu_profile::size;

/// What firmware and kernel keep of the memory that is on the box: a machine of 32 GiB tells of 31.1 (`MemTotal`).
const KEPT_SHARE: f64 = 0.03;
/// What the system and a desktop hold of the rest: a rule.
const SYSTEM_GIB: f64 = 1.5;

/// A budget of RAM.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ram {
    /// What a case may take, everything counted; empty where nothing limits it.
    pub(crate) bytes: Option<u64>,
    /// Whether it was asked for: then cases go by it where they choose.
    pub(crate) is_given: bool,
    /// Where the figure is from, in a sentence.
    pub(crate) said: String,
}

impl Ram {
    /// The budget `asked` (`32GB`), or what `device` means: cases that run here have this machine's, and plans for a card of which nobody named the machine have no
    /// limit.
    pub(crate) fn of(asked: Option<&str>, device: Device) -> Result<Self, Error> {
        match (asked, device) {
            (Some(text), _) => Self::of_size(text),
            (None, Device::Virtual) => Ok(Self::unlimited()),
            (None, Device::Cuda | Device::Cpu) => Ok(Self::here()),
        }
    }

    /// No limit.
    pub(crate) fn unlimited() -> Self {
        Self { bytes: None, is_given: false, said: "RAM is assumed unlimited: --ram 32GB plans for a machine's own.".into() }
    }

    fn here() -> Self {
        let bytes = host_memory::available_bytes();
        let said = match bytes {
            Some(bytes) => format!("RAM: this machine has {:.2} GiB available.", gib(bytes)),
            None => "RAM: what this machine has available is not known.".into(),
        };
        Self { bytes, is_given: false, said }
    }

    fn of_size(text: &str) -> Result<Self, Error> {
        let refused = || Error::input(format!("--ram {text}: say how much memory the machine has, such as 32GB"));
        let gib = size(text).filter(|gib| gib.is_finite() && *gib > 0.0).ok_or_else(refused)?;
        // Memory is sold in GiB, which people write GB.
        let usable = gib * (1.0 - KEPT_SHARE) - SYSTEM_GIB;
        if usable <= 0.0 {
            return Err(Error::input(format!("--ram {text}: a system leaves nothing of that; 16GB is what small machines have")));
        }
        let said = format!("RAM: of {gib} GiB we count on {usable:.2}; the rest is the system's (3% and {SYSTEM_GIB} GiB, a rule).");
        Ok(Self { bytes: Some((usable * f64::from(1 << 30)) as u64), is_given: true, said })
    }

    /// What cases are told of it: a figure of the virtual GPU depends on nothing of this machine.
    pub(crate) fn limit_bytes(&self) -> Option<u64> {
        self.bytes.filter(|_| self.is_given)
    }
}

/// That this is WSL, where so many bytes are to be page-locked, in a sentence.
pub(crate) fn wsl_said(pinned_bytes: u64) -> Option<String> {
    (page_lock_limit() == Some(PageLockLimit::Wsl) && pinned_bytes > 0).then(|| {
        format!(
            "This is WSL, which lets a process page-lock little: from 0.5 GiB up to half of the memory were seen, and {:.2} GiB are wanted. What is refused waits \
             in ordinary memory and is copied more slowly; max_pinned_gib=0.5 plans for that.",
            gib(pinned_bytes)
        )
    })
}

/// That `ulimit -l` is less than so many bytes that are to be page-locked, in a sentence.
pub(crate) fn ulimit_said(pinned_bytes: u64) -> Option<String> {
    let Some(PageLockLimit::Ulimit(limit)) = page_lock_limit() else { return None };
    (pinned_bytes > limit).then(|| {
        format!(
            "`ulimit -l` lets a process here lock {:.2} GiB, and {:.2} are to be page-locked. As a rule NVIDIA's driver does not go by it; where it does, what is \
             refused waits in ordinary memory and is copied more slowly.",
            gib(limit),
            gib(pinned_bytes)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_keeps_its_part() {
        let usable = |text| Ram::of(Some(text), Device::Virtual).expect("a size").bytes.map(gib).expect("limited");
        assert!((usable("32GB") - 29.54).abs() < 1e-9 && (usable("16 GiB") - 14.02).abs() < 1e-9);
        for text in ["rtx-4090", "0GB", "1GB", "-3GB", "infGB"] {
            let said = Ram::of(Some(text), Device::Virtual).expect_err(text).to_string();
            assert!(said.starts_with(&format!("--ram {text}: ")), "{said}");
        }
    }

    #[test]
    fn plans_have_no_limit_and_cases_here_have_this_machines() {
        let of = |device| Ram::of(None, device).expect("a budget");
        assert_eq!((of(Device::Virtual).bytes, of(Device::Virtual).limit_bytes()), (None, None));
        assert!(of(Device::Cpu).bytes.is_some() && of(Device::Cpu).limit_bytes().is_none());
    }
}
