//! Everything that comes from C or goes to it: pointers, strings, address space, the loader.

#[macro_use]
mod exports;

mod loader;
mod mapping;
mod pointers;

pub(crate) use exports::always;
pub(crate) use loader::{at_exit, callers, function_at, is_loaded, own_function};
pub(crate) use mapping::{Mapped, shared_numbers};
pub(crate) use pointers::{
    Address, Given, GivenText, Handle, InOut, Out, OutText, StaticText, Untyped, Versioned, call_host, clear, fill, host_function,
    move_bytes, text,
};
