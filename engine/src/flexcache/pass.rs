//! What a pass of the transformer adds in place of the blocks that it leaves out, and what it keeps for those after it.

use std::sync::Arc;

use engine_protocol::{Config, Flexcache, ModelSpec, Transfers};
use tch::{Kind, Tensor};

use super::kept::{Crossing, Kept, differences, kept_parts, tensors_of_a_pass, waits_on_host};
use super::steps::{Turn, first_block_threshold};
use super::teacache::size;
use crate::collectives::{Alone, Group, summed};
use crate::error::Result;
use crate::transformer::{Part, PassCache};
use crate::weights::LeftOut;

/// Nothing is on the host that is needed: it is written alone.
const WRITES: Crossing = Crossing { reads: false, writes: true };
const READS: Crossing = Crossing { reads: true, writes: false };
const CHANGES: Crossing = Crossing { reads: true, writes: true };

/// A cache of sampler steps: what it has kept of each pass of guidance.
#[derive(Debug)]
pub struct StepCache {
    method: Flexcache,
    on_host: bool,
    tensors: usize,
    /// How many of them are kept of one thing.
    differences: usize,
    threshold: f64,
    /// Of BlockDance.
    block: u32,
    layers: u32,
    /// Those that have parts of the same hidden states.
    ranks: Group,
    /// Cond and uncond; the first alone where both are one pass.
    branches: [Branch; 2],
    transfers: Transfers,
}

/// What is kept of one pass.
#[derive(Debug, Default)]
struct Branch {
    kept: Kept,
    /// The step that was computed last, where what is kept is of it.
    computed: Option<usize>,
    /// TaylorSeer: how many of the tensors mean something.
    known: usize,
    /// And how far the last two computed steps are apart.
    distance: usize,
}

impl StepCache {
    /// The cache of `config`, with nothing kept; none where it has none.
    pub fn of(config: &Config, model: &ModelSpec) -> Option<Self> {
        Some(Self {
            method: config.flexcache,
            on_host: waits_on_host(config),
            tensors: tensors_of_a_pass(config, model)?,
            differences: differences(config),
            threshold: first_block_threshold(config),
            block: config.flexcache_block.unwrap_or(0),
            layers: model.transformer.num_layers as u32,
            ranks: Arc::new(Alone),
            branches: [Branch::default(), Branch::default()],
            transfers: Transfers::default(),
        })
    }

    /// The same for one of `ranks`, each of which has a part of the hidden states and decides as the others do.
    #[must_use]
    pub fn with_ranks(self, ranks: Group) -> Self {
        Self { ranks, ..self }
    }

    /// What was kept is of no use any more: another transformer goes on. Its memory serves that.
    pub fn forget(&mut self) {
        self.branches.iter_mut().for_each(|branch| (branch.computed, branch.known) = (None, 0));
    }

    /// Gives its memory back.
    pub fn release(&mut self) {
        self.branches = [Branch::default(), Branch::default()];
    }

    /// What crossed between host and device since this was asked last.
    pub fn take_transfers(&mut self) -> Transfers {
        std::mem::take(&mut self.transfers)
    }

    /// One pass of guidance of `step`, whose turn it is to do that.
    pub fn pass(&mut self, branch: usize, step: usize, turn: Turn) -> Pass<'_> {
        let has_kept = self.branches[branch].computed.is_some();
        // Without anything kept there is nothing to reuse: an earlier attempt at this step was at another memory level, for example.
        let turn = if has_kept { turn } else { Turn::Compute };
        Pass { cache: self, branch, step, turn, reused: false }
    }
}

/// One pass. The transformer tells it how far it is.
#[derive(Debug)]
pub struct Pass<'a> {
    cache: &'a mut StepCache,
    branch: usize,
    step: usize,
    turn: Turn,
    reused: bool,
}

