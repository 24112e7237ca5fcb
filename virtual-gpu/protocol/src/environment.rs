//! The names of the environment variables that the virtual GPU reads. `docs/virtual-gpu.md` says what each is for.

/// The GPU profile as JSON. Without it there is no device.
pub const PROFILE: &str = "LOWMEM_VIRTUAL_GPU";
/// A file that gets the report when the process ends, or a folder in which each process keeps one of its own.
pub const REPORT: &str = "LOWMEM_VIRTUAL_GPU_REPORT";
/// A file that gets the operations that have an order.
pub const TRACE: &str = "LOWMEM_VIRTUAL_GPU_TRACE";
/// A file that gets when each piece of work began and ended.
pub const TIMELINE: &str = "LOWMEM_VIRTUAL_GPU_TIMELINE";
/// When events count as passed: `clock`, `eager` or `lazy`.
pub const EVENTS: &str = "LOWMEM_VIRTUAL_GPU_EVENTS";
/// 1: no banner line.
pub const QUIET: &str = "LOWMEM_VIRTUAL_GPU_QUIET";
/// How many devices the machine has, 1 to [`MOST_DEVICES`].
pub const COUNT: &str = "LOWMEM_VIRTUAL_GPU_COUNT";
/// 1: after the first call of something unsupported everything that needs the device fails.
pub const STRICT: &str = "LOWMEM_VIRTUAL_GPU_STRICT";
/// 1: the device goes by the real GPU's name.
pub const MASK_NAME: &str = "LOWMEM_VIRTUAL_GPU_MASK_NAME";
/// 1: a device goes on where its memory is at an end, with more than any card has. What it says of itself stays the profile's.
pub const BEYOND: &str = "LOWMEM_VIRTUAL_GPU_BEYOND";

/// What NVML tells of sensors and of other processes, as JSON: see [`crate::Sensors`]. Without it a device has no sensors.
pub const SENSORS: &str = "LOWMEM_VIRTUAL_GPU_SENSORS";

/// Bytes that the host page-locks at most. Without it there is no limit but its memory.
pub const PINNED_LIMIT: &str = "LOWMEM_VIRTUAL_GPU_PINNED_LIMIT";

/// A file. As long as it is there the device hangs: it passes nothing that it is given, and a host that waits for it spins.
pub const HANG: &str = "LOWMEM_VIRTUAL_GPU_HANG";

/// After how many seconds a program that reads values from a device is told, once, that a loop which waits for one does not end. By default a minute.
pub const PATIENCE: &str = "LOWMEM_VIRTUAL_GPU_PATIENCE";

/// A folder in which ranks of NCCL that are a process each meet, so that none goes on by its clock before those that it exchanges with are there. Without it none waits for another.
pub const RANKS: &str = "LOWMEM_VIRTUAL_GPU_RANKS";

/// As many devices as PyTorch can tell apart.
pub const MOST_DEVICES: u32 = 64;
