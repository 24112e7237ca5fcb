//! What is kept from one step for the next: tensors as large as the hidden state, on the GPU, or page-locked on the host, from where they come in slices.

use engine_protocol::{Config, Flexcache, FlexcacheOffload, ModelSpec, Transfers};
use tch::Tensor;

use crate::attribution::{Purpose, within};
use crate::context_parallel::{Shard, Shares};
use crate::cuda::host_slab_pinned_if_may;
use crate::error::Result;
use crate::transformer::Part;
use crate::weights::bytes_of;

/// Tokens of one video that are on the GPU at a time of what waits on the host, of all tensors that cross at once.
const SLICE: i64 = 4096;

/// What a cache holds from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSize {
    /// How many tensors, those of both passes of guidance.
    pub tensors: u64,
    /// Bytes of each.
    pub bytes: i64,
    /// They wait on the host.
    pub on_host: bool,
}

/// What the cache of `config` will hold on a rank, where it has one.
pub fn kept_between_steps(config: &Config, model: &ModelSpec, rank: usize) -> Option<CacheSize> {
    let spec = &model.transformer;
    let each = tensors_of_a_pass(config, model)?;
    let [_, latents @ ..] = config.latent_shape(model);
    let all_tokens: i64 = (0..3).map(|axis| latents[axis] / spec.patch_size[axis]).product();
    let split = config.split();
    let part = Shares::of(config).part(rank % split.cp_size() as usize);
    let tokens = Shard { tokens: all_tokens, part }.real();
    // In one pass both are one tensor of twice the size.
    let is_batch = config.guidance_batch == Some(true);
    let (passes, batch) = if is_batch || !config.has_guidance() || split.cfg_size > 1 { (1, 1 + i64::from(is_batch)) } else { (2, 1) };
    let bytes = batch * tokens * spec.num_attention_heads * spec.attention_head_dim * config.dtype.bytes() as i64;
    Some(CacheSize { tensors: passes * each as u64, bytes, on_host: waits_on_host(config) })
}

/// Whether what is kept waits on the host.
pub(super) fn waits_on_host(config: &Config) -> bool {
    config.flexcache_offload == Some(FlexcacheOffload::Cpu)
}

/// How many tensors are kept of each pass.
pub(super) fn tensors_of_a_pass(config: &Config, model: &ModelSpec) -> Option<usize> {
    let blocks = model.transformer.num_layers as usize;
    match config.flexcache {
        Flexcache::None | Flexcache::Freecache | Flexcache::Meancache => None,
        Flexcache::Teacache | Flexcache::Magcache | Flexcache::Blockdance => Some(1),
        // What the first block added, and adds now; and what the others did.
        Flexcache::Firstblock => Some(3),
        Flexcache::Taylorseer => Some(differences(config)),
        Flexcache::Pab | Flexcache::TaylorseerModules => Some(blocks * kept_parts(config.flexcache).len() * differences(config)),
    }
}

/// How many tensors are kept of one thing: it, and where it is extrapolated its differences.
pub(super) fn differences(config: &Config) -> usize {
    if config.flexcache.has_order() { config.flexcache_order.unwrap_or(1) as usize + 1 } else { 1 }
}

/// The parts of each block of which something is kept.
pub(super) fn kept_parts(method: Flexcache) -> &'static [Part] {
    match method {
        Flexcache::Pab => &[Part::SelfAttention, Part::CrossAttention],
        Flexcache::TaylorseerModules => &Part::ALL,
        _ => &[],
    }
}

/// Whether the host's copies are read before they are used, and written after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crossing {
    pub(super) reads: bool,
    pub(super) writes: bool,
}

/// Tensors of one pass, all of the hidden state's shape and type.
#[derive(Debug, Default)]
pub(super) struct Kept {
    tensors: Vec<Tensor>,
    waits_on_host: bool,
}

