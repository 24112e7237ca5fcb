//! `libnvidia-ml.so.1`: the management library. It knows of the machine's devices, whether the program sees
//! them or not, and of what all processes hold of them and use them for.

use std::fs;

use virtual_gpu_protocol::Sensors;

use crate::cudart::CUDA_VERSION;
use crate::device::{Device, Fault};
use crate::environment::sensors;
use crate::ffi::{Address, GivenText, Handle, InOut, Out, OutText, StaticText, Versioned, text};
use crate::machine::machine;
use crate::neighbours::{holders, utilization};
use crate::report::asked_free;
use crate::unsupported::declined;

/// The first device's handle, and how far it is to the next one's.
const DEVICE: u64 = 0x100;
/// The driver that first had CUDA 13.0; "virtual" cannot stand in a version.
const DRIVER_VERSION: &str = "580.65.06";
/// `NVML_CLOCK_SM`.
const SM_CLOCK: u32 = 1;
const NVML_VERSION: &str = "13.580.65.06";

fn answer(result: Result<(), Fault>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Fault::NotSupported) => 3,
        Err(Fault::InvalidDevice) => 6, // NVML_ERROR_NOT_FOUND
        Err(Fault::OutOfMemory) => 7,   // NVML_ERROR_INSUFFICIENT_SIZE
        Err(Fault::NoDevice) => 9,      // NVML_ERROR_DRIVER_NOT_LOADED
        Err(_) => 2,                    // NVML_ERROR_INVALID_ARGUMENT
    }
}

fn by_handle(handle: u64) -> Result<&'static Device, Fault> {
    let ordinal = handle.checked_sub(DEVICE).filter(|offset| offset % DEVICE == 0).ok_or(Fault::InvalidValue)? / DEVICE;
    machine()?.get(ordinal as usize).ok_or(Fault::InvalidValue)
}

fn handle_of(device: &Device) -> u64 {
    DEVICE * (1 + u64::from(device.ordinal))
}

/// The handle of the device for which `fits` is true.
fn find(handle: Out<u64>, fits: impl Fn(&Device) -> bool) -> Result<(), Fault> {
    handle.set(handle_of(machine()?.iter().find(|device| fits(device)).ok_or(Fault::InvalidDevice)?))
}

/// `nvmlMemory_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryBytes {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryBytesV2 {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// `nvmlUtilization_t`: shares in percent.
#[repr(C)]
#[derive(Clone, Copy)]
struct Utilization {
    gpu: u32,
    memory: u32,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PciAddress {
    bus_id_legacy: [u8; 16],
    domain: u32,
    bus: u32,
    device: u32,
    pci_device_id: u32,
    pci_subsystem_id: u32,
    bus_id: [u8; 32],
}

/// `nvmlProcessInfo_v1_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessV1 {
    pid: u32,
    used_bytes: u64,
}

/// `nvmlProcessInfo_v2_t`, which is `nvmlProcessInfo_t` too.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessV2 {
    pid: u32,
    used_bytes: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

/// `nvmlGpuFabricInfo_v2_t`; the third version begins with the same fields.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fabric {
    version: u32,
    cluster: [u8; 16],
    status: i32,
    clique: u32,
    state: u8,
    health: u32,
}

impl ProcessV2 {
    /// A process on a device that is not divided into instances.
    fn whole_device(pid: u32, used_bytes: u64) -> Self {
        Self { pid, used_bytes, gpu_instance: u32::MAX, compute_instance: u32::MAX }
    }
}

/// The processes that use the device. Room for none is how callers ask for the number.
///
/// # Safety
/// The list has room for as many as `count` says.
unsafe fn list_processes<T: Copy>(handle: u64, count: InOut<u32>, list: Out<T>, entry: impl Fn(u32, u64) -> T) -> Result<(), Fault> {
    let found: Vec<T> = processes(by_handle(handle)?).into_iter().map(|(process, bytes)| entry(process, bytes)).collect();
    let room = count.get().ok_or(Fault::InvalidValue)?;
    count.set(found.len() as u32)?;
    if found.len() > room as usize {
        return Err(Fault::OutOfMemory);
    }
    // SAFETY: the list has room for as many as the caller said, and these are no more.
    unsafe { list.set_all(&found) };
    Ok(())
}

