//! Caches of sampler steps: which go by what, and for which models their numbers were published. What they keep and when is the engine's.

use super::error::ConfigError;
use super::table::Config;
use crate::flag_values::{Flexcache, StepsMeasured};
use crate::{Device, ModelSpec};

/// Steps that are run at least where a cache is measured: the first, a computed one, one that reuses, and the last.
const LEAST_STEPS: u32 = 4;
/// How many steps of 50 are computed by MeanCache's tables.
pub const FRESH_STEPS_OF_50: [u32; 4] = [30, 25, 17, 10];
/// The block in whose place BlockDance begins by default.
const DANCE_BLOCK: u32 = 20;

impl Flexcache {
    /// Whether there is one.
    pub fn is_any(self) -> bool {
        self != Self::None
    }

    /// Whether a threshold says which steps reuse.
    pub fn has_threshold(self) -> bool {
        matches!(self, Self::Teacache | Self::Magcache | Self::Firstblock | Self::Freecache)
    }

    /// Whether it extrapolates, and so has an order.
    pub fn has_order(self) -> bool {
        matches!(self, Self::Taylorseer | Self::TaylorseerModules | Self::Freecache)
    }

    /// Whether it keeps hidden states, or parts of what made them. Another one keeps latents, which are on the CPU in any case.
    pub fn keeps_hidden_states(self) -> bool {
        !matches!(self, Self::None | Self::Freecache | Self::Meancache)
    }

    /// What a step that reuses leaves out.
    pub fn left_out(self) -> &'static str {
        match self {
            Self::Pab | Self::TaylorseerModules => "parts of blocks",
            Self::Freecache | Self::Meancache => "the transformer",
            _ => "blocks",
        }
    }

    /// Whether which steps reuse is known before the first one, and can be set by how many there are to be.
    pub fn is_known_before(self) -> bool {
        matches!(self, Self::Teacache | Self::Magcache)
    }
}

/// A published model whose numbers a cache goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// Wan2.1 T2V 1.3B, and the small model of our tests, of which there are none.
    T2v1_3b,
    /// Wan2.1 T2V 14B.
    T2v14b,
    /// Wan2.2 T2V A14B.
    T2vA14b,
    /// Wan2.2 TI2V 5B.
    Ti2v5b,
}

impl Published {
    /// The one that `model` is, by its name; none for others.
    pub fn of(model: &ModelSpec) -> Option<Self> {
        let is = |part: &str| model.name.contains(part);
        match () {
            () if is("a14b") && !is("i2v") => Some(Self::T2vA14b),
            () if is("ti2v-5b") => Some(Self::Ti2v5b),
            () if is("t2v-1.3b") || is("tiny") => Some(Self::T2v1_3b),
            () if is("t2v-14b") => Some(Self::T2v14b),
            () => None,
        }
    }
}

impl Config {
    /// The same without a cache, and with nothing that means something with one alone.
    pub(crate) fn without_flexcache(self) -> Self {
        Self {
            flexcache: Flexcache::None,
            flexcache_threshold: None,
            flexcache_speedup: None,
            flexcache_warmup: None,
            flexcache_cooldown: None,
            flexcache_interval: None,
            flexcache_cross_interval: None,
            flexcache_order: None,
            flexcache_fresh_steps: None,
            flexcache_block: None,
            flexcache_offload: None,
            ..self
        }
    }

    pub(super) fn resolve_flexcache(&mut self, device: Device, model: &ModelSpec) -> Result<(), ConfigError> {
        let cache = self.flexcache;
        if !cache.is_any() {
            *self = self.clone().without_flexcache();
            return Ok(());
        }
        self.flexcache_speedup = self.flexcache_speedup.filter(|_| cache.is_known_before());
        self.flexcache_threshold = self.flexcache_threshold.filter(|_| cache.has_threshold() && self.flexcache_speedup.is_none());
        self.flexcache_order = self.flexcache_order.filter(|_| cache.has_order());
        self.flexcache_cross_interval = self.flexcache_cross_interval.filter(|_| cache == Flexcache::Pab);
        self.flexcache_block = self.flexcache_block.filter(|_| cache == Flexcache::Blockdance);
        self.flexcache_interval = self.flexcache_interval.filter(|_| cache != Flexcache::Meancache);
        self.flexcache_fresh_steps = self.flexcache_fresh_steps.filter(|_| cache == Flexcache::Meancache);
        self.flexcache_offload = self.flexcache_offload.filter(|_| cache.keeps_hidden_states());
        if cache == Flexcache::Freecache && self.flexcache_order == Some(0) {
            return Err(ConfigError::new("flexcache_order=0: freecache goes by one computed step at least", "use 1 to 3"));
        }
        if let Some(fresh) = self.flexcache_fresh_steps.filter(|fresh| !FRESH_STEPS_OF_50.contains(fresh)) {
            return Err(ConfigError::new(format!("flexcache_fresh_steps={fresh}: there is no such table"), "use 30, 25, 17 or 10"));
        }
        if cache.is_known_before() && Published::of(model).is_none() {
            return Err(ConfigError::new(
                format!("flexcache={}: no numbers are published for {}", cache.name(), model.name),
                "use flexcache=firstblock or flexcache=taylorseer",
            ));
        }
        if cache == Flexcache::Teacache && model.pool.is_some() {
            let reason =
                format!("flexcache=teacache: no polynomial is published for {}, whose two transformers change at other steps", model.name);
            return Err(ConfigError::new(reason, "use flexcache=magcache, for which there are ratios"));
        }
        if cache == Flexcache::Blockdance {
            let last = model.transformer.num_layers as u32 - 1;
            let block = self.flexcache_block.unwrap_or(DANCE_BLOCK.min(last / 2));
            if block >= last {
                return Err(ConfigError::new(
                    format!("flexcache_block={block} leaves no block to compute"),
                    format!("use 0 to {}", last - 1),
                ));
            }
            self.flexcache_block = Some(block);
        }
        let measured = self.steps_measured.and_then(StepsMeasured::count);
        let least = match cache {
            // What a step of some adds to is not what one of all would: such a cache is measured whole.
            Flexcache::Firstblock | Flexcache::Freecache if device != Device::Virtual => self.steps,
            // Its steps that reuse are of three kinds.
            Flexcache::Pab => self.steps,
            _ => LEAST_STEPS,
        };
        self.steps_measured = measured.map(|steps| steps.max(least)).filter(|&steps| steps < self.steps).map(StepsMeasured::Count);
        Ok(())
    }
}
