//! Names of tensors in Wan's own layout, and what the models call them (diffusers' and transformers' names).
//!
//! Facts from Wan-Video/Wan2.1 and Wan2.2 `wan/modules/{model,t5,vae,vae2_2}.py`. A name that is not known stays as it is, so that it is reported.

use super::original_shapes::VaeShapes;

const TRANSFORMER: [(&str, &str); 11] = [
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("head.head", "proj_out"),
    ("head.modulation", "scale_shift_table"),
];

const ATTENTION: [(&str, &str); 9] = [
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("o", "to_out.0"),
    ("norm_q", "norm_q"),
    ("norm_k", "norm_k"),
    ("k_img", "add_k_proj"),
    ("v_img", "add_v_proj"),
    ("norm_k_img", "norm_added_k"),
];

const BLOCK: [(&str, &str); 4] =
    [("norm3", "norm2"), ("ffn.0", "ffn.net.0.proj"), ("ffn.2", "ffn.net.2"), ("modulation", "scale_shift_table")];

const TEXT_ENCODER_LAYER: [(&str, &str); 10] = [
    ("norm1", "layer.0.layer_norm"),
    ("attn.q", "layer.0.SelfAttention.q"),
    ("attn.k", "layer.0.SelfAttention.k"),
    ("attn.v", "layer.0.SelfAttention.v"),
    ("attn.o", "layer.0.SelfAttention.o"),
    ("pos_embedding.embedding", "layer.0.SelfAttention.relative_attention_bias"),
    ("norm2", "layer.1.layer_norm"),
    ("ffn.gate.0", "layer.1.DenseReluDense.wi_0"),
    ("ffn.fc1", "layer.1.DenseReluDense.wi_1"),
    ("ffn.fc2", "layer.1.DenseReluDense.wo"),
];

/// What llama.cpp calls the parts of a layer of T5 (`gguf-py/gguf/tensor_mapping.py`).
const LLAMA_LAYER: [(&str, &str); 10] = [
    ("attn_norm", "layer.0.layer_norm"),
    ("attn_q", "layer.0.SelfAttention.q"),
    ("attn_k", "layer.0.SelfAttention.k"),
    ("attn_v", "layer.0.SelfAttention.v"),
    ("attn_o", "layer.0.SelfAttention.o"),
    ("attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"),
    ("ffn_norm", "layer.1.layer_norm"),
    ("ffn_gate", "layer.1.DenseReluDense.wi_0"),
    ("ffn_up", "layer.1.DenseReluDense.wi_1"),
    ("ffn_down", "layer.1.DenseReluDense.wo"),
];

const RESIDUAL_BLOCK: [(&str, &str); 5] =
    [("residual.0", "norm1"), ("residual.2", "conv1"), ("residual.3", "norm2"), ("residual.6", "conv2"), ("shortcut", "conv_shortcut")];

/// The transformer's name of the tensor that the original calls `name`.
pub(super) fn transformer(name: &str) -> String {
    if let Some((index, rest)) = numbered(name, "blocks.") {
        for (theirs, ours) in [("self_attn.", "attn1"), ("cross_attn.", "attn2")] {
            if let Some(layer) = rest.strip_prefix(theirs).and_then(|rest| renamed(rest, &ATTENTION)) {
                return format!("blocks.{index}.{ours}.{layer}");
            }
        }
        return renamed(rest, &BLOCK).map_or_else(|| name.to_owned(), |layer| format!("blocks.{index}.{layer}"));
    }
    renamed(name, &TRANSFORMER).unwrap_or_else(|| name.to_owned())
}

