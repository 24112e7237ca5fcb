//! The machine's own memory (RAM), as this process finds it: what is left of it, what the process holds, and what holds page-locking down. Linux alone.

mod page_locking;
mod proc;
mod room;

pub use page_locking::{PageLockLimit, page_lock_limit};
pub use proc::{meminfo_bytes, status_bytes, status_bytes_of};
pub use room::available_bytes;
