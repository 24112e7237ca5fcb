//! Checkpoints as people have them on disk: layouts and single files opened, run against the reference, and refused where something is wrong with them.

mod cases;
mod damaged;
mod folder;
mod fuzz;
mod gguf;
mod hostile;
mod image_to_video;
mod in_blocks;
mod layouts;
mod lora;
mod refusals;
mod repackaged;
mod single_files;
mod video;
