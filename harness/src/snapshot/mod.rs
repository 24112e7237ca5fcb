//! PyTorch's memory snapshots, read as data: the pickle as it streams by (`pickle`), what a dictionary of it is (`parts`), how memory went (`history`), what was live at the peak (`peak`), and what
//! there is at the end (`segments`).

mod history;
mod parts;
mod peak;
mod pickle;
mod segments;
mod slots;

pub(crate) use peak::{Holder, Peak, StackHolder, peaks};
