//! `libcudnn.so.9`: handles and the backend (graph) interface, which is how PyTorch reaches convolutions and attention.
//! Of the older interface there is what PyTorch still uses.

mod ctc;
mod descriptor;
mod handle;
mod legacy;
mod recurrent;
mod work;
mod workspace;
