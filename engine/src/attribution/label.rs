//! What this thread allocates for, as a text: the stage, the weights that are in use, and the purpose. PyTorch's memory snapshot has it beside each allocation. Where
//! nobody wants one, nothing is written.

use std::cell::RefCell;
use std::fmt::{Display, Write};
use std::sync::OnceLock;

use engine_protocol::Purpose;

/// Hears of each new label.
static LISTENER: OnceLock<fn(&str)> = OnceLock::new();

thread_local! {
    /// The stage and the group of this thread.
    static PLACE: RefCell<(&'static str, String)> = const { RefCell::new(("", String::new())) };
}

/// Has `listener` hear of each new label from here on. Once a process.
pub(crate) fn listen(listener: fn(&str)) {
    // A second one is the same one.
    let _ = LISTENER.set(listener);
}

/// What is allocated from here on belongs to that stage.
pub(super) fn in_stage(name: &'static str, purpose: Purpose) {
    if LISTENER.get().is_some() {
        PLACE.with_borrow_mut(|place| *place = (name, String::new()));
        tell(purpose);
    }
}

/// Runs `body`, in which a model uses the weights of that group.
pub(super) fn in_group<R>(name: impl Display, purpose: Purpose, body: impl FnOnce() -> R) -> R {
    if LISTENER.get().is_none() {
        return body();
    }
    let before = PLACE.with_borrow_mut(|place| std::mem::replace(&mut place.1, name.to_string()));
    tell(purpose);
    let result = body();
    PLACE.with_borrow_mut(|place| place.1 = before);
    tell(purpose);
    result
}

/// The purpose is another one now.
pub(super) fn tell(purpose: Purpose) {
    let Some(listener) = LISTENER.get() else { return };
    let label = PLACE.with_borrow(|(stage, group)| {
        let mut label = String::new();
        for part in [stage, group.as_str()] {
            if !part.is_empty() {
                let _ = write!(label, "{part}/");
            }
        }
        label + purpose.name()
    });
    listener(&label);
}
