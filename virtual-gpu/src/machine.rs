//! The devices of this process and its host's clock, made from the environment when they are first asked for.

use std::sync::{Arc, LazyLock};

use crate::device::{Clock, Device, Fault, HostClock};
use crate::environment;
use crate::ffi::Mapped;

/// The devices of the machine, all of one kind.
static DEVICES: LazyLock<Vec<Device>> = LazyLock::new(|| {
    let Some(profile) = environment::profile() else { return Vec::new() };
    let (logs, order) = (environment::logs(), environment::event_order());
    let (is_masked, pinned_limit) = (environment::masks_name(), environment::pinned_limit());
    let device = |ordinal| {
        let clock = Clock::new(Arc::clone(&HOST_CLOCK), order);
        let device = Device::new(profile.clone(), ordinal, Box::new(Mapped), logs.clone(), clock).masked(is_masked);
        device.locking_at_most(pinned_limit).beyond(environment::goes_beyond()).hanging_with(environment::hang())
    };
    (0..environment::count()).map(device).collect()
});

static HOST_CLOCK: LazyLock<Arc<HostClock>> = LazyLock::new(Arc::default);

/// How far the program has come.
pub(crate) fn host_clock() -> &'static HostClock {
    &HOST_CLOCK
}

/// All devices of the machine, whether the program sees them or not; none where there is no virtual GPU.
pub(crate) fn all_devices() -> &'static [Device] {
    &DEVICES
}

/// The same, where there has to be one.
pub(crate) fn machine() -> Result<&'static [Device], Fault> {
    if DEVICES.is_empty() { Err(Fault::NoDevice) } else { Ok(&DEVICES) }
}
