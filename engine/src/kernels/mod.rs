//! Kernels for the GPU that tch has no call for, as functions of tensors.

pub(crate) use crate::cuda::cudnn_attention;
