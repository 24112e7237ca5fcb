//! FreeCache and MeanCache: a prediction in place of the whole transformer, from what the steps before came to.
//!
//! Note: the formula, as thu-pacman/ChituDiffusion has it (`freecache_core.py` at 0b5bb62, `meancache.py` at f836afa), after MeanCache (arXiv:2601.19961).
//! From the latents before one computed step to those after the last one the video went at a mean velocity, the way over the change of sigma. How far the prediction at the first of the
//! two is off that, over the change of sigma, says how the velocity changes: J. The next prediction is the last computed one less J times the change of sigma of its step. MeanCache
//! has tables of steps that go so (`meancache`). FreeCache finds them: how much the
//! correction comes to, over the prediction, is added up from step to step; where the sum is more than the threshold, the transformer is asked again.
//! All of it are latents, which are on the CPU: nothing is kept on the GPU, and a step that is left out touches none.

use std::collections::VecDeque;

use engine_protocol::{Config, Flexcache};
use tch::{Kind, Tensor};

use super::meancache;
use super::steps::Turn;
use crate::collectives::{Collectives, agreed};
use crate::error::Result;

/// Chitu's `tol` and `max_gap`: how much corrections may come to, and how many steps in a row are left out at most.
const THRESHOLD: f64 = 0.30;
const MOST_IN_A_ROW: u32 = 8;

/// What computed steps came to.
#[derive(Debug)]
pub struct Velocity {
    /// How many computed steps are remembered: FreeCache takes the mean over all of them.
    remembered: usize,
    threshold: f64,
    most_in_a_row: u32,
    computed: VecDeque<Computed>,
    /// Since the last computed step: what corrections add up to, and how many steps were left out.
    drift: f64,
    in_a_row: u32,
}

/// A step that the transformer predicted.
#[derive(Debug)]
struct Computed {
    sigma: f64,
    latents: Tensor,
    prediction: Tensor,
    /// The sigma after it, and the latents.
    after: (f64, Tensor),
}

impl Velocity {
    /// That of `config`, where it goes by it.
    pub fn of(config: &Config) -> Option<Self> {
        let remembered = match config.flexcache {
            Flexcache::Freecache => config.flexcache_order.unwrap_or(1) as usize,
            Flexcache::Meancache => meancache::REMEMBERED,
            _ => return None,
        };
        Some(Self {
            remembered,
            threshold: config.flexcache_threshold.unwrap_or(THRESHOLD),
            most_in_a_row: config.flexcache_interval.map_or(MOST_IN_A_ROW, |interval| interval - 1),
            computed: VecDeque::new(),
            drift: 0.0,
            in_a_row: 0,
        })
    }

    /// What was seen is of no use any more: another transformer goes on, or the video is done.
    pub fn forget(&mut self) {
        self.computed.clear();
        (self.drift, self.in_a_row) = (0.0, 0);
    }

    /// The prediction of a step from sigma `from` to `to`, whose turn it is to do that, where it may stand in place of the transformer's. Where that is asked, the first of `ranks` decides for
    /// all.
    ///
    /// # Errors
    /// libtorch's, and what the ranks say.
    pub fn prediction(&mut self, turn: Turn, [from, to]: [f64; 2], ranks: &dyn Collectives) -> Result<Option<Tensor>> {
        let order = match turn {
            Turn::Extrapolate(order) => order,
            Turn::Ask => self.remembered,
            Turn::Compute | Turn::Reuse | Turn::ReuseParts(_) => return Ok(None),
        };
        let first = self.computed.len().saturating_sub(order);
        let (Some(Computed { sigma, latents, prediction, .. }), Some(last)) = (self.computed.get(first), self.computed.back()) else {
            return Ok(None);
        };
        let (sigma_after, latents_after) = &last.after;
        let change = sigma_after - sigma;
        let mean = (latents_after.f_sub(latents)?).f_div_scalar(change)?;
        let correction = prediction.f_sub(&mean)?.f_mul_scalar((from - to) / change)?;
        if turn != Turn::Ask {
            return Ok(Some(last.prediction.f_add(&correction)?));
        }
        let [drift] = agreed(ranks, &[norm(&correction)? / norm(&last.prediction)?])?[..] else { return Ok(None) };
        // What is not finite is no less than any threshold.
        if !(self.drift + drift <= self.threshold && self.in_a_row < self.most_in_a_row) {
            return Ok(None);
        }
        (self.drift, self.in_a_row) = (self.drift + drift, self.in_a_row + 1);
        Ok(Some(last.prediction.f_add(&correction)?))
    }

    /// That the transformer gave `prediction` for `latents`, from which they came to those `after`, each with its sigma.
    pub fn computed(&mut self, [from, to]: [f64; 2], latents: Tensor, prediction: Tensor, after: &Tensor) {
        if self.computed.len() == self.remembered {
            self.computed.pop_front();
        }
        self.computed.push_back(Computed { sigma: from, latents, prediction, after: (to, after.shallow_clone()) });
        (self.drift, self.in_a_row) = (0.0, 0);
    }
}

fn norm(x: &Tensor) -> Result<f64> {
    Ok(x.f_norm()?.f_to_kind(Kind::Double)?.f_double_value(&[])?)
}
