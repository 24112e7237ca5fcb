//! Memory levels: the same result at every one, and the peaks in the promised order.

mod levels_agree;
mod parts;
mod peak_table;
mod peaks;
mod predicted;
mod staging_order;
