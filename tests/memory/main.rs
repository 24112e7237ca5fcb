//! Memory levels: the same result at every one, and the peaks in the promised order.

mod allocators;
mod any_flags;
mod attention_in_8_bits;
mod best_of_all;
mod buffer_order;
mod doubled;
mod flag_effects;
mod from_files;
mod happens_before;
mod host_memory;
mod image_to_video;
mod left_to_the_machine;
mod levels_agree;
mod linear_in_8_bits;
mod low_memory_mode;
mod measured_rows;
mod parts;
mod peak_table;
mod peaks;
mod poisoned_buffers;
mod predicted;
mod ram_table;
mod staging_order;
mod step_cache;
mod sweep;
mod weights_in_blocks;