/// A sensor's reading. A device that lacks it says so, as one of which nothing was told does.
fn reading<T: Copy>(name: &str, of: impl FnOnce(&Sensors) -> Option<T>) -> Result<T, Fault> {
    of(sensors()).ok_or_else(|| {
        declined(name);
        Fault::NotSupported
    })
}

/// The processes on the device: those on the virtual GPU, and those that NVML was told of.
fn processes(device: &Device) -> Vec<(u32, u64)> {
    let mut found = holders(device);
    found.extend(sensors().processes.iter().map(|(&process, &bytes)| (process, bytes)));
    found
}

/// Total, free and used bytes. Each process has the device to itself, so that all together may hold more than it has.
fn memory_of(handle: u64) -> Result<(u64, u64, u64), Fault> {
    let device = by_handle(handle)?;
    asked_free(device);
    let (total, used) = (device.profile.memory_bytes.value, processes(device).into_iter().map(|(_, bytes)| bytes).sum());
    Ok((total, total.saturating_sub(used), used))
}

exports! { answer;
    fn nvmlInit_v2() {
        machine().map(drop)
    }

    /// By the older names too, under which programs look that open the library themselves: PyTorch counts devices by them.
    fn nvmlInit() {
        machine().map(drop)
    }

    fn nvmlInitWithFlags(_flags: u32) {
        machine().map(drop)
    }

    fn nvmlDeviceGetCount_v2(count: Out<u32>) {
        count.set(machine()?.len() as u32)
    }

    fn nvmlDeviceGetCount(count: Out<u32>) {
        count.set(machine()?.len() as u32)
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: u32, handle: Out<u64>) {
        handle.set(handle_of(machine()?.get(index as usize).ok_or(Fault::InvalidValue)?))
    }

    fn nvmlDeviceGetHandleByIndex(index: u32, handle: Out<u64>) {
        handle.set(handle_of(machine()?.get(index as usize).ok_or(Fault::InvalidValue)?))
    }

    fn nvmlDeviceGetHandleByUUID(uuid: GivenText, handle: Out<u64>) {
        let uuid = uuid.get().ok_or(Fault::InvalidValue)?;
        find(handle, |device| device.uuid_text() == uuid)
    }

    fn nvmlDeviceGetHandleByPciBusId_v2(id: GivenText, handle: Out<u64>) {
        let id = id.get().ok_or(Fault::InvalidValue)?;
        // The domain may have four digits or eight.
        find(handle, |device| device.pci_bus_id().trim_start_matches('0').eq_ignore_ascii_case(id.trim_start_matches('0')))
    }

    fn nvmlDeviceGetIndex(handle: Handle, index: Out<u32>) {
        index.set(by_handle(handle)?.ordinal)
    }

    fn nvmlDeviceGetMemoryInfo(handle: Handle, memory: Out<MemoryBytes>) {
        let (total, free, used) = memory_of(handle)?;
        memory.set(MemoryBytes { total, free, used })
    }

    fn nvmlDeviceGetMemoryInfo_v2(handle: Handle, memory: Versioned<MemoryBytesV2>) {
        let (total, free, used) = memory_of(handle)?;
        let version = memory.version().ok_or(Fault::InvalidValue)?;
        memory.set(MemoryBytesV2 { version, total, reserved: 0, free, used })
    }

    fn nvmlDeviceGetUtilizationRates(handle: Handle, rates: Out<Utilization>) {
        let [gpu, memory] = utilization(by_handle(handle)?).map(|share| (share * 100.0).round() as u32);
        rates.set(Utilization { gpu, memory })
    }

    fn nvmlDeviceGetPciInfo_v3(handle: Handle, pci: Out<PciAddress>) {
        let device = by_handle(handle)?;
        let (short, (domain, bus, number)) = (device.pci_bus_id(), device.pci_address());
        let mut filled = PciAddress {
            bus_id_legacy: [0; 16],
            domain: domain as u32,
            bus: bus as u32,
            device: number as u32,
            pci_device_id: 0,
            pci_subsystem_id: 0,
            bus_id: [0; 32],
        };
        filled.bus_id_legacy[..short.len()].copy_from_slice(short.as_bytes());
        let long = format!("0000{short}");
        filled.bus_id[..long.len()].copy_from_slice(long.as_bytes());
        pci.set(filled)
    }

    fn nvmlDeviceGetGpuFabricInfoV(handle: Handle, fabric: Versioned<Fabric>) {
        by_handle(handle)?;
        let version = fabric.version().ok_or(Fault::InvalidValue)?;
        // State 0: the device is on no fabric.
        fabric.set(Fabric { version, cluster: [0; 16], status: 0, clique: 0, state: 0, health: 0 })
    }

    fn nvmlDeviceGetCudaComputeCapability(handle: Handle, major: Out<i32>, minor: Out<i32>) {
        let architecture = &by_handle(handle)?.architecture;
        major.set(architecture.major as i32)?;
        minor.set(architecture.minor as i32)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(handle: Handle, count: Out<u32>, _list: Address) {
        by_handle(handle)?;
        count.set(0)
    }

    fn nvmlDeviceGetTemperature(handle: Handle, _sensor: u32, degrees: Out<u32>) {
        let reading = reading("nvmlDeviceGetTemperature", |sensors| sensors.temperature_c)?;
        by_handle(handle)?;
        degrees.set(reading)
    }

    fn nvmlDeviceGetPowerUsage(handle: Handle, milliwatts: Out<u32>) {
        let reading = reading("nvmlDeviceGetPowerUsage", |sensors| sensors.power_mw)?;
        by_handle(handle)?;
        milliwatts.set(reading)
    }

    fn nvmlDeviceGetClockInfo(handle: Handle, clock: u32, mhz: Out<u32>) {
        let reading = reading("nvmlDeviceGetClockInfo", |sensors| sensors.sm_clock_mhz.filter(|_| clock == SM_CLOCK))?;
        by_handle(handle)?;
        mhz.set(reading)
    }

    fn nvmlDeviceGetCurrentClocksThrottleReasons(handle: Handle, reasons: Out<u64>) {
        let reading = reading("nvmlDeviceGetCurrentClocksThrottleReasons", |sensors| sensors.throttle_reasons)?;
        by_handle(handle)?;
        reasons.set(reading)
    }

    fn nvmlDeviceGetMinorNumber(handle: Handle, number: Out<u32>) {
        number.set(by_handle(handle)?.ordinal)
    }

    fn nvmlSystemGetCudaDriverVersion(version: Out<i32>) {
        machine()?;
        version.set(CUDA_VERSION)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<i32>) {
        machine()?;
        version.set(CUDA_VERSION)
    }
}

succeed! { nvmlShutdown }

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: i32) -> StaticText {
    text(match code {
        0 => c"Success",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        _ => c"Unknown Error",
    })
}

