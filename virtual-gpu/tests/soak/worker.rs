//! One thread of the soak: what it holds, and the random operations by which it comes to hold more or less.

use std::sync::Mutex;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Bazaar, lock};
use crate::library::{DEVICE_TO_HOST, Dim3, HOST_TO_DEVICE, INVALID_HANDLE, INVALID_VALUE, Library, OUT_OF_MEMORY, open};

pub(super) const MIB: u64 = 1 << 20;
const DEVICE_TO_DEVICE: i32 = 3;
const NOT_READY: i32 = 600;
/// What a thread holds of each kind at most.
const MOST: usize = 24;
/// The beginning of a block, which is written and read back.
const BEGINNING: u64 = 256;
/// What is pinned at a time; more than is ever moved.
const PINNED_BYTES: u64 = MIB;

pub(super) struct Libraries {
    pub(super) cudart: Library,
    pub(super) cuda: Library,
    cublas: Library,
    cudnn: Library,
}

impl Libraries {
    pub(super) fn open() -> Self {
        let [cudart, cuda, cublas, cudnn] = ["libcudart.so.13", "libcuda.so.1", "libcublas.so.13", "libcudnn.so.9"].map(open);
        Self { cudart, cuda, cublas, cudnn }
    }

    /// Where the host's clock is.
    pub(super) fn now(&self) -> [f64; 3] {
        let mut secs = [0.0; 3];
        ok(call!(self.cudart, lowmem_virtual_gpu_now(*mut [f64; 3]), &mut secs));
        secs
    }
}

/// What must succeed.
#[track_caller]
pub(super) fn ok(code: i32) {
    assert_eq!(code, 0);
}

/// Whether in no world `a` is before `b`.
pub(super) fn is_later([a, b]: [[f64; 3]; 2]) -> bool {
    a.iter().zip(b).all(|(a, b)| *a >= b)
}

/// Memory of a device.
pub(super) struct Block {
    pub(super) device: i32,
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) is_from_pool: bool,
    /// What every byte of its beginning is.
    filled_with: Option<u8>,
}

impl Block {
    fn beginning(&self) -> u64 {
        self.bytes.min(BEGINNING)
    }
}

/// Memory that was made and mapped by the driver's interface.
pub(super) struct Mapped {
    address: u64,
    pub(super) bytes: u64,
    handle: u64,
}

/// What the library should have counted.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) launches: u64,
    pub(super) to_device: u64,
    pub(super) to_host: u64,
    pub(super) read: u64,
}

/// One thread.
pub(super) struct Worker {
    pub(super) device: i32,
    random: ChaCha8Rng,
    pub(super) counts: Counts,
    pub(super) blocks: Vec<Block>,
    pub(super) mapped: Vec<Mapped>,
    pub(super) streams: Vec<u64>,
    events: Vec<u64>,
    pinned: Vec<u64>,
    registered: Vec<Vec<u8>>,
    /// Handles of cuBLAS, descriptors of cuDNN, modules.
    handles: [Vec<u64>; 3],
    last: [f64; 3],
}

impl Worker {
    pub(super) fn new(device: i32, seed: u64) -> Self {
        Self {
            device,
            random: ChaCha8Rng::seed_from_u64(seed),
            counts: Counts::default(),
            blocks: Vec::new(),
            mapped: Vec::new(),
            streams: Vec::new(),
            events: Vec::new(),
            pinned: Vec::new(),
            registered: Vec::new(),
            handles: [const { Vec::new() }; 3],
            last: [0.0; 3],
        }
    }

