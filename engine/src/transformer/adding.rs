//! The last product of a part of a block, and how what it makes is added to the hidden state.
//!
//! Note: what is added in the product.
//! A part adds g (W a + b): a gate, for each channel, times a linear layer. Made first and added then, it is written, read again, and the hidden state read and written beside it. A
//! product can begin its sums with what is there instead: hidden + (g W) a, which is one product with other weights. They are made once a pass, in the type of arithmetic: what that
//! rounds, the result is not rounded for. g b is the same for every token. It is left to whoever reads the hidden state next: norms add it to what they read, and the next part
//! that is made first and added then adds it too. So the hidden state is rounded as often as without.
//!
//! The weights times the gate need memory of their own, and to make them moves as many bytes as they save for so many tokens as the layer has inputs. So only videos of twice as many tokens
//! have them, and only where they fit into what self-attention holds in any case: see [`has_gated_weights`]. Without a gate nothing is made. Self-attention's own last product stays apart, since its gated
//! weights would lie beside all keys and values.

use tch::{Kind, Tensor};

use super::modulated::Modulated;
use super::pass_cache::{PassCache, Told};
use super::slices::slice;
use super::timestep::ByToken;
use crate::error::Result;
use crate::kernels::add_linear;
use crate::weights::Weights;

/// Which last products of a pass begin with the hidden state, where no cache asks what they make.
#[derive(Debug, Clone, Copy)]
pub(super) struct InProducts {
    /// That of cross-attention.
    pub(super) ungated: bool,
    /// That of feed-forward, with weights that are gated for it.
    pub(super) gated: bool,
}

/// How much of what a part makes is added.
#[derive(Clone, Copy)]
pub(super) enum Gate<'a> {
    /// All of it.
    None,
    /// Each token's own share.
    ByToken(&'a ByToken<Modulated>),
}

/// The last product of a part.
pub(super) struct Adding<'a> {
    product: Product<'a>,
    /// What was still to be added to each token before it, `[dim]`.
    left: Option<&'a Tensor>,
}

enum Product<'a> {
    /// It begins with the hidden state, and is without its bias. Where there is a gate, the gated weight is made when it is first used.
    Begun { weight: &'a Tensor, bias: &'a Tensor, gate: Option<&'a Tensor>, gated: Option<Tensor> },
    /// It is the layer of that name, whose result is added then.
    Apart { w: &'a Weights, layer: &'static str, gate: Gate<'a> },
}

impl<'a> Adding<'a> {
    /// Of the linear layer `layer`, made first and added then.
    pub(super) fn apart(w: &'a Weights, layer: &'static str, gate: Gate<'a>, left: Option<&'a Tensor>) -> Self {
        Self { product: Product::Apart { w, layer, gate }, left }
    }

    /// Of the linear layer `layer`, in the product where `in_products` has that.
    pub(super) fn new(
        in_products: InProducts,
        w: &'a Weights,
        layer: &'static str,
        gate: Gate<'a>,
        left: Option<&'a Tensor>,
        told: &Told<'_, impl PassCache>,
    ) -> Self {
        let gate_of_all = match gate {
            Gate::None if in_products.ungated => Some(None),
            Gate::ByToken(step) if in_products.gated => step.only().map(|step| Some(&step.gate)),
            _ => None,
        };
        let Some(gate) = gate_of_all.filter(|_| !told.is_of_use()) else {
            return Self::apart(w, layer, gate, left);
        };
        let [weight, bias] = w.weight_and_bias(layer);
        Self { product: Product::Begun { weight, bias, gate, gated: None }, left }
    }

    /// Adds what the layer makes of `x` to the tokens of `hidden` from `start` on.
    ///
    /// # Errors
    /// libtorch's, the cache's, and those of our kernels.
    pub(super) fn add(&mut self, hidden: &Tensor, start: i64, x: Tensor, told: &mut Told<'_, impl PassCache>) -> Result<()> {
        let mut part = slice(hidden, start, x.size()[1])?;
        match &mut self.product {
            Product::Begun { weight, gate, gated, .. } => {
                let Some(gate) = gate else { return add_linear(&part, &x, weight) };
                let made = match gated.take() {
                    Some(made) => made,
                    None => {
                        let room = Tensor::f_empty(weight.size(), (weight.kind(), weight.device()))?;
                        let _ = weight.f_mul_out(&room, &gate.f_unsqueeze(1)?)?;
                        room
                    }
                };
                add_linear(&part, &x, gated.insert(made))
            }
            Product::Apart { w, layer, gate } => {
                let out = w.linear(layer, &x)?;
                drop(x);
                told.of(start, &out)?;
                match gate {
                    Gate::ByToken(step) => step.add_gated(hidden, start, &out, self.left),
                    Gate::None => {
                        let _ = part.f_add_(&out)?;
                        settle(&part, self.left)
                    }
                }
            }
        }
    }

    /// What is still to be added to each token when it has added what it makes to all, in the type of arithmetic.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn left(self) -> Result<Option<Tensor>> {
        let Product::Begun { bias, gate, .. } = self.product else { return Ok(None) };
        let mut all = bias.f_to_dtype(Kind::Float, false, true)?;
        if let Some(gate) = gate {
            let _ = all.f_mul_(gate)?;
        }
        settle(&all, self.left)?;
        Ok(Some(all.f_to_kind(bias.kind())?))
    }
}

/// Adds what is left to each token of `hidden`.
///
/// # Errors
/// libtorch's.
pub(super) fn settle(hidden: &Tensor, left: Option<&Tensor>) -> Result<()> {
    if let Some(left) = left {
        let _ = hidden.shallow_clone().f_add_(left)?;
    }
    Ok(())
}

/// Whether the gated weights of a layer of so many inputs and outputs are made, for so many tokens of all videos and of each slice of them, where self-attention holds `held` numbers beside
/// the hidden state.
pub(super) fn has_gated_weights([inputs, outputs]: [i64; 2], [tokens, slice]: [i64; 2], held: i64) -> bool {
    // Half of what they save is left then.
    let is_worth_it = tokens >= 2 * inputs;
    // In one slice they come when its norm has gone, in place of a result that is as large. Else they are there with each slice's norm and what the layer takes.
    let fits = slice == tokens || inputs * outputs + slice * (inputs + outputs) <= held;
    is_worth_it && fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gated_weights_are_made_where_they_are_worth_it_and_fit() {
        let layer = [8, 4];
        let [few, enough] = [15, 16].map(|tokens| has_gated_weights(layer, [tokens, tokens], 0));
        assert_eq!([few, enough], [false, true], "worth it");
        // 32 of the weights, 12 for each token of a slice.
        let [below, at] = [55, 56].map(|held| has_gated_weights(layer, [100, 2], held));
        assert_eq!([below, at], [false, true], "beside two tokens");
    }
}
