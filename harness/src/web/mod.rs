//! A small server on a thread of its own: where it listens (`address`), who is let in (`access`), what is asked for (`request`), and the way of an answer (`server`).
//! What is served is not known here.

mod access;
mod address;
mod request;
mod server;

pub(crate) use access::Access;
pub(crate) use address::{Address, Wanted};
pub(crate) use request::Request;
pub(crate) use server::{head, say, send, start};
