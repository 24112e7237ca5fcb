//! What a program that runs under `lowmem on` finds as `nvidia-smi`: this program under another name, with the questions that programs ask most. What the virtual
//! GPU does not know (temperature, power, clocks) is `[N/A]`, as `nvidia-smi` itself has it for a card without the sensor.

use clap::Parser;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::table;
use crate::error::Error;
use crate::exit_code::ExitCode;

/// The name that this program answers to so.
pub(crate) const NAME: &str = "nvidia-smi";

const MIB: u64 = 1 << 20;
const UNKNOWN: &str = "[N/A]";

#[derive(Debug, Parser)]
#[command(name = NAME, about = "The virtual GPUs of `lowmem on`, as nvidia-smi tells of real ones")]
struct Arguments {
    /// What to tell of each GPU, as name,memory.used,memory.total
    #[arg(long, value_delimiter = ',', conflicts_with = "query_compute_apps")]
    query_gpu: Vec<String>,
    /// What to tell of each process, as pid,used_memory
    #[arg(long, value_delimiter = ',')]
    query_compute_apps: Vec<String>,
    /// csv, with noheader and nounits where they are wanted
    #[arg(long, value_delimiter = ',', default_value = "csv")]
    format: Vec<String>,
    /// One GPU alone, by its number or UUID
    #[arg(short, long)]
    id: Option<String>,
    /// A line for each GPU
    #[arg(short = 'L', long)]
    list_gpus: bool,
}

/// Answers, and never comes back where the command line is wrong.
pub(crate) fn run() -> Result<ExitCode, Error> {
    let arguments = Arguments::parse();
    let nvml = Nvml::init().map_err(fault)?;
    let count = nvml.device_count().map_err(fault)?;
    let all = (0..count).map(|index| nvml.device_by_index(index)).collect::<Result<Vec<_>, _>>().map_err(fault)?;
    let mut devices = Vec::new();
    for device in all {
        let is_wanted = match &arguments.id {
            Some(id) => device.index().map_err(fault)?.to_string() == *id || device.uuid().map_err(fault)? == *id,
            None => true,
        };
        if is_wanted {
            devices.push(device);
        }
    }
    if devices.is_empty() {
        return Err(Error::input(format!("{NAME}: no GPU is {}", arguments.id.unwrap_or_default())));
    }
    if arguments.list_gpus {
        for device in &devices {
            say!("GPU {}: {} (UUID: {})", device.index().map_err(fault)?, device.name().map_err(fault)?, device.uuid().map_err(fault)?);
        }
    } else if !arguments.query_gpu.is_empty() {
        let rows =
            devices.iter().map(|device| row(&arguments.query_gpu, |field| of_device(&nvml, device, field))).collect::<Result<_, _>>()?;
        print(&arguments.query_gpu, rows, &arguments.format);
    } else if !arguments.query_compute_apps.is_empty() {
        let rows = processes(&nvml, &devices, &arguments.query_compute_apps)?;
        print(&arguments.query_compute_apps, rows, &arguments.format);
    } else {
        tables(&nvml, &devices)?;
    }
    Ok(ExitCode::Done)
}

fn fault(error: NvmlError) -> Error {
    Error::Fault(format!("{NAME}: NVML: {error}"))
}

