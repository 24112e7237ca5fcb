//! The devices as the program sees them: in its order, one of them each thread's own, and how one comes into use.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::{Device, Fault, Handles, KernelWork, Owner};
use crate::environment::{is_quiet, visible_devices};
use crate::machine::{all_devices, machine};
use crate::{neighbours, operations, report, unsupported_calls};

/// Those that the program sees, in its order.
static VISIBLE: LazyLock<Vec<&'static Device>> = LazyLock::new(|| match visible_devices() {
    Some(list) => visible(&list),
    None => all_devices().iter().collect(),
});

thread_local! {
    /// The device of this thread, among those that the program sees.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// `CUDA_VISIBLE_DEVICES`: numbers or UUIDs, up to the first that names no device.
fn visible(list: &str) -> Vec<&'static Device> {
    let devices = all_devices();
    let by_name = |name: &str| devices.iter().find(|device| name.len() > 4 && device.uuid_text().starts_with(name));
    let named = |name: &str| name.parse().ok().and_then(|ordinal: usize| devices.get(ordinal)).or_else(|| by_name(name));
    list.split(',').map_while(|name| named(name.trim())).collect()
}

/// How many devices the program sees.
pub(crate) fn device_count() -> i32 {
    VISIBLE.len() as i32
}

/// Whether the driver is initialised: by `cuInit`, or by the runtime as it is first used.
static IS_INITIALISED: AtomicBool = AtomicBool::new(false);

/// Whether anybody has used the driver yet.
pub(crate) fn is_initialised() -> bool {
    IS_INITIALISED.load(Ordering::Relaxed)
}

/// This thread's device, which may be unused yet. The driver is initialised from here on.
pub(crate) fn device() -> Result<&'static Device, Fault> {
    let device = VISIBLE.get(CURRENT.get()).copied().ok_or(Fault::NoDevice)?;
    IS_INITIALISED.store(true, Ordering::Relaxed);
    Ok(device)
}

/// The number of this thread's device.
pub(crate) fn current() -> Result<i32, Fault> {
    device().map(|_| CURRENT.get() as i32)
}

/// The device of that number.
pub(crate) fn device_at(ordinal: i32) -> Result<&'static Device, Fault> {
    device()?;
    usize::try_from(ordinal).ok().and_then(|ordinal| VISIBLE.get(ordinal).copied()).ok_or(Fault::InvalidDevice)
}

/// Makes that device this thread's, with its context.
pub(crate) fn set_current(ordinal: i32) -> Result<(), Fault> {
    activate(device_at(ordinal)?)?;
    CURRENT.set(ordinal as usize);
    Ok(())
}

/// The number that the program knows a device by.
pub(crate) fn number_of(device: &Device) -> i32 {
    VISIBLE.iter().position(|other| other.ordinal == device.ordinal).unwrap_or_default() as i32
}

/// The device that a stream, an event or another handle belongs to; this thread's for the streams that every device has.
pub(crate) fn device_of(handle: u64) -> Result<&'static Device, Fault> {
    unsupported_calls::check()?;
    match Handles::device_of(handle) {
        Some(ordinal) => machine()?.get(ordinal as usize).ok_or(Fault::InvalidHandle),
        None => active_device(),
    }
}

/// The device for which `holds` is true; this thread's where there is none, which then says what is wrong.
pub(crate) fn device_that(holds: impl Fn(&Device) -> bool) -> Result<&'static Device, Fault> {
    let this = active_device()?;
    Ok(if holds(this) { this } else { all_devices().iter().find(|device| holds(device)).unwrap_or(this) })
}

/// Where the host's page-locked memory is kept track of: it is the process's, whichever device it was made for.
pub(crate) fn host() -> Result<&'static Device, Fault> {
    active_device()?;
    machine().map(|devices| &devices[0])
}

/// What the address belongs to, and on which device, or the first one where it is managed.
pub(crate) fn owner_of(address: u64) -> Result<(&'static Device, Owner), Fault> {
    let device = device_that(|device| device.owner_of(address) != Owner::Unregistered)?;
    Ok((device, device.owner_of(address)))
}

/// This thread's device with its context: for everything that a real one could not do without.
pub(crate) fn active_device() -> Result<&'static Device, Fault> {
    activate(device()?)
}

/// The device with its context.
pub(crate) fn activate(device: &'static Device) -> Result<&'static Device, Fault> {
    unsupported_calls::check()?;
    if device.activate()? {
        report::write_at_exit();
        report::numbered(device, number_of(device).unsigned_abs());
        report::write_growing(device);
        neighbours::publish(device);
        static SAID: AtomicBool = AtomicBool::new(false);
        if !is_quiet() && !SAID.swap(true, Ordering::Relaxed) {
            let gib = device.profile.memory_bytes.value as f64 / f64::from(1 << 30);
            eprintln!("lowmem: virtual GPU \"{}\" ({gib:.1} GiB): memory is accounted for, nothing is computed", device.profile.name);
        }
    }
    Ok(device)
}

/// Puts work on a stream of this thread's device.
pub(crate) fn launch(stream: u64, work: KernelWork) -> Result<(), Fault> {
    launch_on(active_device()?, stream, work)
}

/// Puts work on a stream of that device.
pub(crate) fn launch_on(device: &'static Device, stream: u64, work: KernelWork) -> Result<(), Fault> {
    let when = device.launch(stream, work)?;
    operations::launched(device, stream, work, when);
    Ok(())
}

/// Puts a kernel that waits for so many cycles on a stream.
pub(crate) fn spin(stream: u64, cycles: u64) -> Result<(), Fault> {
    let device = device_of(stream)?;
    let when = device.spin(stream, cycles)?;
    operations::launched(device, stream, KernelWork::UNKNOWN, when);
    Ok(())
}

/// Counts a library call that would have run kernels, on a stream that is not known here.
pub(crate) fn launched() {
    let _ = launch(0, KernelWork::UNKNOWN);
}
