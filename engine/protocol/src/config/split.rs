//! How a video is split over ranks, a GPU each: the flags, and what of them is legal together.

use std::fmt;

use super::error::ConfigError;
use super::table::{Config, MOST_GPUS, Settings};
use crate::ModelSpec;
use crate::flag_values::{AttnType, CpSplit, FlagValue, OnOom, told};

/// How a video is split over ranks: cond and uncond on two groups of them or not, and in each group the token sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Groups of ranks for the predictions of guidance: 1 or 2.
    pub cfg_size: u32,
    /// Ranks that exchange heads for tokens.
    pub cp_ulysses: u32,
    /// Ranks that pass keys and values on.
    pub cp_ring: u32,
}

impl Split {
    /// No split.
    pub const ONE: Self = Self { cfg_size: 1, cp_ulysses: 1, cp_ring: 1 };

    /// Parts of the token sequence.
    pub fn cp_size(self) -> u32 {
        self.cp_ulysses * self.cp_ring
    }

    /// Ranks in all.
    pub fn ranks(self) -> u32 {
        self.cfg_size * self.cp_size()
    }

    /// All ways to split a video over so many ranks, whatever the model and its flags allow of them.
    pub fn all_over(ranks: u32) -> Vec<Self> {
        let divisors = |whole: u32| (1..=whole).filter(move |part| whole.is_multiple_of(*part));
        let of_sequence = |cfg_size: u32| {
            let parts = ranks / cfg_size;
            divisors(parts).map(move |cp_ulysses| Self { cfg_size, cp_ulysses, cp_ring: parts / cp_ulysses })
        };
        divisors(ranks).filter(|groups| *groups <= 2).flat_map(of_sequence).collect()
    }

    /// Whether it is one of those that `settings` leave open. Where parts of the sequence are to be unlike there has to be more than one.
    pub fn agrees_with(self, settings: &Settings) -> bool {
        if settings.cp_split.as_ref().is_some_and(|shares| !is_even(shares)) && self.cp_size() == 1 && self != Self::ONE {
            return false;
        }
        [
            (settings.cfg_size, self.cfg_size),
            (settings.cp_size, self.cp_size()),
            (settings.cp_ulysses, self.cp_ulysses),
            (settings.cp_ring, self.cp_ring),
        ]
        .into_iter()
        .all(|(given, own)| given.is_none_or(|given| given == own))
    }

    /// The flags that make it, without those that are 1.
    pub fn flags(self) -> impl Iterator<Item = (&'static str, u32)> {
        [("cfg_size", self.cfg_size), ("cp_ulysses", self.cp_ulysses), ("cp_ring", self.cp_ring)]
            .into_iter()
            .filter(|(_, ranks)| *ranks > 1)
    }
}

impl fmt::Display for Split {
    /// Its flags, without those that are 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [("cfg_size", self.cfg_size), ("cp_size", self.cp_size()), ("cp_ulysses", self.cp_ulysses), ("cp_ring", self.cp_ring)];
        let several: Vec<String> = flags.iter().filter(|(_, ranks)| *ranks > 1).map(|(key, ranks)| format!("{key}={ranks}")).collect();
        if several.is_empty() { f.write_str("one rank") } else { f.write_str(&several.join(" ")) }
    }
}

/// Whether all have the same.
fn is_even(shares: &CpSplit) -> bool {
    match shares {
        CpSplit::Even => true,
        CpSplit::Speed => false,
        CpSplit::Shares(shares) => shares.windows(2).all(|pair| pair[0] == pair[1]),
    }
}

impl AttnType {
    /// Those that keep a sum of each row of scores, by which attention over some of the keys at a time is merged: what a ring needs.
    pub const IN_PARTS: [Self; 3] = [Self::Sdpa, Self::Flash, Self::MemEfficient];
}

impl Config {
    /// How the video is split over ranks.
    pub fn split(&self) -> Split {
        let [cfg_size, cp_ulysses, cp_ring] = [self.cfg_size, self.cp_ulysses, self.cp_ring].map(|ranks| ranks.unwrap_or(1));
        Split { cfg_size, cp_ulysses, cp_ring }
    }

