//! What comes from outside, and may be anything: files that a person or a file named, and names and texts that somebody else wrote.
//!
//! A file is opened by [`open`] or [`read`], so that none hangs and none fills memory. A text goes into a message by [`shown`] or [`line`], so that it does
//! nothing to a terminal and stays short. What is in a file, and what is done with it, is not known here.

mod files;
mod text;

pub use files::{is_there, open, place_of, read, read_opened};
pub use text::{SHOWN_CHARS, line, shown};
