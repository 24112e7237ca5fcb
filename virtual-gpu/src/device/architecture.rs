//! What a compute capability fixes: the limits that PyTorch's launch code and kernel choice ask for.
//! Source: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".

/// Limits of one compute capability. Those that all of them share are constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// Compute capability, major.
    pub major: u32,
    /// Compute capability, minor.
    pub minor: u32,
    /// Resident threads of a multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Resident blocks of a multiprocessor.
    pub blocks_per_multiprocessor: u32,
    /// Shared memory of a multiprocessor.
    pub shared_bytes_per_multiprocessor: u32,
    /// The most shared memory that a block may opt in to.
    pub shared_bytes_per_block_optin: u32,
}

impl Architecture {
    /// Threads of a warp.
    pub const WARP_SIZE: u32 = 32;
    /// Threads of a block.
    pub const THREADS_PER_BLOCK: u32 = 1024;
    /// Registers of a multiprocessor and the most of a block, 32 bits each.
    pub const REGISTERS: u32 = 65536;
    /// Shared memory of a block that does not opt in to more.
    pub const SHARED_BYTES_PER_BLOCK: u32 = 48 * 1024;
    /// Shared memory of a block that the driver keeps for itself, from 8.0 on.
    pub const RESERVED_SHARED_BYTES_PER_BLOCK: u32 = 1024;
    /// Constant memory.
    pub const CONSTANT_BYTES: u32 = 64 * 1024;
    /// Registers a thread that every kernel is said to use: no binary is read, and 32 never limits the occupancy.
    pub const REGISTERS_PER_THREAD: u32 = 32;

    /// What PyTorch 2.13's kernels are compiled for: its wheel's `torch.cuda.get_arch_list()`.
    const COMPILED_FOR: [(u32, u32); 6] = [(7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)];

    /// Limits of this compute capability; one that is not in the table gets those of the newest older one.
    pub fn of((major, minor): (u32, u32)) -> Self {
        let (threads, blocks, shared_kib) = match (major, minor) {
            (12.., _) => (1536, 24, 100),
            (9..=11, _) => (2048, 32, 228),
            (8, 9) => (1536, 24, 100),
            (8, 6..) => (1536, 16, 100),
            (8, _) => (2048, 32, 164),
            (7, 5..) => (1024, 16, 65),
            _ => (2048, 32, 97),
        };
        Self {
            major,
            minor,
            threads_per_multiprocessor: threads,
            blocks_per_multiprocessor: blocks,
            // Before 8.0 nothing is reserved; the table's extra KiB makes the same subtraction right there too.
            shared_bytes_per_multiprocessor: if major < 8 { (shared_kib - 1) * 1024 } else { shared_kib * 1024 },
            shared_bytes_per_block_optin: (shared_kib - 1) * 1024,
        }
    }

    /// The version of the kernels that the driver would load, as major * 10 + minor: the newest that this device can run.
    /// PyTorch's sorts and scans look up their tuning by it and refuse a version that they were not compiled for.
    pub fn kernel_version(&self) -> u32 {
        let runnable = Self::COMPILED_FOR.iter().rev().find(|&&version| version <= (self.major, self.minor));
        let (major, minor) = runnable.copied().unwrap_or((self.major, self.minor));
        major * 10 + minor
    }

    /// Whether devices of this kind reach each other's memory: 8.0, 9.0, 10.0 are those for data centres, and GeForce and workstation cards of the same
    /// years have no such way. (Older ones had a bridge; it is not modelled.)
    pub fn has_peer_access(&self) -> bool {
        self.major >= 8 && self.major < 12 && self.minor == 0
    }

    /// How many blocks of this shape a multiprocessor holds at one time.
    pub fn active_blocks(&self, threads_per_block: u32, shared_bytes_per_block: u64) -> u32 {
        if threads_per_block == 0 || threads_per_block > Self::THREADS_PER_BLOCK {
            return 0;
        }
        let warps = threads_per_block.div_ceil(Self::WARP_SIZE);
        let by_threads = self.threads_per_multiprocessor / (warps * Self::WARP_SIZE);
        let by_registers = Self::REGISTERS / (warps * Self::WARP_SIZE * Self::REGISTERS_PER_THREAD);
        let block_shared = shared_bytes_per_block.saturating_add(u64::from(Self::RESERVED_SHARED_BYTES_PER_BLOCK));
        let by_shared = u64::from(self.shared_bytes_per_multiprocessor) / block_shared;
        let by_shared = u32::try_from(by_shared).unwrap_or(u32::MAX);
        by_threads.min(by_registers).min(by_shared).min(self.blocks_per_multiprocessor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_programming_guide() {
        assert_eq!(Architecture::of((8, 9)).shared_bytes_per_block_optin, 99 * 1024);
        assert_eq!(Architecture::of((9, 0)).shared_bytes_per_multiprocessor, 228 * 1024);
        assert_eq!(Architecture::of((8, 0)).threads_per_multiprocessor, 2048);
        assert_eq!(Architecture::of((12, 0)).blocks_per_multiprocessor, 24);
        assert_eq!(Architecture::of((7, 5)).shared_bytes_per_block_optin, 64 * 1024);
    }

    #[test]
    fn only_cards_for_data_centres_reach_each_other() {
        let reach: Vec<_> = [(8, 0), (9, 0), (8, 9), (8, 6), (12, 0)].map(|version| Architecture::of(version).has_peer_access()).into();
        assert_eq!(reach, [true, true, false, false, false]);
    }

    #[test]
    fn kernels_are_the_newest_that_run() {
        assert_eq!(Architecture::of((8, 9)).kernel_version(), 86);
        assert_eq!(Architecture::of((9, 0)).kernel_version(), 90);
        assert_eq!(Architecture::of((12, 1)).kernel_version(), 120);
    }

    #[test]
    fn occupancy_is_the_tightest_limit() {
        let ada = Architecture::of((8, 9));
        assert_eq!(ada.active_blocks(256, 0), 6); // 1536 threads / 256
        assert_eq!(ada.active_blocks(32, 0), 24); // the limit on blocks
        assert_eq!(ada.active_blocks(128, 48 * 1024), 2); // 100 KiB / (48 + 1) KiB
        assert_eq!(ada.active_blocks(33, 0), 24); // rounded up to two warps: 1536 / 64
        assert_eq!(ada.active_blocks(2048, 0), 0);
        assert_eq!(ada.active_blocks(128, u64::MAX), 0);
    }
}