    /// One of so many, at random.
    fn one_of(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.random.random_range(0..count))
    }

    /// A stream of its own or the default one.
    fn stream(&mut self) -> u64 {
        let index = self.random.random_range(0..=self.streams.len());
        self.streams.get(index).copied().unwrap_or(0)
    }

    /// One operation.
    pub(super) fn operate(&mut self, it: &Libraries, bazaar: &Mutex<Bazaar>) {
        match self.random.random_range(0..100) {
            0..20 => self.allocate(it),
            20..36 => self.free_one(it),
            36..44 => self.fill(it),
            44..50 => self.read_back(it),
            50..54 => self.copy_on_device(it),
            54..58 => self.move_much(it),
            58..66 => self.use_streams(it),
            66..80 => self.use_events(it, bazaar),
            80..86 => self.launch(it),
            86..90 => self.pin(it),
            90..92 => self.map(it),
            92..94 => self.use_handles(it),
            94..98 => self.trade(bazaar),
            _ => self.be_wrong(it),
        }
        let now = it.now();
        assert!(is_later([now, self.last]), "the clock went back");
        self.last = now;
    }

    fn allocate(&mut self, it: &Libraries) {
        if self.blocks.len() >= MOST {
            return self.free_one(it);
        }
        let bytes = if self.random.random_bool(0.6) { self.random.random_range(1..=MIB) } else { self.random.random_range(MIB..64 * MIB) };
        let (is_from_pool, stream, mut address) = (self.random.random(), self.stream(), 0);
        let code = if is_from_pool {
            call!(it.cudart, cudaMallocAsync(*mut u64, u64, u64), &mut address, bytes, stream)
        } else {
            call!(it.cudart, cudaMalloc(*mut u64, u64), &mut address, bytes)
        };
        if code != OUT_OF_MEMORY {
            ok(code);
            self.blocks.push(Block { device: self.device, address, bytes, is_from_pool, filled_with: None });
        }
    }

    fn free_one(&mut self, it: &Libraries) {
        let Some(index) = self.one_of(self.blocks.len()) else { return };
        let block = self.blocks.swap_remove(index);
        let stream = self.stream();
        if block.is_from_pool && block.device == self.device && self.random.random() {
            ok(call!(it.cudart, cudaFreeAsync(u64, u64), block.address, stream));
        } else {
            ok(call!(it.cudart, cudaFree(u64), block.address));
        }
    }

    fn fill(&mut self, it: &Libraries) {
        let Some(index) = self.one_of(self.blocks.len()) else { return };
        let (stream, value, is_copied) = (self.stream(), self.random.random::<u8>(), self.random.random());
        let block = &mut self.blocks[index];
        let bytes = block.beginning();
        if is_copied {
            let sent = [value; BEGINNING as usize];
            let to = block.address;
            ok(call!(it.cudart, cudaMemcpyAsync(u64, *const u8, u64, i32, u64), to, sent.as_ptr(), bytes, HOST_TO_DEVICE, stream));
            self.counts.to_device += bytes;
        } else {
            ok(call!(it.cudart, cudaMemsetAsync(u64, i32, u64, u64), block.address, value.into(), bytes, stream));
        }
        block.filled_with = Some(value);
    }

    /// What was put at the beginning of a block is there: nothing else lies on it.
    fn read_back(&mut self, it: &Libraries) {
        let Some(index) = self.one_of(self.blocks.len()) else { return };
        let (block, mut back) = (&self.blocks[index], [0_u8; BEGINNING as usize]);
        let bytes = block.beginning();
        ok(call!(it.cudart, cudaMemcpy(*mut u8, u64, u64, i32), back.as_mut_ptr(), block.address, bytes, DEVICE_TO_HOST));
        self.counts.to_host += bytes;
        self.counts.read += 1;
        if let Some(value) = block.filled_with {
            assert!(back[..bytes as usize].iter().all(|&byte| byte == value), "{} bytes at {:#x}", block.bytes, block.address);
        }
    }

    fn copy_on_device(&mut self, it: &Libraries) {
        let Some((from, to)) = self.one_of(self.blocks.len()).zip(self.one_of(self.blocks.len())) else { return };
        let (stream, bytes) = (self.stream(), self.blocks[to].beginning());
        let (source, filled_with) = (self.blocks[from].address, self.blocks[from].filled_with);
        if from != to && self.blocks[from].bytes >= bytes {
            let destination = self.blocks[to].address;
            ok(call!(it.cudart, cudaMemcpyAsync(u64, u64, u64, i32, u64), destination, source, bytes, DEVICE_TO_DEVICE, stream));
            self.blocks[to].filled_with = filled_with;
        }
    }

    /// Between pinned memory and a block, too much to be done.
    fn move_much(&mut self, it: &Libraries) {
        let Some((block, host)) = self.one_of(self.blocks.len()).zip(self.one_of(self.pinned.len())) else { return };
        let (address, bytes) = (self.blocks[block].address, self.blocks[block].bytes.min(PINNED_BYTES));
        if bytes <= 64 << 10 {
            return;
        }
        let (host, stream) = (self.pinned[host], self.stream());
        let copy = |to: u64, from: u64, kind: i32| {
            ok(call!(it.cudart, cudaMemcpyAsync(u64, u64, u64, i32, u64), to, from, bytes, kind, stream));
        };
        match self.random.random_range(0..3) {
            0 => {
                copy(address, host, HOST_TO_DEVICE);
                self.counts.to_device += bytes;
            }
            1 => {
                copy(host, address, DEVICE_TO_HOST);
                self.counts.to_host += bytes;
            }
            _ => ok(call!(it.cudart, cudaMemset(u64, i32, u64), address, 3, bytes)),
        }
    }

    fn use_streams(&mut self, it: &Libraries) {
        let mut stream = self.stream();
        match self.random.random_range(0..10) {
            0..4 if self.streams.len() < MOST => {
                ok(call!(it.cudart, cudaStreamCreateWithPriority(*mut u64, u32, i32), &mut stream, 1, -1));
                self.streams.push(stream);
            }
            4..7 => {
                if let Some(index) = self.one_of(self.streams.len()) {
                    ok(call!(it.cudart, cudaStreamDestroy(u64), self.streams.swap_remove(index)));
                }
            }
            7 => ok(call!(it.cudart, cudaStreamSynchronize(u64), stream)),
            8 => ok(call!(it.cudart, cudaDeviceSynchronize())),
            _ => assert!([0, NOT_READY].contains(&call!(it.cudart, cudaStreamQuery(u64), stream))),
        }
    }

    fn use_events(&mut self, it: &Libraries, bazaar: &Mutex<Bazaar>) {
        let (stream, flags) = (self.stream(), if self.random.random() { 0 } else { 2 });
        let Some(index) = self.one_of(self.events.len()).filter(|_| self.events.len() > MOST / 2 || self.random.random_bool(0.8)) else {
            let mut event = 0;
            ok(call!(it.cudart, cudaEventCreateWithFlags(*mut u64, u32), &mut event, flags));
            return self.events.push(event);
        };
        let event = self.events[index];
        match self.random.random_range(0..10) {
            0 => ok(call!(it.cudart, cudaEventDestroy(u64), self.events.swap_remove(index))),
            1..5 => ok(call!(it.cudart, cudaEventRecord(u64, u64), event, stream)),
            5 => ok(call!(it.cudart, cudaStreamWaitEvent(u64, u64, u32), stream, event, 0)),
            6 => ok(call!(it.cudart, cudaEventSynchronize(u64), event)),
            7 => {
                // One of another thread's, perhaps of another device.
                let chosen = self.random.random::<u32>() as usize;
                let bazaar = lock(bazaar);
                if let Some(&event) = bazaar.events.get(chosen % bazaar.events.len().max(1)) {
                    ok(call!(it.cudart, cudaStreamWaitEvent(u64, u64, u32), stream, event, 0));
                }
            }
            _ => assert!([0, NOT_READY].contains(&call!(it.cudart, cudaEventQuery(u64), event))),
        }
    }

    pub(super) fn launch(&mut self, it: &Libraries) {
        let (stream, one) = (self.stream(), Dim3(1, 1, 1));
        ok(call!(it.cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, one, one, 0, 0, stream));
        self.counts.launches += 1;
    }

    /// A graph of a few kernels on a stream of its own, launched twice. While one is captured nobody may wait for the device.
    pub(super) fn capture(&mut self, it: &Libraries) {
        let (mut stream, mut graph, mut ready, one) = (0, 0, 0, Dim3(1, 1, 1));
        let kernels = self.random.random_range(0..5);
        ok(call!(it.cudart, cudaStreamCreateWithFlags(*mut u64, u32), &mut stream, 1));
        ok(call!(it.cudart, cudaStreamBeginCapture(u64, i32), stream, 0));
        for _ in 0..kernels {
            ok(call!(it.cudart, cudaLaunchKernel(u64, Dim3, Dim3, u64, usize, u64), 1, one, one, 0, 0, stream));
        }
        ok(call!(it.cudart, cudaStreamEndCapture(u64, *mut u64), stream, &mut graph));
        ok(call!(it.cudart, cudaGraphInstantiateWithFlags(*mut u64, u64, u64), &mut ready, graph, 0));
        for _ in 0..2 {
            ok(call!(it.cudart, cudaGraphLaunch(u64, u64), ready, stream));
            self.counts.launches += kernels;
        }
        ok(call!(it.cudart, cudaGraphDestroy(u64), graph));
        ok(call!(it.cudart, cudaGraphExecDestroy(u64), ready));
        ok(call!(it.cudart, cudaStreamDestroy(u64), stream));
    }

    fn pin(&mut self, it: &Libraries) {
        let mut address = 0;
        match self.random.random_range(0..4) {
            0 if self.pinned.len() < MOST => {
                ok(call!(it.cudart, cudaHostAlloc(*mut u64, u64, u32), &mut address, PINNED_BYTES, 0));
                self.pinned.push(address);
            }
            1 => {
                if let Some(index) = self.one_of(self.pinned.len()) {
                    ok(call!(it.cudart, cudaFreeHost(u64), self.pinned.swap_remove(index)));
                }
            }
            2 if self.registered.len() < MOST => {
                let ours = vec![0_u8; self.random.random_range(1..10_000)];
                ok(call!(it.cudart, cudaHostRegister(*const u8, usize, u32), ours.as_ptr(), ours.len(), 0));
                self.registered.push(ours);
            }
            _ => {
                if let Some(index) = self.one_of(self.registered.len()) {
                    let ours = self.registered.swap_remove(index);
                    ok(call!(it.cudart, cudaHostUnregister(*const u8), ours.as_ptr()));
                }
            }
        }
    }

    fn map(&mut self, it: &Libraries) {
        if self.mapped.len() >= MOST || self.random.random() {
            if let Some(index) = self.one_of(self.mapped.len()) {
                let mapped = self.mapped.swap_remove(index);
                unmap(it, &mapped);
            }
            return;
        }
        // `CUmemAllocationProp`: pinned memory of the device.
        let (properties, bytes, mut mapped) =
            ([1, 0, 1, self.device, 0, 0, 0, 0], 2 * MIB * self.random.random_range(1..5), Mapped { address: 0, bytes: 0, handle: 0 });
        match call!(it.cuda, cuMemCreate(*mut u64, u64, *const [i32; 8], u64), &mut mapped.handle, bytes, &properties, 0) {
            OUT_OF_MEMORY => return,
            code => ok(code),
        }
        mapped.bytes = bytes;
        ok(call!(it.cuda, cuMemAddressReserve(*mut u64, u64, u64, u64, u64), &mut mapped.address, bytes, 0, 0, 0));
        ok(call!(it.cuda, cuMemMap(u64, u64, u64, u64, u64), mapped.address, bytes, 0, mapped.handle, 0));
        ok(call!(it.cuda, cuMemSetAccess(u64, u64, u64, u64), mapped.address, bytes, 0, 0));
        self.mapped.push(mapped);
    }

    fn use_handles(&mut self, it: &Libraries) {
        let (kind, mut made) = (self.random.random_range(0..3), 0);
        let handles = &mut self.handles[kind];
        if handles.len() >= MOST || self.random.random() {
            if let Some(handle) = handles.pop() {
                destroy_handle(it, kind, handle);
            }
            return;
        }
        match kind {
            0 => ok(call!(it.cublas, cublasCreate_v2(*mut u64), &mut made)),
            1 => ok(call!(it.cudnn, cudnnCreateTensorDescriptor(*mut u64), &mut made)),
            _ => {
                ok(call!(it.cuda, cuModuleLoadData(*mut u64, *const u8), &mut made, c"".as_ptr().cast()));
                let [mut function, mut again] = [0; 2];
                for function in [&mut function, &mut again] {
                    ok(call!(it.cuda, cuModuleGetFunction(*mut u64, u64, *const u8), function, made, c"kernel".as_ptr().cast()));
                }
                assert_eq!(function, again);
            }
        }
        handles.push(made);
    }

    /// Puts something where other threads find it, or takes what one of them put there.
    fn trade(&mut self, bazaar: &Mutex<Bazaar>) {
        let mut bazaar = lock(bazaar);
        if self.random.random() {
            bazaar.blocks.extend(self.blocks.pop());
            bazaar.events.extend(self.events.pop());
        } else if self.blocks.len() < MOST {
            self.blocks.extend(bazaar.blocks.pop());
        }
    }

    /// What is refused changes nothing.
    fn be_wrong(&mut self, it: &Libraries) {
        let mut address = 0;
        assert_eq!(call!(it.cudart, cudaMalloc(*mut u64, u64), &mut address, 1 << 50), OUT_OF_MEMORY);
        assert_eq!(call!(it.cudart, cudaMallocAsync(*mut u64, u64, u64), &mut address, 1 << 50, 0), OUT_OF_MEMORY);
        assert_eq!(call!(it.cudart, cudaStreamDestroy(u64), 0x90), INVALID_HANDLE);
        if let Some(block) = self.blocks.first().filter(|block| block.bytes > 1) {
            assert_eq!(call!(it.cudart, cudaFree(u64), block.address + 1), INVALID_VALUE);
            let past = block.bytes + (1 << 30);
            assert_eq!(call!(it.cudart, cudaMemset(u64, i32, u64), block.address, 0, past), INVALID_VALUE);
        }
        assert_ne!(call!(it.cudart, cudaGetLastError()), 0);
    }

    /// Gives everything back.
    pub(super) fn release(&mut self, it: &Libraries) {
        ok(call!(it.cudart, cudaSetDevice(i32), self.device));
        while !self.blocks.is_empty() {
            self.free_one(it);
        }
        self.mapped.drain(..).for_each(|mapped| unmap(it, &mapped));
        self.streams.drain(..).for_each(|stream| ok(call!(it.cudart, cudaStreamDestroy(u64), stream)));
        self.events.drain(..).for_each(|event| ok(call!(it.cudart, cudaEventDestroy(u64), event)));
        self.pinned.drain(..).for_each(|pinned| ok(call!(it.cudart, cudaFreeHost(u64), pinned)));
        self.registered.drain(..).for_each(|ours| ok(call!(it.cudart, cudaHostUnregister(*const u8), ours.as_ptr())));
        for (kind, handles) in self.handles.iter_mut().enumerate() {
            handles.drain(..).for_each(|handle| destroy_handle(it, kind, handle));
        }
    }
}

fn unmap(it: &Libraries, mapped: &Mapped) {
    ok(call!(it.cuda, cuMemUnmap(u64, u64), mapped.address, mapped.bytes));
    ok(call!(it.cuda, cuMemRelease(u64), mapped.handle));
    ok(call!(it.cuda, cuMemAddressFree(u64, u64), mapped.address, mapped.bytes));
}

fn destroy_handle(it: &Libraries, kind: usize, handle: u64) {
    match kind {
        0 => ok(call!(it.cublas, cublasDestroy_v2(u64), handle)),
        1 => ok(call!(it.cudnn, cudnnDestroyTensorDescriptor(u64), handle)),
        _ => ok(call!(it.cuda, cuModuleUnload(u64), handle)),
    }
}
