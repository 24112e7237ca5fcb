//! The most of the machine's memory that a process and all that it starts hold, as the kernel counts it for each (`VmHWM`).

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use host_memory::status_bytes_of;

use crate::children::children_of;

/// How often it is looked. The kernel keeps the peak of a process that lives: only what it gains just before its end is missed.
const INTERVAL: Duration = Duration::from_millis(50);

/// Looks at a process and all that descend from it until it is asked.
#[derive(Debug)]
pub(crate) struct HostPeaks {
    stop: Sender<()>,
    watch: JoinHandle<BTreeMap<u32, u64>>,
}

impl HostPeaks {
    /// Begins to look.
    pub(crate) fn of(process: u32) -> Self {
        let (stop, stopped) = mpsc::channel();
        let watch = thread::spawn(move || {
            let mut peaks = BTreeMap::new();
            loop {
                look(process, &mut peaks);
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return peaks;
                }
            }
        });
        Self { stop, watch }
    }

    /// The peak of each process in bytes.
    pub(crate) fn end(self) -> BTreeMap<u32, u64> {
        drop(self.stop);
        self.watch.join().unwrap_or_default()
    }
}

/// Takes in what is to be seen of the process, of those that were met before, and of all that descend from them.
fn look(process: u32, peaks: &mut BTreeMap<u32, u64>) {
    let mut waiting: Vec<u32> = peaks.keys().copied().chain([process]).collect();
    let mut seen = Vec::new();
    while let Some(process) = waiting.pop() {
        if seen.contains(&process) {
            continue;
        }
        seen.push(process);
        // One that has ended has none.
        if let Some(bytes) = status_bytes_of(process, "VmHWM") {
            let peak = peaks.entry(process).or_default();
            *peak = bytes.max(*peak);
            waiting.extend(children_of(process));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_and_its_child_are_seen() {
        // It says that its child is there, and both wait for the end of their input.
        let script = "exec 3<&0; cat <&3 & echo there; wait";
        let mut shell = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let mut said = [0; 6];
        std::io::Read::read_exact(shell.stdout.as_mut().expect("a pipe"), &mut said).expect("its word");
        let mut peaks = BTreeMap::new();
        look(shell.id(), &mut peaks);
        assert_eq!(peaks.len(), 2);
        assert!(peaks.values().all(|&bytes| bytes > 0));
        drop(shell.stdin.take());
        shell.wait().expect("its end");
        let before = peaks.clone();
        look(shell.id(), &mut peaks);
        assert_eq!(peaks, before, "what was seen stays");
    }
}