    /// What of the split is left out comes from the rest, and all of it is legal.
    pub(super) fn resolve_split(&mut self, model: &ModelSpec) -> Result<(), ConfigError> {
        let heads = model.transformer.num_attention_heads as u32;
        let split = self.wanted_split(heads)?;
        if split.cp_size() > MOST_GPUS {
            let reason = format!("cp_ulysses={} cp_ring={} are {} parts", split.cp_ulysses, split.cp_ring, split.cp_size());
            return Err(ConfigError::new(reason, format!("use {MOST_GPUS} at most")));
        }
        self.check_ulysses(split.cp_ulysses, heads)?;
        self.check_ring(split, heads)?;
        self.check_guidance(split.cfg_size)?;
        if self.on_oom == OnOom::Lower && split != Split::ONE {
            return Err(ConfigError::new(
                format!("{split} on_oom=lower: one rank would go on at a lower level, and the others would not"),
                "leave one of them out",
            ));
        }
        self.check_shares(split, heads)?;
        self.cp_split = self.cp_split.take().filter(|shares| split.cp_size() > 1 && !is_even(shares));
        self.check_shards(split)?;
        self.shard_weights = self.shard_weights.filter(|&wanted| wanted && split != Split::ONE);
        let several = |ranks: u32| (ranks > 1).then_some(ranks);
        (self.cp_ulysses, self.cp_ring) = (several(split.cp_ulysses), several(split.cp_ring));
        (self.cp_size, self.cfg_size) = (several(split.cp_size()), several(split.cfg_size));
        Ok(())
    }

    /// Heads are exchanged where they divide, since that takes less of the link and of memory; what is left of the ranks is a ring.
    fn wanted_split(&self, heads: u32) -> Result<Split, ConfigError> {
        let (cp_ulysses, cp_ring) = match (self.cp_size, self.cp_ulysses, self.cp_ring) {
            (None, ulysses, ring) => (ulysses.unwrap_or(1), ring.unwrap_or(1)),
            (Some(size), Some(ulysses), Some(ring)) if ulysses * ring == size => (ulysses, ring),
            (Some(size), Some(ulysses), None) if size % ulysses == 0 => (ulysses, size / ulysses),
            (Some(size), None, Some(ring)) if size % ring == 0 => (size / ring, ring),
            (Some(size), None, None) => {
                let ulysses = self.legal_ulysses(heads).filter(|ulysses| size % ulysses == 0).last().unwrap_or(1);
                (ulysses, size / ulysses)
            }
            (Some(size), ..) => {
                let given =
                    [("cp_ulysses", self.cp_ulysses), ("cp_ring", self.cp_ring)].map(|(key, ranks)| Some(format!("{key}={}", ranks?)));
                let given = given.into_iter().flatten().collect::<Vec<_>>().join(" ");
                return Err(ConfigError::new(
                    format!("cp_size={size} {given}: cp_size is cp_ulysses times cp_ring"),
                    "leave one of them out, or give numbers that multiply so",
                ));
            }
        };
        Ok(Split { cfg_size: self.cfg_size.unwrap_or(1), cp_ulysses, cp_ring })
    }

    /// So many ranks may exchange heads: those that all heads divide by, and the heads that attention takes at a time.
    fn legal_ulysses(&self, heads: u32) -> impl Iterator<Item = u32> + use<> {
        let at_a_time = self.head_chunk.unwrap_or(heads);
        (1..=heads).filter(move |ulysses| heads.is_multiple_of(*ulysses) && at_a_time.is_multiple_of(*ulysses))
    }

    fn check_ulysses(&self, ulysses: u32, heads: u32) -> Result<(), ConfigError> {
        if self.legal_ulysses(heads).any(|legal| legal == ulysses) {
            return Ok(());
        }
        let legal = self.legal_ulysses(heads).map(|ulysses| ulysses.to_string()).collect::<Vec<_>>().join(", ");
        let reason = match self.head_chunk {
            Some(chunk) if heads.is_multiple_of(ulysses) => {
                format!("cp_ulysses={ulysses}: the {chunk} heads of head_chunk do not divide by it")
            }
            _ => format!("cp_ulysses={ulysses}: the {heads} heads of {} do not divide by it", self.model),
        };
        Err(ConfigError::new(reason, format!("use one of {legal}, or cp_ring, which takes any number")))
    }