unsafe_exports! { answer;
    fn nvmlDeviceGetName(handle: Handle, name: OutText, room: u32) {
        name.set(&by_handle(handle)?.name(), room as usize)
    }

    fn nvmlDeviceGetUUID(handle: Handle, uuid: OutText, room: u32) {
        uuid.set(&by_handle(handle)?.uuid_text(), room as usize)
    }

    fn nvmlDeviceGetComputeRunningProcesses(handle: Handle, count: InOut<u32>, list: Out<ProcessV1>) {
        list_processes(handle, count, list, |pid, used_bytes| ProcessV1 { pid, used_bytes })
    }

    fn nvmlDeviceGetComputeRunningProcesses_v2(handle: Handle, count: InOut<u32>, list: Out<ProcessV2>) {
        list_processes(handle, count, list, ProcessV2::whole_device)
    }

    fn nvmlDeviceGetComputeRunningProcesses_v3(handle: Handle, count: InOut<u32>, list: Out<ProcessV2>) {
        list_processes(handle, count, list, ProcessV2::whole_device)
    }

    fn nvmlSystemGetProcessName(process: u32, name: OutText, room: u32) {
        let path = fs::read_link(format!("/proc/{process}/exe")).map_err(|_| Fault::InvalidDevice)?;
        name.set(&path.to_string_lossy(), room as usize)
    }

    fn nvmlSystemGetDriverVersion(version: OutText, room: u32) {
        machine()?;
        version.set(DRIVER_VERSION, room as usize)
    }

    fn nvmlSystemGetNVMLVersion(version: OutText, room: u32) {
        version.set(NVML_VERSION, room as usize)
    }
}
