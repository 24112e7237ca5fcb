//! Checkpoints as people have them on disk: both layouts opened, run against the reference, and refused where something is wrong with them.

mod folder;
mod fuzz;
mod hostile;
mod layouts;
mod refusals;
mod video;
