//! What a process holds on a device beside what it allocates: its context from the first call on, machine code from the first call of a library on, each stream while it is there, and page tables of page-locked
//! memory. A real driver keeps some of it for later; here what is given back is free at once.

use virtual_gpu_protocol::{GpuProfile, ProcessUse};

use super::capacity::Capacity;
use super::fault::Fault;

/// What takes such memory, now and at most.
#[derive(Debug, Default)]
pub(super) struct ProcessMemory {
    has_context: bool,
    used: ProcessUse,
    most_used: ProcessUse,
}

impl ProcessMemory {
    /// The context comes to be.
    pub(super) fn begin(&mut self, profile: &GpuProfile, capacity: &mut Capacity) -> Result<(), Fault> {
        capacity.hold_for_process(profile.process_bytes(self.used))?;
        self.has_context = true;
        Ok(())
    }

    /// `change` to what is used. Where there is no room for it, nothing changes.
    pub(super) fn change(
        &mut self,
        profile: &GpuProfile,
        capacity: &mut Capacity,
        change: impl FnOnce(&mut ProcessUse),
    ) -> Result<(), Fault> {
        let mut used = self.used;
        change(&mut used);
        if self.has_context && used != self.used {
            capacity.hold_for_process(profile.process_bytes(used))?;
        }
        self.used = used;
        self.most_used = self.most_used.max(used);
        Ok(())
    }

    /// The most that was used.
    pub(super) fn most_used(&self) -> ProcessUse {
        self.most_used
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::tests::with_round_rates;
    use super::*;

    #[test]
    fn what_is_used_is_held_and_given_back() {
        let profile = with_round_rates();
        let context = profile.context_bytes.value;
        let (mut memory, mut capacity) = (ProcessMemory::default(), Capacity::new(context + 10 * profile.stream_bytes.value));
        memory.change(&profile, &mut capacity, |used| used.streams = 1).expect("room");
        assert_eq!(capacity.used_bytes(), 0, "no context yet");
        memory.begin(&profile, &mut capacity).expect("room");
        assert_eq!(capacity.used_bytes(), context + profile.stream_bytes.value);
        assert_eq!(memory.change(&profile, &mut capacity, |used| used.streams = 11), Err(Fault::OutOfMemory));
        assert_eq!(capacity.used_bytes(), context + profile.stream_bytes.value, "as before");
        memory.change(&profile, &mut capacity, |used| used.streams = 10).expect("room");
        memory.change(&profile, &mut capacity, |used| used.streams = 0).expect("less");
        assert_eq!((capacity.used_bytes(), capacity.allocated_bytes()), (context, 0));
        assert_eq!(capacity.process_bytes_at_peak(), context + 10 * profile.stream_bytes.value);
        assert_eq!(memory.most_used().streams, 10);
    }
}
