//! Ten thousand random operations from four threads on two devices, after which everything is given back and nothing is left. While it runs the books are held against
//! what the threads hold. `make soak` runs it under a sanitizer, which sees what the books do not.

mod worker;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::{fs, thread};

use worker::{Block, Counts, Libraries, MIB, Worker, is_later, ok};

use crate::library::{Library, in_own_process, passed, with_memory};

const THREADS: u64 = 4;
const DEVICES: i32 = 2;
const OPERATIONS: u64 = 10_000;
/// Operations of a thread from one look at the books to the next.
const LOOKS_AFTER: u64 = 50;
const SEED: u64 = 20_260_731;
/// So little that some requests do not fit.
const MEMORY_BYTES: u64 = 1 << 30;
const CONTEXT_BYTES: u64 = 10 * MIB;
/// Pages of the device, and up to what size requests share one.
const PAGE_BYTES: u64 = 2 * MIB;
const SHARED_BYTES: u64 = MIB;
/// `cudaMemPoolAttr`.
const RELEASE_THRESHOLD: i32 = 4;
const RESERVED: i32 = 5;
const USED: i32 = 7;

/// Where threads leave things for each other.
#[derive(Default)]
struct Bazaar {
    blocks: Vec<Block>,
    events: Vec<u64>,
}

/// All of it. Locks are taken in the order of the fields, those of workers by their index.
struct World {
    it: Libraries,
    workers: Vec<Mutex<Worker>>,
    bazaar: Mutex<Bazaar>,
    /// The host's clock when the books were last looked at.
    last: Mutex<[f64; 3]>,
    /// When it began: an event of each device, and the host's clock before it.
    begin: Vec<(u64, [f64; 3])>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no other thread failed")
}

fn use_device(it: &Libraries, device: i32) {
    ok(call!(it.cudart, cudaSetDevice(i32), device));
}

fn pool_of(cudart: &Library, device: i32) -> u64 {
    let mut pool = 0;
    ok(call!(*cudart, cudaDeviceGetDefaultMemPool(*mut u64, i32), &mut pool, device));
    pool
}

fn pool_holds(cudart: &Library, device: i32, attribute: i32) -> u64 {
    let mut value = 0;
    ok(call!(*cudart, cudaMemPoolGetAttribute(u64, i32, *mut u64), pool_of(cudart, device), attribute, &mut value));
    value
}

/// Bytes in use of the current device.
fn used_bytes(cudart: &Library) -> u64 {
    let (mut free, mut total) = (0, 0);
    ok(call!(*cudart, cudaMemGetInfo(*mut u64, *mut u64), &mut free, &mut total));
    assert_eq!(total, MEMORY_BYTES);
    total - free
}

/// What the pages come to that these blocks lie in.
fn bytes_of_pages<'a>(blocks: impl Iterator<Item = &'a Block>) -> u64 {
    let (shared, own): (Vec<&Block>, Vec<&Block>) = blocks.partition(|block| block.bytes <= SHARED_BYTES);
    let pages: BTreeSet<u64> = shared.iter().map(|block| block.address / PAGE_BYTES).collect();
    pages.len() as u64 * PAGE_BYTES + own.iter().map(|block| block.bytes.next_multiple_of(PAGE_BYTES)).sum::<u64>()
}

impl World {
    fn new() -> Self {
        let it = Libraries::open();
        let begin = (0..DEVICES).map(|device| {
            use_device(&it, device);
            let mut event = 0;
            ok(call!(it.cudart, cudaEventCreate(*mut u64), &mut event));
            let before = it.now();
            ok(call!(it.cudart, cudaEventRecord(u64, u64), event, 0));
            // One device's pool keeps what is freed, the other's gives it back.
            let (pool, mut threshold) = (pool_of(&it.cudart, device), if device == 0 { u64::MAX } else { 0 });
            ok(call!(it.cudart, cudaMemPoolSetAttribute(u64, i32, *mut u64), pool, RELEASE_THRESHOLD, &mut threshold));
            (event, before)
        });
        let begin = begin.collect();
        let workers = (0..THREADS).map(|thread| Mutex::new(Worker::new(thread as i32 % DEVICES, SEED + thread))).collect();
        Self { it, workers, bazaar: Mutex::default(), last: Mutex::default(), begin }
    }

    fn run(&self, thread: usize) {
        use_device(&self.it, lock(&self.workers[thread]).device);
        for step in 1..=OPERATIONS / THREADS {
            lock(&self.workers[thread]).operate(&self.it, &self.bazaar);
            if step % LOOKS_AFTER == 0 {
                self.look(thread);
            }
        }
    }

