//! Why an operation is refused.

/// Why an operation was refused. Each library has its own code for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A null pointer, a size of zero where none may be, an address that was never handed out.
    InvalidValue,
    /// The device has not enough memory left.
    OutOfMemory,
    /// The driver's interface was used before `cuInit`.
    NotInitialised,
    /// This process has no virtual GPU.
    NoDevice,
    /// The ordinal of a device that does not exist.
    InvalidDevice,
    /// A stream, event or descriptor that does not exist or was destroyed.
    InvalidHandle,
    /// Host memory that is pinned already.
    AlreadyRegistered,
    /// Host memory that was never pinned.
    NotRegistered,
    /// A copy of a kind that does not exist.
    InvalidDirection,
    /// A launch without its configuration.
    MissingConfiguration,
    /// A symbol that no loaded module has.
    InvalidSymbol,
    /// Peer access between devices that have none.
    PeerAccess,
    /// Peer access that was enabled before.
    PeerAccessEnabled,
    /// Something that the virtual GPU does not do.
    NotSupported,
    /// Waiting for a stream that is being captured, or capturing the default stream.
    NotWhileCapturing,
    /// A capture that was spoilt.
    CaptureBroken,
    /// A capture that is ended on another stream than it began on.
    CaptureUnmatched,
    /// A capture that is ended while another stream of it has something left that the first one does not come after.
    CaptureUnjoined,
    /// What is captured would have to wait for something that is not.
    CaptureIsolation,
    /// A question about an event that was last recorded in a capture.
    CapturedEvent,
    /// Ending what never began, beginning what was begun.
    IllegalState,
    /// Work that is not over yet.
    NotReady,
}
