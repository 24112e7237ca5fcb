//! What a configuration left to the machine (`auto`), and what that came to, in words.

use engine_protocol::{Config, Fused, ResidentBlocks, StreamFrom};

/// A sentence for each flag that was asked for as `auto` and that is worth one.
pub(crate) fn in_words(asked: &Config, settled: &Config) -> Vec<String> {
    let mut said = Vec::new();
    if let (Some(ResidentBlocks::Auto), Some(ResidentBlocks::Count(count))) = (asked.resident_blocks, settled.resident_blocks) {
        said.push(format!("resident_blocks=auto: {count} blocks stay on the GPU."));
    }
    if settled.stream_from == Some(StreamFrom::File) && asked.stream_from != Some(StreamFrom::File) {
        said.push("stream_from=auto: the weights do not fit into this machine's memory, so each step reads them from their files.".into());
    }
    if asked.fused == Fused::Auto {
        let is_on = settled.fused.is_on();
        said.push(
            if is_on {
                "fused=auto: this GPU has the kernels, and they are used."
            } else {
                "fused=auto: this GPU has none of the kernels, and libtorch's are used."
            }
            .into(),
        );
    }
    said
}
