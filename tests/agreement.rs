//! The settings that change where weights live and in which order arithmetic is done, and so nothing, or no more than rounding, of the video.

/// How near to level 0's the latents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// The same bits.
    Bits,
    /// The same bits where the GPU is the CPU itself: the text encoder runs on the CPU, which rounds otherwise than a GPU.
    BitsOnTheCpu,
    /// The same but for rounding: arithmetic goes in another order.
    Rounding,
}

/// Settings that agree with level 0.
pub struct Agreeing {
    /// Each as on a command line.
    pub settings: &'static [&'static str],
    /// How well.
    pub agreement: Agreement,
}

const fn same(settings: &'static [&'static str]) -> Agreeing {
    Agreeing { settings, agreement: Agreement::Bits }
}

const fn on_the_cpu(settings: &'static [&'static str]) -> Agreeing {
    Agreeing { settings, agreement: Agreement::BitsOnTheCpu }
}

const fn rounded(settings: &'static [&'static str]) -> Agreeing {
    Agreeing { settings, agreement: Agreement::Rounding }
}

/// All that are tried.
pub const AGREEING: &[Agreeing] = &[
    same(&["low_mem_level=1", "vae_tiling=false"]),
    on_the_cpu(&["low_mem_level=2", "vae_tiling=false"]),
    rounded(&["low_mem_level=3", "vae_tiling=false"]),
    // Streamed without prefetch, two ahead, and with more buffers than blocks.
    same(&["offload_dit=true", "prefetch_blocks=0"]),
    same(&["offload_dit=true", "prefetch_blocks=2"]),
    same(&["offload_dit=true", "prefetch_blocks=4"]),
    same(&["offload_dit=true", "resident_blocks=2"]),
    same(&["offload_dit=true", "resident_blocks=3"]),
    same(&["offload_dit=true", "pinned_memory=false"]),
    same(&["offload_dit=true", "max_pinned_gib=0.00005"]),
    same(&["offload_dit=true", "stream_from=file"]),
    same(&["offload_dit=true", "stream_from=file", "prefetch_blocks=2", "resident_blocks=1"]),
    // One model at a time, on the device and on the host.
    same(&["load_weights=as_used"]),
    same(&["offload_dit=true", "load_weights=as_used", "resident_blocks=1"]),
    same(&["offload_dit=true", "offload_vae=true", "load_weights=as_used", "stream_from=file"]),
    same(&["offload_vae=true"]),
    on_the_cpu(&["offload_text_encoder=true"]),
    same(&["offload_text_encoder=stream"]),
    rounded(&["guidance_batch=true"]),
    rounded(&["head_chunk=1"]),
    rounded(&["head_chunk=1", "sequence_chunk=5", "guidance_batch=true"]),
    rounded(&["sequence_chunk=5"]),
    rounded(&["fused=true"]),
    rounded(&["fused=true", "head_chunk=1"]),
    rounded(&["fused=true", "head_chunk=1", "sequence_chunk=1"]),
    same(&["activation_offload=true"]),
    same(&["vae_temporal_chunk=3"]),
];
