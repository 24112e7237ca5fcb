//! `lowmem doctor`: what of this machine keeps videos from fitting or makes them slow. `facts` looks, and `checks` judges.

mod checks;
mod facts;

pub(crate) use checks::{Check, State, checks};
pub(crate) use facts::Facts;