impl Pass<'_> {
    /// Weights of blocks that it is known to leave out before it begins.
    pub fn left_out(&self) -> LeftOut {
        let numbers = match (self.turn, self.cache.method) {
            (Turn::Reuse, Flexcache::Blockdance) => 0..self.cache.block + 1,
            (Turn::Reuse, Flexcache::Firstblock) => 1..self.cache.layers,
            (Turn::Reuse, _) => 0..self.cache.layers,
            (Turn::Compute | Turn::Ask | Turn::ReuseParts(_) | Turn::Extrapolate(_), _) => 0..0,
        };
        // With the weights of self-attention comes the modulation, which is needed in any case.
        let parts = [Part::CrossAttention, Part::FeedForward].into_iter().filter(|&part| self.leaves_out(part)).map(Part::name);
        LeftOut { numbers, parts: parts.collect() }
    }

    /// Whether it left blocks out.
    pub fn has_reused(&self) -> bool {
        self.reused
    }

    fn each(
        &mut self,
        places: &[usize],
        crossing: Crossing,
        hidden: &Tensor,
        change: impl FnMut(&mut [Tensor], &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        self.each_from(0, places, crossing, hidden, change)
    }

    /// As `each`, of the tokens from `start` on.
    fn each_from(
        &mut self,
        start: i64,
        places: &[usize],
        crossing: Crossing,
        hidden: &Tensor,
        change: impl FnMut(&mut [Tensor], &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        self.cache.branches[self.branch].kept.each(places, crossing, start, hidden, &mut self.cache.transfers, change)
    }

    /// The first of the tensors that are kept of a part of a block; none where nothing is.
    fn place_of(&self, block: u32, part: Part) -> Option<usize> {
        let parts = kept_parts(self.cache.method);
        let place = parts.iter().position(|&kept| kept == part)?;
        Some((block as usize * parts.len() + place) * self.cache.differences)
    }

    /// Of what a part of a block gives or is given, the tokens of which something is kept: all but padding.
    fn kept_of(&self, start: i64, x: &Tensor) -> Result<Option<Tensor>> {
        let tokens = x.size()[1].min(self.cache.branches[self.branch].kept.tokens() - start);
        Ok(if tokens > 0 { Some(x.f_narrow(1, 0, tokens)?) } else { None })
    }

    /// Writes `hidden` with its sign turned, for what comes of it to be added.
    fn keep_input(&mut self, place: usize, hidden: &Tensor) -> Result<()> {
        self.each(&[place], WRITES, hidden, |kept, hidden| {
            kept[0].f_copy_(hidden)?;
            let _ = kept[0].f_neg_()?;
            Ok(())
        })
    }

    /// Adds `hidden`: what is there is what was added to the input.
    fn keep_output(&mut self, place: usize, hidden: &Tensor) -> Result<()> {
        self.each(&[place], CHANGES, hidden, |kept, hidden| {
            let _ = kept[0].f_add_(hidden)?;
            Ok(())
        })
    }

    /// Adds what is kept to `hidden`.
    fn add(&mut self, place: usize, hidden: &Tensor) -> Result<()> {
        self.reused = true;
        self.each(&[place], READS, hidden, |kept, hidden| {
            let _ = hidden.f_add_(&kept[0])?;
            Ok(())
        })
    }

    /// Adds what TaylorSeer makes of what is kept: the sum of the differences, each with the distance to its power over the faculty of that.
    fn add_extrapolated(&mut self, hidden: &Tensor) -> Result<()> {
        self.reused = true;
        let (factors, places) = (self.factors(), self.known_from(0));
        self.each(&places, READS, hidden, |kept, hidden| {
            kept.iter().zip(&factors).try_for_each(|(difference, &factor)| {
                let _ = hidden.f_add_(&difference.f_mul_scalar(factor)?)?;
                Ok(())
            })
        })
    }

    /// TaylorSeer: by what each difference is multiplied at this step.
    fn factors(&self) -> Vec<f64> {
        let branch = &self.cache.branches[self.branch];
        let distance = (self.step - branch.computed.unwrap_or(self.step)) as f64;
        let next = |factor: &mut f64, order: usize| {
            *factor *= if order == 0 { 1.0 } else { distance / order as f64 };
            Some(*factor)
        };
        (0..branch.known).scan(1.0, next).collect()
    }

    /// The places of those differences that mean something.
    fn known_from(&self, place: usize) -> Vec<usize> {
        (place..place + self.cache.branches[self.branch].known).collect()
    }

    /// The differences anew, of the newest residual, which is in the last place: each is the next lower one less what that was, over the distance.
    fn keep_differences(&mut self, hidden: &Tensor) -> Result<()> {
        let last = self.cache.tensors - 1;
        self.keep_output(last, hidden)?;
        let branch = &mut self.cache.branches[self.branch];
        branch.kept.last_first();
        let distance = branch.distance as f64;
        let older = branch.known.min(last);
        if older > 0 && distance > 0.0 {
            let places: Vec<usize> = (0..=older).collect();
            self.each(&places, CHANGES, hidden, |kept, _| take_differences(kept, distance))?;
        }
        self.knows_one_more();
        Ok(())
    }

    fn knows_one_more(&mut self) {
        let branch = &mut self.cache.branches[self.branch];
        branch.known = (branch.known + 1).min(self.cache.differences);
    }

    /// The differences anew of what a part of a block gives.
    fn keep_differences_of_part(&mut self, place: usize, start: i64, given: &Tensor) -> Result<()> {
        let (known, distance) = {
            let branch = &self.cache.branches[self.branch];
            (branch.known.min(self.cache.differences - 1), branch.distance as f64)
        };
        let places: Vec<usize> = (place..=place + known).collect();
        let crossing = if known == 0 { WRITES } else { CHANGES };
        self.each_from(start, &places, crossing, given, |kept, given| {
            for later in (1..kept.len()).rev() {
                let [before, after] = [later - 1, later].map(|place| kept[place].shallow_clone());
                after.shallow_clone().f_copy_(&before)?;
            }
            kept[0].f_copy_(given)?;
            take_differences(kept, distance)
        })
    }

    /// Whether the first block adds nearly what it added when all blocks were computed last.
    fn is_near(&mut self, hidden: &Tensor) -> Result<bool> {
        let mut sums = [0.0; 2];
        self.each(&[0, 2], READS, hidden, |kept, _| {
            let (before, now) = (kept[0].f_to_kind(Kind::Float)?, kept[1].f_to_kind(Kind::Float)?);
            sums[0] += size(&now.f_sub(&before)?)?;
            sums[1] += size(&before)?;
            Ok(())
        })?;
        // One decision for all ranks that have parts of the hidden state.
        let [change, before] = summed(self.cache.ranks.as_ref(), sums)?;
        Ok(change <= self.cache.threshold * before)
    }

    /// Makes room, where there is none that fits.
    fn make_room(&mut self, hidden: &Tensor) -> Result<()> {
        let (tensors, on_host) = (self.cache.tensors, self.cache.on_host);
        let branch = &mut self.cache.branches[self.branch];
        if !branch.kept.fits(hidden) {
            *branch = Branch::default();
            branch.kept = Kept::like(hidden, tensors, on_host)?;
        }
        Ok(())
    }
}

impl PassCache for Pass<'_> {
    fn begin(&mut self, hidden: &Tensor) -> Result<u32> {
        let (method, layers, block) = (self.cache.method, self.cache.layers, self.cache.block);
        self.reused |= matches!(self.turn, Turn::ReuseParts(_));
        if self.turn == Turn::Reuse {
            match method {
                Flexcache::None
                | Flexcache::Freecache
                | Flexcache::Meancache
                | Flexcache::Firstblock
                | Flexcache::Pab
                | Flexcache::TaylorseerModules => {}
                Flexcache::Teacache | Flexcache::Magcache => {
                    self.add(0, hidden)?;
                    return Ok(layers);
                }
                Flexcache::Taylorseer => {
                    self.add_extrapolated(hidden)?;
                    return Ok(layers);
                }
                Flexcache::Blockdance => {
                    self.reused = true;
                    self.each(&[0], READS, hidden, |kept, hidden| Ok(hidden.f_copy_(&kept[0])?))?;
                    return Ok(block + 1);
                }
            }
        }
        self.make_room(hidden)?;
        let last = self.cache.tensors - 1;
        let branch = &mut self.cache.branches[self.branch];
        if self.turn == Turn::Compute {
            // Until the end of this pass nothing that is kept is whole.
            match branch.computed.take() {
                Some(before) => branch.distance = self.step.saturating_sub(before),
                None => (branch.distance, branch.known) = (0, 0),
            }
        }
        match method {
            Flexcache::None
            | Flexcache::Freecache
            | Flexcache::Meancache
            | Flexcache::Blockdance
            | Flexcache::Pab
            | Flexcache::TaylorseerModules => {}
            Flexcache::Teacache | Flexcache::Magcache | Flexcache::Taylorseer | Flexcache::Firstblock => self.keep_input(last, hidden)?,
        }
        Ok(0)
    }

    fn leaves_out(&self, part: Part) -> bool {
        matches!(self.turn, Turn::ReuseParts(parts) if parts[part as usize])
    }

    fn takes_parts(&self) -> bool {
        !kept_parts(self.cache.method).is_empty()
    }

    fn after_part(&mut self, block: u32, part: Part, start: i64, given: &Tensor) -> Result<()> {
        let Some(place) = self.place_of(block, part) else { return Ok(()) };
        let Some(given) = self.kept_of(start, given)? else { return Ok(()) };
        if self.cache.method == Flexcache::TaylorseerModules {
            return self.keep_differences_of_part(place, start, &given);
        }
        self.each_from(start, &[place], WRITES, &given, |kept, given| Ok(kept[0].f_copy_(given)?))
    }

    fn in_place_of_part(&mut self, block: u32, part: Part, start: i64, hidden: &Tensor, gate: Option<&Tensor>) -> Result<()> {
        let Some(place) = self.place_of(block, part) else { return Ok(()) };
        let Some(hidden) = self.kept_of(start, hidden)? else { return Ok(()) };
        let (places, factors) = match self.cache.method {
            Flexcache::TaylorseerModules => (self.known_from(place), self.factors()),
            _ => (vec![place], vec![1.0]),
        };
        self.each_from(start, &places, READS, &hidden, |kept, hidden| {
            let mut sum = kept[0].shallow_clone();
            for (difference, &factor) in kept.iter().zip(&factors).skip(1) {
                sum = difference.f_mul_scalar(factor)?.f_add(&sum)?;
            }
            let _ = match gate {
                Some(gate) => hidden.f_addcmul_(&sum, gate)?,
                None => hidden.f_add_(&sum)?,
            };
            Ok(())
        })
    }

    fn looks_after(&self, block: u32) -> bool {
        match self.cache.method {
            Flexcache::Firstblock => block == 0,
            Flexcache::Blockdance => block == self.cache.block && !self.reused,
            _ => false,
        }
    }

    fn after_block(&mut self, _block: u32, hidden: &Tensor) -> Result<bool> {
        if self.cache.method == Flexcache::Blockdance {
            self.each(&[0], WRITES, hidden, |kept, hidden| Ok(kept[0].f_copy_(hidden)?))?;
            return Ok(false);
        }
        // What it adds now is in the last place.
        self.keep_output(2, hidden)?;
        let reuses = self.turn == Turn::Reuse || (self.turn == Turn::Ask && self.is_near(hidden)?);
        if reuses {
            self.add(1, hidden)?;
            return Ok(true);
        }
        let branch = &mut self.cache.branches[self.branch];
        branch.computed = None;
        branch.kept.swap(0, 2);
        self.keep_input(1, hidden)?;
        Ok(false)
    }

    fn end(&mut self, hidden: &Tensor) -> Result<()> {
        if self.reused {
            return Ok(());
        }
        match self.cache.method {
            Flexcache::None | Flexcache::Freecache | Flexcache::Meancache | Flexcache::Blockdance | Flexcache::Pab => {}
            Flexcache::TaylorseerModules => self.knows_one_more(),
            Flexcache::Teacache | Flexcache::Magcache => self.keep_output(0, hidden)?,
            Flexcache::Taylorseer => self.keep_differences(hidden)?,
            Flexcache::Firstblock => self.keep_output(1, hidden)?,
        }
        self.cache.branches[self.branch].computed = Some(self.step);
        Ok(())
    }
}

/// Each is the next lower one less what stands in its place, which is what that was, over the distance.
fn take_differences(kept: &mut [Tensor], distance: f64) -> Result<()> {
    for order in 1..kept.len() {
        let (lower, higher) = kept.split_at_mut(order);
        let _ = higher[0].f_neg_()?.f_add_(&lower[order - 1])?.f_div_scalar_(distance)?;
    }
    Ok(())
}
