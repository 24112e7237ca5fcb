//! Where this thread is: the stage, the weights that are in use, and libtorch's operation. As a text, stage, weights and purpose stand beside each allocation in
//! PyTorch's memory snapshot; where nobody wants one, no text is written.

use std::cell::RefCell;
use std::ffi::CStr;
use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use engine_protocol::Purpose;

/// Hears of each new label.
static LISTENER: OnceLock<fn(&str)> = OnceLock::new();

/// A place in a run. What is not known of it is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) stage: &'static str,
    pub(super) group: Option<Arc<str>>,
    pub(super) operation: Option<&'static CStr>,
}

thread_local! {
    /// Where this thread is, without its operation.
    static PLACE: RefCell<Place> = const { RefCell::new(Place { stage: "", group: None, operation: None }) };
    /// Operations under way, the innermost last.
    static OPERATIONS: RefCell<Vec<&'static CStr>> = const { RefCell::new(Vec::new()) };
}

/// Has `listener` hear of each new label from here on. Once a process.
pub(crate) fn listen(listener: fn(&str)) {
    // A second one is the same one.
    let _ = LISTENER.set(listener);
}

/// Where this thread is.
pub(super) fn place() -> Place {
    PLACE.with_borrow(|place| Place { operation: operation(), ..place.clone() })
}

/// The innermost operation of this thread.
pub(super) fn operation() -> Option<&'static CStr> {
    OPERATIONS.with_borrow(|operations| operations.last().copied())
}

/// An operation of libtorch's begins.
pub(crate) fn operation_begins(name: &'static CStr) {
    OPERATIONS.with_borrow_mut(|operations| operations.push(name));
}

/// The innermost operation is over.
pub(crate) fn operation_ends() {
    OPERATIONS.with_borrow_mut(Vec::pop);
}

/// What is allocated from here on belongs to that stage.
pub(super) fn in_stage(stage: &'static str, purpose: Purpose) {
    PLACE.set(Place { stage, ..Place::default() });
    tell(purpose);
}

/// Runs `body`, in which a model uses the weights of that group.
pub(super) fn in_group<R>(name: impl Display, purpose: Purpose, body: impl FnOnce() -> R) -> R {
    let before = PLACE.with_borrow_mut(|place| place.group.replace(name.to_string().into()));
    tell(purpose);
    let result = body();
    PLACE.with_borrow_mut(|place| place.group = before);
    tell(purpose);
    result
}

/// The purpose is another one now.
pub(super) fn tell(purpose: Purpose) {
    let Some(listener) = LISTENER.get() else { return };
    let place = place();
    let parts = [place.stage, place.group.as_deref().unwrap_or_default(), purpose.name()];
    listener(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"));
}