    /// Holds the books against what the threads hold, all of which stand still meanwhile.
    fn look(&self, thread: usize) {
        let mut workers: Vec<MutexGuard<'_, Worker>> = self.workers.iter().map(lock).collect();
        let bazaar = lock(&self.bazaar);
        workers[thread].capture(&self.it);
        for (device, &(begin, before)) in (0..DEVICES).zip(&self.begin) {
            use_device(&self.it, device);
            let all = || workers.iter().flat_map(|worker| &worker.blocks).chain(&bazaar.blocks).filter(|block| block.device == device);
            let (pooled, plain) = (|| all().filter(|block| block.is_from_pool), || all().filter(|block| !block.is_from_pool));
            let mapped = workers.iter().filter(|worker| worker.device == device).flat_map(|worker| &worker.mapped);
            let reserved = pool_holds(&self.it.cudart, device, RESERVED);
            let live = CONTEXT_BYTES + bytes_of_pages(plain()) + reserved + mapped.map(|mapped| mapped.bytes).sum::<u64>();
            assert_eq!(used_bytes(&self.it.cudart), live, "device {device}");
            assert_eq!(pool_holds(&self.it.cudart, device, USED), pooled().map(|block| block.bytes.next_multiple_of(512)).sum::<u64>());
            assert!(bytes_of_pages(pooled()) <= reserved);

            // Once the host has waited, no stream has come further than it.
            ok(call!(self.it.cudart, cudaDeviceSynchronize()));
            for &stream in workers.iter().filter(|worker| worker.device == device).flat_map(|worker| &worker.streams) {
                let come = self.since(begin, stream);
                let passed = self.it.now().iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>();
                assert!(passed.iter().zip(come).all(|(passed, come)| *passed >= come), "device {device}: {passed:?}, {stream:#x} {come:?}");
            }
        }
        let now = self.it.now();
        assert!(is_later([now, std::mem::replace(&mut lock(&self.last), now)]), "the clock went back");
        use_device(&self.it, workers[thread].device);
    }

    /// How far a stream has come since that event.
    fn since(&self, begin: u64, stream: u64) -> [f64; 3] {
        let (mut event, mut secs) = (0, [0.0; 3]);
        ok(call!(self.it.cudart, cudaEventCreate(*mut u64), &mut event));
        ok(call!(self.it.cudart, cudaEventRecord(u64, u64), event, stream));
        ok(call!(self.it.cudart, lowmem_virtual_gpu_elapsed(u64, u64, *mut [f64; 3]), begin, event, &mut secs));
        ok(call!(self.it.cudart, cudaEventDestroy(u64), event));
        secs
    }

    /// Gives everything back, and says for each device what should have been counted.
    fn release(self) -> Vec<Counts> {
        let Self { it, workers, bazaar, begin, .. } = self;
        let Bazaar { blocks, events } = bazaar.into_inner().expect("no thread failed");
        blocks.iter().for_each(|block| ok(call!(it.cudart, cudaFree(u64), block.address)));
        events.iter().chain(begin.iter().map(|(event, _)| event)).for_each(|&event| ok(call!(it.cudart, cudaEventDestroy(u64), event)));
        let mut counted = vec![Counts::default(); DEVICES as usize];
        for worker in workers {
            let mut worker = worker.into_inner().expect("no thread failed");
            worker.release(&it);
            let (sum, Counts { launches, to_device, to_host, read }) = (&mut counted[worker.device as usize], worker.counts);
            sum.launches += launches;
            sum.to_device += to_device;
            sum.to_host += to_host;
            sum.read += read;
        }
        for device in 0..DEVICES {
            use_device(&it, device);
            ok(call!(it.cudart, cudaDeviceSynchronize()));
            ok(call!(it.cudart, cudaMemPoolTrimTo(u64, usize), pool_of(&it.cudart, device), 0));
            assert_eq!([RESERVED, USED].map(|attribute| pool_holds(&it.cudart, device, attribute)), [0, 0]);
            assert_eq!(used_bytes(&it.cudart), CONTEXT_BYTES);
        }
        counted
    }
}

#[test]
fn after_ten_thousand_operations_of_four_threads_nothing_is_left() {
    let test = "soak::after_ten_thousand_operations_of_four_threads_nothing_is_left";
    let folder = tempfile::tempdir().expect("a folder");
    let profile = with_memory(MEMORY_BYTES, CONTEXT_BYTES);
    for order in ["clock", "eager", "lazy"] {
        let path = folder.path().join(order);
        let environment = [
            ("LOWMEM_VIRTUAL_GPU", profile.as_str()),
            ("LOWMEM_VIRTUAL_GPU_COUNT", "2"),
            ("LOWMEM_VIRTUAL_GPU_EVENTS", order),
            ("LOWMEM_VIRTUAL_GPU_REPORT", path.to_str().expect("a plain path")),
        ];
        let output = in_own_process(test, &environment, || {
            let world = World::new();
            thread::scope(|scope| {
                for thread in 0..THREADS as usize {
                    let world = &world;
                    scope.spawn(move || world.run(thread));
                }
            });
            for Counts { launches, to_device, to_host, read } in world.release() {
                println!("counted {launches} {to_device} {to_host} {read}");
            }
        });
        passed(&output);
        let report: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("a report")).expect("the report is JSON");
        assert_eq!((&report["pinned_left_bytes"], &report["handles_left"]), (&0.into(), &serde_json::json!({})), "{order}");
        assert_ne!(report["pinned_peak_bytes"], 0, "{order}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let counted: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("counted ")).collect();
        assert_eq!(counted.len(), DEVICES as usize, "{said}");
        for (ordinal, counted) in counted.into_iter().enumerate() {
            let device = &report["devices"][ordinal.to_string()];
            let nothing = serde_json::json!({"bytes": 0, "pool_bytes": 0, "reservations": 0, "streams": 0, "events": 0, "graphs": 0});
            assert_eq!(device["left"], nothing, "{order}");
            let found = ["kernel_launches", "h2d_bytes", "d2h_bytes", "values_read"].map(|name| device[name].to_string());
            assert_eq!(found.join(" "), counted, "{order}");
            assert!(device["refusals"]["refused"].as_u64().is_some_and(|refused| refused > 0), "{order}: something did not fit");
            let secs = |value: &serde_json::Value| [0, 1, 2].map(|world| value[world].as_f64().expect("a number"));
            for busy in device["busy_secs"].as_array().expect("a list") {
                assert!(is_later([secs(&device["end_secs"]), secs(busy)]), "{order}");
            }
        }
    }
}
