//! NCCL: tensors that ranks send each other, from GPU to GPU. Its library is opened when ranks first meet; libtorch for CUDA brings it, and has it open.
#![expect(unsafe_code, reason = "calls into NCCL's C interface")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclResult_t, ncclUniqueId};
use libloading::Library;
use tch::{Device, Tensor};

use crate::cuda::{CopyStream, DEVICE, Stream};
use crate::error::{Error, Result};

/// The name that libtorch asks the loader for. cudarc would look for `libnccl.so`, which NVIDIA's wheels do not have.
const LIBRARY: &str = "libnccl.so.2";

/// By what ranks find each other.
pub(crate) type UniqueId = [u8; 128];

/// NCCL's functions that are needed here, as `nccl.h` has them.
struct Nccl {
    get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> ncclResult_t,
    init_rank: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> ncclResult_t,
    send: unsafe extern "C" fn(*const c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> ncclResult_t,
    receive: unsafe extern "C" fn(*mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> ncclResult_t,
    group_start: unsafe extern "C" fn() -> ncclResult_t,
    group_end: unsafe extern "C" fn() -> ncclResult_t,
    error_text: unsafe extern "C" fn(ncclResult_t) -> *const c_char,
    /// Open as long as the program lives, as the functions need it.
    _library: Library,
}

impl Nccl {
    /// The library, which is opened at the first call.
    fn get() -> Result<&'static Self> {
        static OPENED: OnceLock<std::result::Result<Nccl, String>> = OnceLock::new();
        let opened = OPENED.get_or_init(|| {
            // SAFETY: NCCL does nothing as it is loaded, and the types are those of its header.
            unsafe { Self::open() }.map_err(|error| format!("several GPUs need NCCL, and it cannot be opened: {error}"))
        });
        opened.as_ref().map_err(|error| Error::Input(error.clone()))
    }

    /// # Safety
    /// The library is NCCL.
    unsafe fn open() -> std::result::Result<Self, libloading::Error> {
        // SAFETY: as the caller says.
        unsafe {
            let library = Library::new(LIBRARY)?;
            Ok(Self {
                get_unique_id: *library.get(b"ncclGetUniqueId\0")?,
                init_rank: *library.get(b"ncclCommInitRank\0")?,
                send: *library.get(b"ncclSend\0")?,
                receive: *library.get(b"ncclRecv\0")?,
                group_start: *library.get(b"ncclGroupStart\0")?,
                group_end: *library.get(b"ncclGroupEnd\0")?,
                error_text: *library.get(b"ncclGetErrorString\0")?,
                _library: library,
            })
        }
    }

    fn check(&self, what: &str, code: ncclResult_t) -> Result<()> {
        if code == ncclResult_t::ncclSuccess {
            return Ok(());
        }
        // SAFETY: NCCL has a text for every code, which lives as long as the library.
        let text = unsafe { CStr::from_ptr((self.error_text)(code)) }.to_string_lossy();
        Err(Error::Ranks(format!("NCCL: {what}: {text}")))
    }
}

/// What a new group of ranks finds each other by. The rank that makes it listens for the others from then on.
///
/// # Errors
/// A machine without NCCL, and what it says.
pub(crate) fn unique_id() -> Result<UniqueId> {
    let nccl = Nccl::get()?;
    let mut id = ncclUniqueId { internal: [0; 128] };
    // SAFETY: a place for one identifier.
    nccl.check("no identifier", unsafe { (nccl.get_unique_id)(&mut id) })?;
    Ok(id.internal.map(|byte| byte as u8))
}

/// The ranks of a video, as one of them sees them. It stays as long as the program lives: a rank that is gone need not say so.
#[derive(Debug)]
pub(crate) struct Communicator {
    handle: ncclComm_t,
    size: usize,
}

// SAFETY: NCCL lets any thread use a communicator. Calls of several at once could be out of step with those of other ranks, which is an error and no unsafety.
unsafe impl Send for Communicator {}
// SAFETY: as above.
unsafe impl Sync for Communicator {}

impl Communicator {
    /// Joins the ranks that have the same identifier, and waits until all of them have.
    ///
    /// # Errors
    /// What NCCL says.
    pub(crate) fn join(id: UniqueId, rank: usize, size: usize) -> Result<Self> {
        let nccl = Nccl::get()?;
        let id = ncclUniqueId { internal: id.map(|byte| byte as c_char) };
        let mut handle = std::ptr::null_mut();
        // SAFETY: a place for one handle. libtorch has made the device the thread's own.
        nccl.check("ranks do not meet", unsafe { (nccl.init_rank)(&mut handle, size as c_int, id, rank as c_int) })?;
        Ok(Self { handle, size })
    }

    /// Sends tensors to ranks and receives into tensors from ranks, all at once, on the stream that libtorch computes on. Tensors of one pair of ranks go in order.
    ///
    /// No tensor needs `record_stream`: all were allocated for that stream, and what its allocator does with their memory when they go comes after this on it.
    ///
    /// # Errors
    /// A tensor that does not lie on the GPU in one piece, a rank that is not there, and what NCCL says.
    pub(crate) fn exchange(&self, sent: &[(usize, &Tensor)], received: &[(usize, &Tensor)]) -> Result<()> {
        self.exchange_on(Stream::current()?, sent, received)
    }

    /// As [`Communicator::exchange`] in the stream of `copies`, which keeps the tensors until all that was put into it is done.
    ///
    /// # Errors
    /// Those of [`Communicator::exchange`].
    pub(crate) fn exchange_in(&self, copies: &mut CopyStream, sent: &[(usize, &Tensor)], received: &[(usize, &Tensor)]) -> Result<()> {
        sent.iter().chain(received).for_each(|(_, tensor)| copies.keep(tensor));
        self.exchange_on(copies.stream(), sent, received)
    }

    fn exchange_on(&self, stream: Stream, sent: &[(usize, &Tensor)], received: &[(usize, &Tensor)]) -> Result<()> {
        for (rank, tensor) in sent.iter().chain(received) {
            if tensor.device() != Device::Cuda(DEVICE as usize) || !tensor.is_contiguous() {
                return Err(Error::Ranks(format!("a tensor on {:?} cannot be exchanged as it lies", tensor.device())));
            }
            if *rank >= self.size {
                return Err(Error::Ranks(format!("rank {rank} of {}", self.size)));
            }
        }
        let (nccl, stream) = (Nccl::get()?, stream.driver()?.cast());
        let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        // SAFETY: groups may be nested, and this one is ended below, whatever comes between.
        nccl.check("a group", unsafe { (nccl.group_start)() })?;
        let calls = || {
            for (rank, tensor) in sent {
                let (data, count) = (tensor.data_ptr(), bytes(tensor));
                // SAFETY: the tensor has so many bytes on the GPU, which its allocator gives to nothing that does not come after this on the same stream, or it is kept until this is done.
                let code = unsafe { (nccl.send)(data, count, ncclDataType_t::ncclInt8, *rank as c_int, self.handle, stream) };
                nccl.check("nothing is sent", code)?;
            }
            for (rank, tensor) in received {
                let (data, count) = (tensor.data_ptr(), bytes(tensor));
                // SAFETY: as above, and no more bytes than that are written.
                let code = unsafe { (nccl.receive)(data, count, ncclDataType_t::ncclInt8, *rank as c_int, self.handle, stream) };
                nccl.check("nothing is received", code)?;
            }
            Ok(())
        };
        let called = calls();
        // SAFETY: the group that was begun above.
        let ended = nccl.check("a group", unsafe { (nccl.group_end)() });
        called.and(ended)
    }
}
