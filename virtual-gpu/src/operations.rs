//! The operations that a program is in, as an observer tells them: what a kernel that says nothing of itself belongs to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Mutex;

use crate::device::{Device, KernelWork, Span, Track, lock};
use crate::environment::is_reported;
use crate::ffi::{GivenText, callers, function_at};

/// An operation that a thread is in.
struct Frame {
    name: GivenText<'static>,
    /// The first kernel that was launched in it: its device, its stream and when it begins.
    first: Option<(&'static Device, u64, Span)>,
    /// Whether a library did its work, which says itself what it is.
    is_known: bool,
}

thread_local! {
    static FRAMES: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// This thread is in an operation of that name from here on.
pub(crate) fn begin(name: GivenText<'static>) {
    FRAMES.with_borrow_mut(|frames| frames.push(Frame { name, first: None, is_known: false }));
}

/// Work was put on a stream of `device`; `when` has its beginning and its end, and is empty where it was captured.
pub(crate) fn launched(device: &'static Device, stream: u64, work: KernelWork, when: Option<[Span; 2]>) {
    let is_known = work.kind.is_some();
    FRAMES.with_borrow_mut(|frames| match frames.last_mut() {
        Some(frame) => {
            let [begins, _] = when.unwrap_or_default();
            frame.first.get_or_insert((device, stream, begins));
            frame.is_known |= is_known;
        }
        None => {
            if let Some([begins, ends]) = when {
                device.timeline.note(device.ordinal, Track::Stream(stream), work.label(), begins, ends);
            }
        }
    });
}

/// The innermost operation of this thread is over, and was `work`.
pub(crate) fn end(work: KernelWork) {
    let Some(Frame { name, first: Some((device, stream, begins)), is_known }) = FRAMES.with_borrow_mut(Vec::pop) else { return };
    if !is_known && work.kind.is_some() {
        device.explain(stream, work);
    }
    if device.timeline.is_on() {
        let ends = device.clock().end_of(stream);
        device.timeline.note(device.ordinal, Track::Stream(stream), &name.get().unwrap_or_default(), begins, ends);
    }
}

/// The operation that this thread is in, the outermost one: as an observer tells it, else as libtorch's functions on the stack are called.
pub(crate) fn running_operation() -> Option<String> {
    if !is_reported() {
        return None;
    }
    let told = FRAMES.with_borrow(|frames| frames.first().and_then(|frame| frame.name.get()));
    let name = told.or_else(called_operation)?;
    // What people call it.
    Some(match name.strip_prefix("aten::").unwrap_or(&name) {
        "_local_scalar_dense" => "item".to_owned(),
        name => name.to_owned(),
    })
}

/// Whether this thread is in PyTorch's attention that keeps its score matrix. Observers are not told of it: it is made of other operations.
pub(crate) fn holds_score_matrix() -> bool {
    const NAME: &str = "_scaled_dot_product_attention_math";
    is_reported() && called_operations(|name| (name == NAME).then_some(())).is_some()
}

/// Whether this thread is in an operation of PyTorch that reads what its own kernels have computed: how many elements it found, or whether an algorithm failed. What stands
/// there is left from before.
pub(crate) fn reads_own_results() -> bool {
    const NAMES: [&str; 8] =
        ["_coalesce", "_linalg_check_errors", "_unique2", "equal", "masked_select", "nonzero", "unique_consecutive", "unique_dim"];
    is_reported() && called_operations(|name| NAMES.contains(&name).then_some(())).is_some()
}

fn called_operation() -> Option<String> {
    called_operations(|name| Some(name.to_owned()))
}

/// What `wanted` makes of the outermost operation on the stack of which it makes something.
fn called_operations<T>(wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
    /// By where the function goes on: asking the loader takes long.
    static KNOWN: Mutex<Option<HashMap<u64, Option<String>>>> = Mutex::new(None);
    let callers = callers();
    let mut known = lock(&KNOWN);
    let known = known.get_or_insert_default();
    let find = |address: u64| operation_in(&function_at(address)?).map(str::to_owned);
    callers.into_iter().rev().find_map(|address| wanted(known.entry(address).or_insert_with(|| find(address)).as_deref()?))
}

/// The operation that a function of libtorch calls: `at::_ops::NAME::call(...)`, as C++ writes it for the linker.
fn operation_in(function: &str) -> Option<&str> {
    let rest = function.strip_prefix("_ZN2at4_ops")?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
    let (name, rest) = rest[digits..].split_at_checked(rest[..digits].parse().ok()?)?;
    rest.starts_with("4call").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::operation_in;

    #[test]
    fn an_operation_is_known_by_the_function_that_calls_it() {
        assert_eq!(operation_in("_ZN2at4_ops7nonzero4callERKNS_6TensorE"), Some("nonzero"));
        assert_eq!(operation_in("_ZN2at4_ops19_local_scalar_dense4callERKNS_6TensorE"), Some("_local_scalar_dense"));
        for other in
            ["_ZN2at4_ops7nonzero10redispatchEN3c10E", "_ZN2at6native7nonzeroE", "_ZN2at4_ops99nonzero4call", "_ZN2at4_ops", "main"]
        {
            assert_eq!(operation_in(other), None, "{other}");
        }
    }
}
