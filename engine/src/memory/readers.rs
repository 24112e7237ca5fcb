//! Threads that read parts of groups into memory of the host, in the order in which they are asked to, while others compute.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::weights::GroupParts;

/// So many parts are read at once: a disk answers several questions sooner than one after the other, and one thread alone copies from the system's pages no faster
/// than some disks read.
pub(crate) const READERS: usize = 4;

/// The threads. They end when this goes, after the parts that they are at.
#[derive(Debug)]
pub(super) struct Readers {
    tasks: Option<Sender<Task>>,
    waiting: Arc<Mutex<Receiver<Task>>>,
    threads: Vec<JoinHandle<()>>,
}

/// A part to be read.
struct Task {
    group: Arc<GroupParts>,
    first: i64,
    target: Tensor,
    done: Sender<Result<()>>,
}

/// Parts that were asked for.
#[derive(Debug)]
pub(super) struct Reading {
    done: Receiver<Result<()>>,
    parts: usize,
}

impl Reading {
    /// Waits until all of them have been read.
    pub(super) fn wait(self) -> Result<()> {
        let ended = || Error::Input("a thread that reads weights ended before it was done".into());
        (0..self.parts).try_for_each(|_| self.done.recv().map_err(|_| ended())?)
    }
}

impl Readers {
    /// Starts the threads.
    pub(super) fn start() -> Result<Self> {
        let (tasks, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let start = |number| {
            let waiting = Arc::clone(&waiting);
            let thread = std::thread::Builder::new().name(format!("reader {number}"));
            thread
                .spawn(move || work(&waiting))
                .map_err(|error| Error::Input(format!("no thread could be started that reads weights: {error}")))
        };
        let threads = (0..READERS).map(start).collect::<Result<_>>()?;
        Ok(Self { tasks: Some(tasks), waiting, threads })
    }

    /// Has the slab of `group` read from `first` on into `target`, in parts of so many bytes at most.
    pub(super) fn read(&self, group: &Arc<GroupParts>, first: i64, target: &Tensor, part_bytes: i64) -> Result<Reading> {
        let (sender, done) = mpsc::channel();
        let (bytes, mut parts) = (target.size()[0], 0);
        for offset in (0..bytes).step_by(part_bytes as usize) {
            let target = target.f_narrow(0, offset, part_bytes.min(bytes - offset))?;
            let task = Task { group: Arc::clone(group), first: first + offset, target, done: sender.clone() };
            // Where no thread is left, whoever waits finds that nobody answers.
            let _ = self.tasks.as_ref().map(|tasks| tasks.send(task));
            parts += 1;
        }
        Ok(Reading { done, parts })
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.tasks = None;
        // What nobody waits for any more is not read.
        if let Ok(waiting) = self.waiting.try_lock() {
            while waiting.try_recv().is_ok() {}
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(waiting: &Mutex<Receiver<Task>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { group, first, target, done }) = next else { return };
        let read = group.read(first, &target);
        drop(target);
        // Nobody waits where the stage has ended.
        let _ = done.send(read);
    }
}
