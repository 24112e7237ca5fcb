//! Stages of a run: each with its own peaks and time, each told of as it begins and ends. What is done in a stage is not known here.

use engine_protocol::{AttentionKernel, Event, HostMemory, MemoryCourse, OperationTime, Stage, StageMemory, StageTime};

use crate::attention;
use crate::attribution;
use crate::compute_device::ComputeDevice;
use crate::cuda::allocator;
use crate::error::{Error, Result};
use crate::host_use;
use crate::operation_times;
use crate::timing;

/// Says what happens, to whoever listens.
pub type Say<'a> = &'a mut dyn FnMut(Event);

/// Runs stages on a device.
#[derive(Debug, Clone, Copy)]
pub struct Stages {
    device: ComputeDevice,
}

/// What a stage came to.
struct Ended {
    time: Option<StageTime>,
    memory: Option<StageMemory>,
    host: HostMemory,
    attention: Vec<AttentionKernel>,
    operations: Vec<OperationTime>,
    course: Option<MemoryCourse>,
}

impl Stages {
    /// Stages on `device`.
    pub fn new(device: ComputeDevice) -> Self {
        Self { device }
    }

    /// Runs one stage. Its memory peaks begin at what is held when it begins.
    ///
    /// # Errors
    /// The event that ends the run: out of memory, or what failed.
    pub fn run<R>(self, stage: Stage, say: Say<'_>, body: impl FnOnce(Say<'_>) -> Result<R>) -> std::result::Result<R, Box<Event>> {
        say(Event::StageBegun { stage });
        let result = self.begin(stage).and_then(|()| body(&mut *say)).and_then(|result| Ok((result, self.end()?)));
        match result {
            Ok((result, Ended { time, memory, host, attention, operations, course })) => {
                say(Event::StageEnded { stage, time, memory, host: Some(host), attention, operations, course });
                Ok(result)
            }
            Err(error) => Err(Box::new(self.failure(stage, &error))),
        }
    }

    /// Tells of a step's own peak and time as the step ends, and whether it `reused` what a cache has kept.
    ///
    /// # Errors
    /// Whatever went wrong on the device until now.
    pub fn end_step(self, reused: bool, say: Say<'_>) -> Result<()> {
        let secs = timing::end_step()?;
        let (parts, course) = if self.device.is_gpu() { allocator::end_step()? } else { None }.unzip();
        say(Event::StepEnded { parts, secs, reused, course: course.flatten() });
        Ok(())
    }

    fn begin(self, stage: Stage) -> Result<()> {
        attribution::in_stage(stage.name());
        attention::take_kernels();
        if self.device.is_gpu() {
            allocator::reset_peaks()?;
        }
        host_use::begin_stage(self.device)?;
        timing::begin_stage(self.device.torch)?;
        if stage == Stage::Load && !self.device.computes {
            // Weights are allocated and never filled.
            timing::leave_out(None);
        }
        Ok(())
    }

    fn end(self) -> Result<Ended> {
        let time = timing::end_stage()?;
        let (memory, course) = self.end_memory()?.unzip();
        // The device has been waited for.
        let (operations, host) = (operation_times::end_stage()?, host_use::end_stage(self.device)?);
        Ok(Ended { time, memory, host, attention: attention::take_kernels(), operations, course: course.flatten() })
    }

    fn end_memory(self) -> Result<Option<(StageMemory, Option<MemoryCourse>)>> {
        if !self.device.is_gpu() {
            return Ok(None);
        }
        allocator::synchronize()?;
        let memory = allocator::memory()?;
        let course = allocator::end_step()?.and_then(|(_, course)| course);
        // What one stage needed in passing is not held against the next one.
        allocator::empty_cache()?;
        Ok(Some((memory, course)))
    }

    fn failure(self, stage: Stage, error: &Error) -> Event {
        if !error.is_out_of_memory() {
            let memory = if self.device.is_gpu() { allocator::memory().ok() } else { None };
            return other_failure(Some(stage), memory, error);
        }
        let message = error.to_string();
        let memory = allocator::memory().ok();
        Event::OutOfMemory {
            stage,
            requested_bytes: requested_bytes(&message),
            memory,
            parts_at_failure: attribution::parts_at_failure(),
            course: attribution::course_at_failure(),
            message,
        }
    }
}

/// What ends a run in which the GPU's memory did not run out: the host's did, or something else failed.
pub(crate) fn other_failure(stage: Option<Stage>, memory: Option<StageMemory>, error: &Error) -> Event {
    match error {
        Error::HostMemory(shortage) => Event::OutOfHostMemory { stage, memory, shortage: *shortage, message: error.to_string() },
        Error::NotFinite { .. } => {
            let stage_said = stage.map(|stage| format!("{}: ", stage.name())).unwrap_or_default();
            Event::Failed { stage, message: format!("{stage_said}{error}") }
        }
        _ => Event::Failed { stage, message: error.to_string() },
    }
}

/// The bytes that an out-of-memory message of libtorch names, as exact as it prints them: `Tried to allocate 20.00 GiB.`, and over the driver's own pool a line `Requested : 20.00 GiB`.
fn requested_bytes(message: &str) -> Option<u64> {
    let of_pool = || message.lines().find_map(|line| line.strip_prefix("Requested")?.trim_start().strip_prefix(':'));
    let rest = message.split_once("Tried to allocate ").map(|(_, rest)| rest).or_else(of_pool)?;
    let mut words = rest.split_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let unit = match words.next()?.trim_end_matches('.') {
        "bytes" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some((number * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::requested_bytes;

    #[test]
    fn the_size_is_read_from_libtorchs_message() {
        let message = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.65 GiB";
        assert_eq!(requested_bytes(message), Some(3 << 29));
        assert_eq!(requested_bytes("CUDA out of memory. Tried to allocate 512 bytes."), Some(512));
        assert_eq!(requested_bytes("CUDA error: out of memory"), None);
        let of_pool = "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 30.53 GiB\nRequested               : 96.00 MiB\nDevice limit            : 31.36 GiB";
        assert_eq!(requested_bytes(of_pool), Some(96 << 20));
    }
}
