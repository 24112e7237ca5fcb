//! What is kept from one step for the next: tensors as large as the hidden state, on the GPU, or page-locked on the host, from where they come in slices.

use engine_protocol::{Config, Flexcache, FlexcacheOffload, ModelSpec, Transfers};
use tch::Tensor;

use crate::attribution::{Purpose, within};
use crate::context_parallel::Shard;
use crate::cuda::host_slab_pinned_if_may;
use crate::error::Result;
use crate::weights::bytes_of;

/// Tokens of one video that are on the GPU at a time of what waits on the host.
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

/// What the cache of `config` will hold, where it has one.
pub fn kept_between_steps(config: &Config, model: &ModelSpec) -> Option<CacheSize> {
    let spec = &model.transformer;
    let each = tensors_of_a_pass(config)?;
    let [_, latents @ ..] = config.latent_shape(model);
    let all_tokens: i64 = (0..3).map(|axis| latents[axis] / spec.patch_size[axis]).product();
    // Of the first rank's part, which is no shorter than any.
    let split = config.split();
    let tokens = Shard { tokens: all_tokens, parts: split.cp_size().into(), part: 0 }.real();
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
pub(super) fn tensors_of_a_pass(config: &Config) -> Option<usize> {
    match config.flexcache {
        Flexcache::None => None,
        Flexcache::Teacache | Flexcache::Magcache | Flexcache::Blockdance => Some(1),
        // What the first block added, and adds now; and what the others did.
        Flexcache::Firstblock => Some(3),
        Flexcache::Taylorseer => Some(config.flexcache_order.unwrap_or(1) as usize + 1),
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

    /// Puts the last tensor before the others.
    pub(super) fn last_first(&mut self) {
        self.tensors.rotate_right(1);
    }

    /// Puts two tensors in each other's places.
    pub(super) fn swap(&mut self, one: usize, other: usize) {
        self.tensors.swap(one, other);
    }

    /// Gives `change` the tensors of `places` and the hidden state, on the device and as large as each other, a part of them at a time where they wait on the host.
    /// What crossed is added to `transfers`.
    ///
    /// # Errors
    /// libtorch's, and those of `change`.
    pub(super) fn each(
        &self,
        places: &[usize],
        crossing: Crossing,
        hidden: &Tensor,
        transfers: &mut Transfers,
        mut change: impl FnMut(&mut [Tensor], &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        if !self.waits_on_host {
            let mut kept: Vec<Tensor> = places.iter().map(|&place| self.tensors[place].shallow_clone()).collect();
            return change(&mut kept, &mut hidden.shallow_clone());
        }
        let [batch, tokens] = [hidden.size()[0], hidden.size()[1]];
        let part =
            |x: &Tensor, video: i64, start: i64, length: i64| -> Result<Tensor> { Ok(x.f_select(0, video)?.f_narrow(0, start, length)?) };
        let mut room = Vec::new();
        for video in 0..batch {
            for start in (0..tokens).step_by(SLICE as usize) {
                let length = SLICE.min(tokens - start);
                let mut hidden = part(hidden, video, start, length)?;
                let waiting = places.iter().map(|&place| part(&self.tensors[place], video, start, length)).collect::<Result<Vec<_>>>()?;
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