impl Kept {
    /// `count` of them for hidden states like `hidden`, with nothing in them yet.
    ///
    /// # Errors
    /// Memory that runs out.
    pub(super) fn like(hidden: &Tensor, count: usize, on_host: bool) -> Result<Self> {
        let (device, kind) = (hidden.device(), hidden.kind());
        let waits_on_host = on_host && device.is_cuda();
        let room = || -> Result<Tensor> {
            if waits_on_host {
                let (slab, _) = host_slab_pinned_if_may(bytes_of(hidden) as i64, true)?;
                return Ok(slab.f_view_dtype(kind)?.f_view(hidden.size().as_slice())?);
            }
            Ok(within(Purpose::StepCache, || Tensor::f_empty(hidden.size().as_slice(), (kind, device)))?)
        };
        Ok(Self { tensors: (0..count).map(|_| room()).collect::<Result<_>>()?, waits_on_host })
    }

    /// Whether it was made for such hidden states.
    pub(super) fn fits(&self, hidden: &Tensor) -> bool {
        self.tensors.first().is_some_and(|kept| kept.size() == hidden.size() && kept.kind() == hidden.kind())
    }

    /// Tokens of each.
    pub(super) fn tokens(&self) -> i64 {
        self.tensors.first().map_or(0, |kept| kept.size()[1])
    }

    /// Puts the last tensor before the others.
    pub(super) fn last_first(&mut self) {
        self.tensors.rotate_right(1);
    }

    /// Puts two tensors in each other's places.
    pub(super) fn swap(&mut self, one: usize, other: usize) {
        self.tensors.swap(one, other);
    }

    /// Gives `change` the tensors of `places` and the hidden state of as many tokens from `start` on, on the device and as large as each other, a part of them at a time where they
    /// wait on the host. What crossed is added to `transfers`.
    ///
    /// # Errors
    /// libtorch's, and those of `change`.
    pub(super) fn each(
        &self,
        places: &[usize],
        crossing: Crossing,
        start: i64,
        hidden: &Tensor,
        transfers: &mut Transfers,
        mut change: impl FnMut(&mut [Tensor], &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        let [batch, tokens] = [hidden.size()[0], hidden.size()[1]];
        if !self.waits_on_host {
            let kept = places.iter().map(|&place| Ok(self.tensors[place].f_narrow(1, start, tokens)?));
            let mut kept = kept.collect::<Result<Vec<_>>>()?;
            return change(&mut kept, &mut hidden.shallow_clone());
        }
        let at_a_time = (SLICE.min(tokens) / places.len() as i64).max(1);
        let part =
            |x: &Tensor, video: i64, start: i64, length: i64| -> Result<Tensor> { Ok(x.f_select(0, video)?.f_narrow(0, start, length)?) };
        let mut room = Vec::new();
        for video in 0..batch {
            for first in (0..tokens).step_by(at_a_time as usize) {
                let length = at_a_time.min(tokens - first);
                let mut hidden = part(hidden, video, first, length)?;
                let waiting =
                    places.iter().map(|&place| part(&self.tensors[place], video, start + first, length)).collect::<Result<Vec<_>>>()?;
                if room.is_empty() {
                    // The first slice is the largest.
                    let empty = || within(Purpose::StepCache, || hidden.f_empty_like());
                    room = (0..places.len()).map(|_| Ok(empty()?)).collect::<Result<Vec<_>>>()?;
                }
                let mut here = room.iter().map(|room| Ok(room.f_narrow(0, 0, length)?)).collect::<Result<Vec<_>>>()?;
                if crossing.reads {
                    here.iter_mut().zip(&waiting).try_for_each(|(here, waiting)| here.f_copy_(waiting))?;
                    transfers.h2d_bytes += waiting.iter().map(bytes_of).sum::<u64>();
                }
                change(&mut here, &mut hidden)?;
                if crossing.writes {
                    waiting.iter().zip(&here).try_for_each(|(waiting, here)| waiting.shallow_clone().f_copy_(here))?;
                    transfers.d2h_bytes += waiting.iter().map(bytes_of).sum::<u64>();
                }
            }
        }
        Ok(())
    }
}
