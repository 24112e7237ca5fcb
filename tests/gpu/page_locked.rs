//! Page-locked memory of the host is given back when the last tensor that looks into it is gone.

use std::process::Command;

use engine::ComputeDevice;
use engine::cuda::host_slab;
use engine_protocol::gib;

use crate::check::{Checks, Verdict};
use crate::hand::Hand;

/// The check.
pub(crate) const NAME: &str = "page-locked memory is given back";

/// Tells the process that the check starts that it is the one that locks.
const LOCKS: &str = "LOWMEM_TEST_LOCKS";
const BYTES: i64 = 1 << 30;

/// A process of its own locks a gigabyte and lets go of it: the process has a GPU, and no other test's memory is counted.
pub(crate) fn given_back(hand: &Hand, checks: &mut Checks) {
    checks.check(NAME, || {
        let mut alone = Command::new(std::env::current_exe().expect("this program"));
        alone.args(["--exact", "every_check_passes", "--nocapture"]).env(LOCKS, "1");
        hand.give_gpu(&mut alone);
        let output = alone.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let seen = said.lines().find_map(|line| line.strip_prefix("seen: ")).unwrap_or_default().to_owned();
        if output.status.success() && !seen.is_empty() {
            Verdict::Passed(seen)
        } else {
            Verdict::Failed(format!("{said}{}", String::from_utf8_lossy(&output.stderr)).trim().to_owned())
        }
    });
}

/// What is held of the host: by this process, and by all that runs. A driver's locked pages are no process's.
fn held() -> [i64; 2] {
    let line = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).expect("it is there");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the line").to_owned();
        line.trim().trim_end_matches("kB").trim().parse::<i64>().expect("a number") << 10
    };
    [line("/proc/self/status", "VmRSS:"), -line("/proc/meminfo", "MemAvailable:")]
}

/// Whether this is that process.
pub(crate) fn is_meant() -> bool {
    std::env::var_os(LOCKS).is_some()
}

/// What that process does.
pub(crate) fn lock_and_let_go() {
    ComputeDevice::gpu().expect("a GPU");
    let before = held();
    let mut slab = host_slab(BYTES, true).expect("locked");
    let _ = slab.fill_(1);
    let during = held();
    drop(slab);
    let after = held();
    // Where it is seen at all, and first in the process: what else runs on the machine takes and gives memory too.
    let seen = (0..2).find(|&at| during[at] - before[at] >= BYTES / 2).expect("a locked gigabyte is nowhere to be seen");
    let left = after[seen] - before[seen];
    assert!(left <= BYTES / 4, "{left} of {BYTES} bytes are still held");
    let told = |bytes: i64| gib(bytes.unsigned_abs());
    let whose = ["the process", "the machine"][seen];
    println!(
        "seen: {whose} held {:.2} GiB more with a slab of {:.2}, and {:.2} without it",
        told(during[seen] - before[seen]),
        told(BYTES),
        told(left)
    );
}