/// What the original calls the transformer's layer `ours`; nothing where it has none.
pub(super) fn transformer_layer(ours: &str) -> Option<String> {
    let back = |layer: &str, table: &[(&'static str, &str)]| table.iter().find(|(_, ours)| *ours == layer).map(|&(theirs, _)| theirs);
    let Some((index, rest)) = numbered(ours, "blocks.") else { return back(ours, &TRANSFORMER).map(str::to_owned) };
    let attention = [("self_attn", "attn1."), ("cross_attn", "attn2.")];
    if let Some((theirs, layer)) = attention.into_iter().find_map(|(theirs, ours)| Some((theirs, rest.strip_prefix(ours)?))) {
        return Some(format!("blocks.{index}.{theirs}.{}", back(layer, &ATTENTION)?));
    }
    Some(format!("blocks.{index}.{}", back(rest, &BLOCK)?))
}

/// The text encoder's name of the tensor that the original calls `name`.
pub(super) fn text_encoder(name: &str) -> String {
    if let Some((index, rest)) = numbered(name, "blocks.") {
        return renamed(rest, &TEXT_ENCODER_LAYER).map_or_else(|| name.to_owned(), |layer| format!("encoder.block.{index}.{layer}"));
    }
    renamed(name, &[("token_embedding", "shared"), ("norm", "encoder.final_layer_norm")]).unwrap_or_else(|| name.to_owned())
}

/// The text encoder's name of the tensor that llama.cpp calls `name`.
pub(super) fn llama_text_encoder(name: &str) -> String {
    if let Some((index, rest)) = numbered(name, "enc.blk.") {
        return renamed(rest, &LLAMA_LAYER).map_or_else(|| name.to_owned(), |layer| format!("encoder.block.{index}.{layer}"));
    }
    renamed(name, &[("token_embd", "shared"), ("enc.output_norm", "encoder.final_layer_norm")]).unwrap_or_else(|| name.to_owned())
}

/// The VAE's name of the tensor that the original calls `name`.
pub(super) fn vae(name: &str, shapes: &VaeShapes) -> String {
    let ours = match name.split_once('.') {
        Some((half @ ("encoder" | "decoder"), rest)) => vae_half(rest, half == "decoder", shapes).map(|rest| format!("{half}.{rest}")),
        _ => renamed(name, &[("conv1", "quant_conv"), ("conv2", "post_quant_conv")]),
    };
    ours.unwrap_or_else(|| name.to_owned())
}

/// As [`vae`], within the encoder or the decoder.
fn vae_half(name: &str, is_decoder: bool, shapes: &VaeShapes) -> Option<String> {
    if let Some(end) = renamed(name, &[("conv1", "conv_in"), ("head.0", "norm_out"), ("head.2", "conv_out")]) {
        return Some(end);
    }
    if let Some((place, rest)) = numbered(name, "middle.") {
        return Some(match place {
            1 => format!("mid_block.attentions.0.{rest}"),
            _ => format!("mid_block.resnets.{}.{}", place / 2, renamed(rest, &RESIDUAL_BLOCK)?),
        });
    }
    let list = if is_decoder { "upsamples." } else { "downsamples." };
    let blocks = if is_decoder { "up_blocks" } else { "down_blocks" };
    let sampler = if is_decoder { "upsampler" } else { "downsampler" };
    let (place, rest) = numbered(name, list)?;
    // The decoder has one residual block more at each resolution.
    let resnets = shapes.num_res_blocks() + usize::from(is_decoder);
    if shapes.is_residual() {
        let (inner, rest) = numbered(rest, list)?;
        return Some(match renamed(rest, &RESIDUAL_BLOCK) {
            Some(layer) => format!("{blocks}.{place}.resnets.{inner}.{layer}"),
            None => format!("{blocks}.{place}.{sampler}.{rest}"),
        });
    }
    let layer = renamed(rest, &RESIDUAL_BLOCK);
    // The encoder's blocks are one list in both; the decoder's are nested in ours.
    if !is_decoder {
        return Some(format!("{blocks}.{place}.{}", layer.unwrap_or_else(|| rest.to_owned())));
    }
    let (level, inner) = (place / (resnets + 1), place % (resnets + 1));
    Some(match layer {
        Some(layer) => format!("{blocks}.{level}.resnets.{inner}.{layer}"),
        None => format!("{blocks}.{level}.{sampler}s.0.{rest}"),
    })
}

/// `blocks.7.rest` as 7 and `rest`, where `list` is `blocks.`.
fn numbered<'a>(name: &'a str, list: &str) -> Option<(usize, &'a str)> {
    let (index, rest) = name.strip_prefix(list)?.split_once('.')?;
    Some((index.parse().ok()?, rest))
}

/// `name` with its layer renamed as `table` says: the layer is all of it, or all before the last dot.
pub(super) fn renamed(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(theirs, ours)| match name.strip_prefix(theirs)? {
        "" => Some((*ours).to_owned()),
        rest => (rest.starts_with('.') && !rest[1..].contains('.')).then(|| format!("{ours}{rest}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_published_files() {
        assert_eq!(transformer("blocks.3.cross_attn.o.bias"), "blocks.3.attn2.to_out.0.bias");
        assert_eq!(transformer("blocks.3.modulation"), "blocks.3.scale_shift_table");
        assert_eq!(transformer("head.modulation"), "scale_shift_table");
        for layer in [
            "blocks.3.cross_attn.o",
            "blocks.0.self_attn.norm_q",
            "blocks.11.ffn.2",
            "blocks.2.cross_attn.norm_k_img",
            "img_emb.proj.3",
            "text_embedding.0",
            "time_projection.1",
            "head.head",
        ] {
            let ours = transformer(&format!("{layer}.weight"));
            assert_eq!(transformer_layer(ours.strip_suffix(".weight").unwrap()).as_deref(), Some(layer), "back again");
        }
        assert_eq!(transformer("patch_embedding.weight"), "patch_embedding.weight");
        assert_eq!(text_encoder("blocks.23.ffn.gate.0.weight"), "encoder.block.23.layer.1.DenseReluDense.wi_0.weight");
        assert_eq!(text_encoder("norm.weight"), "encoder.final_layer_norm.weight");
        assert_eq!(text_encoder("blocks.0.nonsense"), "blocks.0.nonsense");
    }
}
