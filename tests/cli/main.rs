//! The command line as people meet it: what it refuses, what it makes of a worker's end, what it writes.
//!
//! Most of these put a small script in the worker's place (`LOWMEM_WORKER`), which is how faults are made; `real_worker` uses the real one. `on`,
//! `programs`, `caching_allocator`, `event_order`, `distributed` and `beside_nvidia` run Python programs on the virtual GPU.

mod autotune;
mod beside_nvidia;
mod browser;
mod caching_allocator;
mod calibrate;
mod command;
mod compare;
mod disk;
mod dist;
mod distributed;
mod event_order;
mod export;
mod fill_tables;
mod flags;
mod formats;
mod generate;
mod generated;
mod graphs;
mod host_memory;
mod hostile_workers;
mod interrupt;
mod json;
mod kills;
mod kubernetes;
mod live;
mod nesting;
mod not_finite;
mod on;
mod on_report;
mod on_signals;
mod other_packages;
mod page_in_browser;
mod plan;
mod processes;
mod profile;
mod program_peaks;
mod programs;
mod python;
mod readme;
mod real_gpu;
mod real_worker;
mod report;
mod resume;
mod several_gpus;
mod shared_weights;
mod slurm;
mod sweep;
mod validate;
mod weights;
mod whole_files;
mod worker_ends;
mod wrong_input;
