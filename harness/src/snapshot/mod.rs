//! PyTorch's memory snapshots, read as data: the pickle as it streams by (`pickle`), what a dictionary of it is (`parts`), and what was live at the peak (`peak`).

mod parts;
mod peak;
mod pickle;
mod slots;

pub(crate) use peak::{Holder, Peak, peaks};
