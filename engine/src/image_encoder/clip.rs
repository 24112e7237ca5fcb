//! The encoder: a picture in, a hidden state for each patch out, and one for the whole of it.

use engine_protocol::ImageEncoderSpec;
use tch::{Kind, Tensor};

use crate::attribution::operation;
use crate::error::{Error, Result};
use crate::weights::{Group, GroupName, Groups, Weights};

/// Colours of a picture.
const COLOURS: i64 = 3;
/// Mean and deviation of each colour over the pictures that CLIP learnt from, of colours between 0 and 1 (`OPENAI_CLIP_MEAN` and `_STD` in transformers).
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

const EMBEDDINGS: GroupName = GroupName::whole("embeddings");

fn layer(index: u32) -> GroupName {
    GroupName::numbered("layers", index, "")
}

/// A vision encoder, without its weights.
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    pub(super) spec: ImageEncoderSpec,
}

impl ImageEncoder {
    /// An encoder of these shapes.
    pub fn new(spec: &ImageEncoderSpec) -> Self {
        Self { spec: spec.clone() }
    }

    /// Its groups in execution order: the embeddings, then one a layer, all of which have the same layout.
    pub fn groups(spec: &ImageEncoderSpec) -> Vec<Group> {
        let ImageEncoderSpec { hidden_size, intermediate_size, patch_size, .. } = *spec;
        let norm = |group: Group, name: &str| {
            group.param(&format!("{name}.weight"), &[hidden_size]).param(&format!("{name}.bias"), &[hidden_size])
        };
        let embeddings = Group::new(EMBEDDINGS, "vision_model.")
            .param("embeddings.class_embedding", &[hidden_size])
            .param("embeddings.patch_embedding.weight", &[hidden_size, COLOURS, patch_size, patch_size])
            .param("embeddings.position_embedding.weight", &[spec.tokens(), hidden_size]);
        // The name has this misspelling in all checkpoints.
        let mut groups = vec![norm(embeddings, "pre_layrnorm")];
        groups.extend((0..spec.layers_used()).map(|index| {
            let group = norm(Group::new(layer(index), format!("vision_model.encoder.layers.{index}.")), "layer_norm1");
            let projections = ["q_proj", "k_proj", "v_proj", "out_proj"].into_iter();
            let group = projections.fold(group, |group, name| group.linear(&format!("self_attn.{name}"), hidden_size, hidden_size));
            norm(group, "layer_norm2").linear("mlp.fc1", hidden_size, intermediate_size).linear("mlp.fc2", intermediate_size, hidden_size)
        }));
        groups
    }

    /// The hidden states of a picture before the last layer: of the whole of it, then of each patch, row by row.
    ///
    /// # Shapes
    /// `pixels`, as [`normalised`] gives them: `[1, 3, image_size, image_size]`; result, in the weights' type: `[1, tokens, hidden_size]`.
    ///
    /// # Errors
    /// libtorch's, what `groups` ran into, and a picture of another size.
    pub fn forward(&self, groups: &mut impl Groups, pixels: &Tensor) -> Result<Tensor> {
        let spec = &self.spec;
        let sides = pixels.size();
        if sides != [1, COLOURS, spec.image_size, spec.image_size] {
            return Err(Error::Input(format!("a picture is {sides:?}, the image encoder takes [1, 3, {0}, {0}]", spec.image_size)));
        }
        let mut hidden = groups.with(EMBEDDINGS, |w| self.embed(w, pixels))?;
        for index in 0..spec.layers_used() {
            groups.with(layer(index), |w| {
                self.self_attention(w, &mut hidden)?;
                self.mlp(w, &mut hidden)
            })?;
        }
        Ok(hidden)
    }

    /// Patches and the class as tokens, each with its place. Patches do not overlap, so the reference's convolution is a matrix product over their values.
    fn embed(&self, w: &Weights, pixels: &Tensor) -> Result<Tensor> {
        let ImageEncoderSpec { hidden_size, image_size, patch_size, .. } = self.spec;
        let weight = w.get("embeddings.patch_embedding.weight");
        let side = image_size / patch_size;
        let patches = pixels
            .f_to_kind(weight.kind())?
            .f_reshape([1, COLOURS, side, patch_size, side, patch_size])?
            .f_permute([0, 2, 4, 1, 3, 5])?
            .f_reshape([1, side * side, COLOURS * patch_size * patch_size])?;
        let weight = weight.f_reshape([hidden_size, COLOURS * patch_size * patch_size])?;
        let patches = operation(|| Ok(patches.f_linear(&weight, None::<&Tensor>)?))?;
        let class = w.get("embeddings.class_embedding").f_view([1, 1, hidden_size])?;
        let mut tokens = Tensor::f_cat(&[&class, &patches], 1)?;
        let _ = tokens.f_add_(w.get("embeddings.position_embedding.weight"))?;
        self.norm(w, "pre_layrnorm", &tokens)
    }

    /// Adds `attention(norm(hidden))`.
    fn self_attention(&self, w: &Weights, hidden: &mut Tensor) -> Result<()> {
        let normed = self.norm(w, "layer_norm1", hidden)?;
        let heads = |name: &str| -> Result<Tensor> {
            let x = w.linear(&format!("self_attn.{name}"), &normed)?;
            Ok(x.f_unflatten(-1, [self.spec.num_attention_heads, -1])?.f_transpose(1, 2)?)
        };
        let [q, k, v] = [heads("q_proj")?, heads("k_proj")?, heads("v_proj")?];
        let attended = operation(|| Ok(Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, false, None, false)?))?;
        drop((q, k, v));
        let joined = attended.f_transpose(1, 2)?.f_flatten(2, 3)?;
        let _ = hidden.f_add_(&w.linear("self_attn.out_proj", &joined)?)?;
        Ok(())
    }

    /// Adds `fc2(gelu(fc1(norm(hidden))))`.
    fn mlp(&self, w: &Weights, hidden: &mut Tensor) -> Result<()> {
        let mut inner = w.linear("mlp.fc1", &self.norm(w, "layer_norm2", hidden)?)?;
        let _ = inner.f_gelu_("none")?;
        let _ = hidden.f_add_(&w.linear("mlp.fc2", &inner)?)?;
        Ok(())
    }

    fn norm(&self, w: &Weights, name: &str, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (w.get(&format!("{name}.weight")), w.get(&format!("{name}.bias")));
        Ok(x.f_layer_norm(weight.size(), Some(weight), Some(bias), self.spec.layer_norm_eps, false)?)
    }
}

/// Colours between 0 and 1 as CLIP takes them: with mean 0 and deviation 1.
///
/// # Shapes
/// `colours` and result, in fp32 on the CPU: `[1, 3, height, width]`.
///
/// # Errors
/// libtorch's.
pub fn normalised(colours: &Tensor) -> Result<Tensor> {
    let [mean, deviation] =
        [MEAN, DEVIATION].map(|values| Tensor::f_from_slice(&values).and_then(|values| values.f_view([1, COLOURS, 1, 1])));
    Ok(colours.f_to_kind(Kind::Float)?.f_sub(&mean?)?.f_div(&deviation?)?)
}
