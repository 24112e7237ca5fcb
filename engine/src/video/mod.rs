//! Finished frames: dropped, or kept and written to a file.

mod canvas;
mod gif;

pub use canvas::{Discard, VideoCanvas};