/// A value, with its unit where it has one.
type Value = (String, Option<&'static str>);

fn plain(text: impl ToString) -> Value {
    (text.to_string(), None)
}

fn percent(share: u32) -> Value {
    (share.to_string(), Some("%"))
}

fn mib(bytes: u64) -> Value {
    ((bytes / MIB).to_string(), Some("MiB"))
}

/// The values of all fields; an unknown field is wrong input.
fn row(fields: &[String], value: impl Fn(&str) -> Result<Option<Value>, NvmlError>) -> Result<Vec<Value>, Error> {
    let known = |field: &String| {
        value(field.trim()).map_err(fault)?.ok_or_else(|| Error::input(format!("Field \"{field}\" is not a valid field to query.")))
    };
    fields.iter().map(known).collect()
}

fn of_device(nvml: &Nvml, device: &Device<'_>, field: &str) -> Result<Option<Value>, NvmlError> {
    Ok(Some(match field {
        "index" => plain(device.index()?),
        "count" => plain(nvml.device_count()?),
        "name" | "gpu_name" => plain(device.name()?),
        "uuid" | "gpu_uuid" => plain(device.uuid()?),
        "pci.bus_id" | "gpu_bus_id" => plain(device.pci_info()?.bus_id),
        "driver_version" => plain(nvml.sys_driver_version()?),
        "compute_cap" => {
            let capability = device.cuda_compute_capability()?;
            plain(format!("{}.{}", capability.major, capability.minor))
        }
        "memory.total" => mib(device.memory_info()?.total),
        "memory.used" => mib(device.memory_info()?.used),
        "memory.free" => mib(device.memory_info()?.free),
        "memory.reserved" => mib(0),
        "utilization.gpu" => percent(device.utilization_rates()?.gpu),
        "utilization.memory" => percent(device.utilization_rates()?.memory),
        "temperature.gpu" | "temperature.memory" | "power.draw" | "power.limit" | "fan.speed" | "pstate" | "clocks.sm" | "clocks.mem"
        | "clocks.gr" => plain(UNKNOWN),
        _ => return Ok(None),
    }))
}

/// Each process on each device: its id and what it holds.
fn holders(device: &Device<'_>) -> Result<Vec<(u32, Option<u64>)>, NvmlError> {
    let bytes = |used: UsedGpuMemory| match used {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    Ok(device.running_compute_processes()?.into_iter().map(|process| (process.pid, bytes(process.used_gpu_memory))).collect())
}

fn processes(nvml: &Nvml, devices: &[Device<'_>], fields: &[String]) -> Result<Vec<Vec<Value>>, Error> {
    let mut rows = Vec::new();
    for device in devices {
        for (pid, bytes) in holders(device).map_err(fault)? {
            rows.push(row(fields, |field| {
                Ok(match field {
                    "pid" => Some(plain(pid)),
                    "process_name" | "name" => Some(plain(program(pid))),
                    "used_memory" | "used_gpu_memory" => Some(bytes.map_or_else(|| plain(UNKNOWN), mib)),
                    "gpu_name" | "gpu_uuid" | "gpu_bus_id" => of_device(nvml, device, field)?,
                    _ => None,
                })
            })?);
        }
    }
    Ok(rows)
}

/// The program that a process runs.
fn program(pid: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/exe")).map_or_else(|_| UNKNOWN.to_owned(), |path| path.display().to_string())
}

/// Lines of values, under their names where those are wanted.
fn print(fields: &[String], rows: Vec<Vec<Value>>, format: &[String]) {
    let has = |word: &str| format.iter().any(|given| given.trim() == word);
    if !has("noheader") {
        let unit = |field: &str| match field {
            _ if field.starts_with("memory.") || field.starts_with("used_") => " [MiB]",
            _ if field.starts_with("utilization.") => " [%]",
            _ => "",
        };
        let names = fields.iter().map(|field| field.trim()).map(|field| format!("{field}{}", unit(field)));
        say!("{}", names.collect::<Vec<_>>().join(", "));
    }
    for row in rows {
        let values = row.into_iter().map(|(value, unit)| match unit.filter(|_| !has("nounits")) {
            Some(unit) => format!("{value} {unit}"),
            None => value,
        });
        say!("{}", values.collect::<Vec<_>>().join(", "));
    }
}

fn tables(nvml: &Nvml, devices: &[Device<'_>]) -> Result<(), Error> {
    let cuda = nvml.sys_cuda_driver_version().map_err(fault)?;
    let driver = nvml.sys_driver_version().map_err(fault)?;
    say!("Virtual GPUs of `lowmem on`. Driver {driver}, CUDA {}.{}", cuda / 1000, cuda % 1000 / 10);
    let fields = ["index", "name", "pci.bus_id", "memory.used", "memory.free", "memory.total", "utilization.gpu"].map(str::to_owned);
    let mut gpus = table(&["GPU", "name", "bus", "used MiB", "free MiB", "total MiB", "busy %"], &[0, 3, 4, 5, 6]);
    let mut shares = table(&["GPU", "process", "program", "used MiB"], &[0, 1, 3]);
    for device in devices {
        gpus.add_row(row(&fields, |field| of_device(nvml, device, field))?.into_iter().map(|(value, _)| value));
        for (pid, bytes) in holders(device).map_err(fault)? {
            let used = bytes.map_or_else(|| UNKNOWN.to_owned(), |bytes| (bytes / MIB).to_string());
            shares.add_row([device.index().map_err(fault)?.to_string(), pid.to_string(), program(pid), used]);
        }
    }
    say!("{gpus}");
    if shares.row_count() > 0 {
        say!("{shares}");
    }
    Ok(())
}
