//! A denoising under way: its latents and its sampler, both on the CPU, so that it can go on in another pipeline. What predicts is not known
//! here.

use std::collections::BTreeSet;

use engine_protocol::Config;
use tch::Tensor;

use super::image_condition::ImageCondition;
use crate::error::Result;
use crate::finite;
use crate::flexcache::{Turn, Turns};
use crate::scheduler::Scheduler;
use crate::transformer::Timestep;

/// From noise to latents, as far as it is.
#[derive(Debug)]
pub struct Denoising {
    scheduler: Scheduler,
    /// `[1, channels, frames, height, width]`, fp32.
    latents: Tensor,
    /// The steps that are taken, by their place among all.
    steps: Vec<usize>,
    /// What each of all steps does, where a cache lets some leave blocks out.
    turns: Option<Turns>,
    /// What is given of pictures, where the video begins with one.
    image: Option<ImageCondition>,
    done: usize,
    /// The last step left blocks out.
    reused: bool,
}

impl Denoising {
    /// From `noise`, no step taken yet. `turns` has what each of all steps does, where a cache lets some leave blocks out.
    pub fn new(config: &Config, noise: Tensor, image: Option<ImageCondition>, turns: Option<Turns>) -> Self {
        let (all, wanted) = (config.steps as usize, config.steps_to_run() as usize);
        let steps = match &turns {
            Some(turns) if wanted < all => steps_with_reuse(&turns.turns, wanted),
            _ => steps_to_run(all, wanted),
        };
        Self { scheduler: Scheduler::of(config), latents: noise, steps, turns, image, done: 0, reused: false }
    }

    /// What each of all steps does, where a cache lets some leave blocks out.
    pub fn turns(&self) -> Option<&Turns> {
        self.turns.as_ref()
    }

    /// Whether the last step left blocks out.
    pub fn has_reused(&self) -> bool {
        self.reused
    }

    /// The next step's place among all, and what it does; empty where all are done.
    pub(super) fn turn(&self) -> Option<(usize, Turn)> {
        let step = *self.steps.get(self.done)?;
        Some((step, self.turns.as_ref().map_or(Turn::Compute, |turns| turns.turns[step])))
    }

    /// Steps that are done.
    pub fn done(&self) -> u32 {
        self.done as u32
    }

    /// Steps in all.
    pub fn total(&self) -> u32 {
        self.steps.len() as u32
    }

    /// Whether all steps are done.
    pub fn is_over(&self) -> bool {
        self.done == self.steps.len()
    }

    /// The timestep of the next step; empty where all are done.
    pub(super) fn timestep(&self) -> Option<Timestep> {
        let given_frames = self.image.as_ref().map_or(0, ImageCondition::given_frames);
        self.steps.get(self.done).map(|&step| Timestep { value: self.scheduler.timesteps()[step], given_frames })
    }

    /// The noise level before the next step and after it, as the sampler has them; of the last one where all are done.
    pub(super) fn sigmas(&self) -> [f64; 2] {
        let step = self.done.min(self.steps.len() - 1);
        [step, step + 1].map(|step| self.scheduler.sigmas()[step])
    }

    /// What an image encoder says of the picture, on the CPU; nothing where none does.
    pub(super) fn seen(&self) -> Option<&Tensor> {
        self.image.as_ref().and_then(ImageCondition::seen)
    }

    /// What the transformer takes: the latents, with what is given of pictures.
    pub(super) fn input(&self) -> Result<Tensor> {
        match &self.image {
            Some(image) => image.beside(&self.latents),
            None => Ok(self.latents.shallow_clone()),
        }
    }

    /// Takes the next step, by a model's prediction for the latents at its timestep. `is_computed`: the prediction has values. `reused`: blocks
    /// were left out.
    ///
    /// # Errors
    /// libtorch's, and latents that are not finite after it.
    pub(super) fn advance(&mut self, prediction: &Tensor, is_computed: bool, reused: bool) -> Result<()> {
        let latents = self.scheduler.step(prediction, &self.latents)?;
        if is_computed {
            finite::check(&latents, || "the latents".into())?;
        }
        self.latents = latents;
        (self.done, self.reused) = (self.done + 1, reused);
        if let (true, Some(image)) = (self.is_over(), &self.image) {
            self.latents = image.put_into(&self.latents)?;
        }
        Ok(())
    }

    /// The latents at the end.
    pub(super) fn into_latents(self) -> Tensor {
        self.latents
    }

    /// The latents as they are.
    ///
    /// # Shapes
    /// `[1, channels, frames, height, width]`, fp32, on the CPU.
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }
}

/// As [`steps_to_run`], where some steps leave blocks out: the first that does is among them, one that does not beside the very first, and the last of all.
fn steps_with_reuse(turns: &[Turn], wanted: usize) -> Vec<usize> {
    let last = turns.len() - 1;
    let first = |reuses| (1..last).find(|&step| turns[step].reuses() == reuses);
    let needed: BTreeSet<usize> = [Some(0), first(false), first(true), Some(last)].into_iter().flatten().collect();
    let others = (1..last).filter(|step| !needed.contains(step)).take(wanted.saturating_sub(needed.len()));
    let steps: BTreeSet<usize> = needed.iter().copied().chain(others).collect();
    steps.into_iter().take(wanted).collect()
}

/// Which of `all` steps a run of `wanted` steps takes: all, or the first, the last, and some evenly between, so that each transformer of a pool
/// is among what is measured.
fn steps_to_run(all: usize, wanted: usize) -> Vec<usize> {
    let gaps = wanted.saturating_sub(1).max(1);
    (0..wanted.min(all)).map(|step| step * (all - 1) / gaps).collect()
}

#[cfg(test)]
mod tests {
    use super::{Turn, steps_to_run, steps_with_reuse};

    #[test]
    fn where_steps_leave_blocks_out_both_kinds_of_them_run() {
        let turns = |reused: &[usize]| -> Vec<Turn> {
            (0..50).map(|step| if reused.contains(&step) { Turn::Reuse } else { Turn::Compute }).collect()
        };
        assert_eq!(steps_with_reuse(&turns(&[6, 8]), 4), [0, 1, 6, 49]);
        assert_eq!(steps_with_reuse(&turns(&[6, 8]), 6), [0, 1, 2, 3, 6, 49]);
        assert_eq!(steps_with_reuse(&turns(&[1, 2, 4]), 4), [0, 1, 3, 49]);
        assert_eq!(steps_with_reuse(&turns(&[]), 4), [0, 1, 2, 49]);
    }

    #[test]
    fn a_part_of_the_steps_holds_the_first_and_the_last() {
        assert_eq!(steps_to_run(4, 4), [0, 1, 2, 3]);
        assert_eq!(steps_to_run(50, 2), [0, 49]);
        assert_eq!(steps_to_run(50, 3), [0, 24, 49]);
        assert_eq!(steps_to_run(50, 1), [0]);
        assert_eq!(steps_to_run(1, 1), [0]);
    }
}