    fn check_ring(&self, split: Split, heads: u32) -> Result<(), ConfigError> {
        if split.cp_ring == 1 || AttnType::IN_PARTS.contains(&self.attn_type) {
            return Ok(());
        }
        let name = self.attn_type.name();
        let legal = self.legal_ulysses(heads).map(|ulysses| ulysses.to_string()).collect::<Vec<_>>().join(", ");
        let kernels = AttnType::IN_PARTS.map(AttnType::name).join(", ");
        Err(ConfigError::new(
            format!("cp_ring={}: attn_type={name} cannot take keys in parts, as a ring brings them", split.cp_ring),
            format!("use cp_size with one of {legal} and no cp_ring, or attn_type with one of {kernels}"),
        ))
    }

    /// Ranks gather a block together, so they are to come to it together; and it is to be on GPUs.
    fn check_shards(&self, split: Split) -> Result<(), ConfigError> {
        match self.shard_weights {
            Some(true) if split == Split::ONE => Ok(()),
            Some(true) if split.cp_size() == 1 => Err(ConfigError::new(
                format!(
                    "shard_weights=true {split}: each GPU has a whole token sequence, and no other one goes through it at the same time"
                ),
                "set cp_size to 2 or more, or leave shard_weights out",
            )),
            Some(true) if self.offload_dit => Err(ConfigError::new(
                "shard_weights=true offload_dit=true: blocks wait in the host's memory, where all ranks of a machine have one copy already",
                "use a memory level below 3 or offload_dit=false, or leave shard_weights out",
            )),
            _ => Ok(()),
        }
    }

    /// Unlike parts: as many as there are, and with Ulysses some heads for each.
    fn check_shares(&self, split: Split, heads: u32) -> Result<(), ConfigError> {
        let Some(asked) = self.cp_split.as_ref().filter(|shares| split.cp_size() > 1 && !is_even(shares)) else { return Ok(()) };
        let Some(shares) = asked.shares() else { return Ok(()) };
        if shares.len() != split.cp_size() as usize {
            let reason = format!("cp_split={}: {} shares for {} parts of the sequence", told(&asked.tell()), shares.len(), split.cp_size());
            return Err(ConfigError::new(reason, "give as many as cp_size"));
        }
        let (all, ulysses) = (shares.iter().sum::<u32>(), split.cp_ulysses as usize);
        let before = |place: usize| (0..place).flat_map(|place| shares.iter().skip(place).step_by(ulysses)).sum::<u32>();
        // The last heads may be fewer than those that are taken at a time.
        let at_a_time = self.head_chunk.unwrap_or(heads).min(heads);
        for taken in [at_a_time, heads % at_a_time].into_iter().filter(|&taken| taken > 0) {
            let heads_before = |place: usize| taken * before(place) / all;
            if let Some(rank) = (0..ulysses).find(|&place| heads_before(place + 1) == heads_before(place)) {
                return Err(ConfigError::new(
                    format!("cp_split={}: rank {rank} would have none of the {taken} heads that are taken at a time", told(&asked.tell())),
                    "give it a larger share, or use cp_ring",
                ));
            }
        }
        Ok(())
    }

    fn check_guidance(&self, groups: u32) -> Result<(), ConfigError> {
        match self.guidance_batch {
            _ if groups == 1 => Ok(()),
            None => {
                Err(ConfigError::new("cfg_size=2: without guidance there is one prediction", "leave it out, or set guidance_scale above 1"))
            }
            Some(true) => Err(ConfigError::new(
                "cfg_size=2 guidance_batch=true: each group of GPUs has one prediction, and there is nothing to put in one pass",
                "leave one of them out",
            )),
            Some(false) => Ok(()),
        }
    }
}
