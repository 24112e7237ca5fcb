//! What a program decides by values of the device, which nobody computed: where something that watches the program decided in their place, and a word to a program that may wait for one
//! that never comes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use crate::device::lock;
use crate::environment::patience;

static DECIDED: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Something was decided without a value of the device.
pub(crate) fn decided(what: String) {
    *lock(&DECIDED).entry(what).or_default() += 1;
}

/// What was decided so, and how often.
pub(crate) fn all_decided() -> BTreeMap<String, u64> {
    lock(&DECIDED).clone()
}

/// The program reads a value. One that has done so for a long time may be in a loop that has no end here, and is told once.
pub(crate) fn value_read(operation: Option<&str>) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    let since = FIRST.get_or_init(Instant::now).elapsed();
    if since >= patience() && !IS_SAID.swap(true, Ordering::Relaxed) {
        let by = operation.map(|name| format!(", now with {name}")).unwrap_or_default();
        eprintln!(
            "lowmem: virtual GPU: this program has read values from the GPU for {} s{by}. Nothing is computed there, so most are zero: a loop that waits for another value \
             does not end. Give it an end that does not depend on one (a number of steps), or stop it with Ctrl-C",
            since.as_secs()
        );
    }
}
