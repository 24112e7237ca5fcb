//! Prompts to embeddings: the stage that text encoders work in, on the device or on the host.

use engine_protocol::{Config, HostRates, OffloadTextEncoder, Secs, TextEncoderSpec};
use tch::{Device, TchError, Tensor};

use super::link::Link;
use super::loading::Loadable;
use crate::attribution::{Purpose, retag};
use crate::collectives::Group;
use crate::error::{Error, Result};
use crate::finite;
use crate::text_encoder::{TextEncoder, Tokenizer};
use crate::timing;
use crate::weights::kind_of;

/// What is said to hold what is no number.
const EMBEDDINGS: &str = "the prompt embeddings";

/// What the two passes of guidance are conditioned on.
#[derive(Debug)]
pub struct PromptEmbeddings {
    /// `[prompts, tokens, d_model]`: cond, and uncond where there is guidance.
    pub(super) both: Tensor,
}

impl PromptEmbeddings {
    /// Refuses embeddings that are not finite.
    pub(super) fn check(&self) -> Result<()> {
        finite::check(&self.both.f_to_device(Device::Cpu)?, || EMBEDDINGS.into())
    }

    pub(super) fn cond(&self) -> Result<Tensor> {
        Ok(self.both.f_narrow(0, 0, 1)?)
    }

    pub(super) fn uncond(&self) -> Result<Tensor> {
        Ok(self.both.f_narrow(0, 1, 1)?)
    }
}

/// A tokenizer and a text encoder.
#[derive(Debug)]
pub(super) struct PromptEncoder {
    spec: TextEncoderSpec,
    pub(super) tokenizer: Tokenizer,
    /// For the time of what the host leaves out.
    pub(super) host_rates: Option<HostRates>,
    encoder: TextEncoder,
    /// Of which the first one encodes for all.
    ranks: Group,
    /// Its weights; empty where prompts are encoded already, and on other ranks than the first.
    pub(super) weights: Option<Loadable>,
}

impl PromptEncoder {
    /// One whose tokens are bytes.
    pub(super) fn new(spec: &TextEncoderSpec, ranks: Group, weights: Option<Loadable>) -> Self {
        let (spec, encoder) = (spec.clone(), TextEncoder::new(spec));
        Self { spec, tokenizer: Tokenizer::bytes(), host_rates: None, encoder, ranks, weights }
    }

    /// Token ids of the configuration's prompts: cond, then uncond.
    pub(super) fn tokens(&self, config: &Config) -> Result<[Vec<i64>; 2]> {
        let tokens = |prompt: &str| self.tokenizer.tokens(prompt, self.spec.max_tokens);
        Ok([tokens(&config.prompt)?, tokens(&config.negative_prompt)?])
    }

    /// Prompt embeddings of token ids, on the device. `uncond` is not looked at without guidance.
    pub(super) fn encode(&mut self, config: &Config, link: &mut Link, cond: &[i64], uncond: &[i64]) -> Result<PromptEmbeddings> {
        let mut prompts = vec![cond.to_vec()];
        if config.has_guidance() {
            prompts.push(uncond.to_vec());
        }
        let shape = [prompts.len() as i64, self.spec.max_tokens, self.spec.d_model];
        let empty = |device| Tensor::f_empty(shape, (kind_of(config.dtype), device));
        let both = if self.ranks.rank() == 0 { self.encoded(config, link, &prompts, empty)? } else { empty(link.device.torch)? };
        let both = self.ranks.broadcast(both)?;
        retag(&both, Purpose::Latents);
        Ok(PromptEmbeddings { both })
    }

    /// The embeddings that this rank makes of token ids, on the device; `empty` makes a place for them.
    fn encoded(
        &mut self,
        config: &Config,
        link: &mut Link,
        prompts: &[Vec<i64>],
        empty: impl Fn(Device) -> std::result::Result<Tensor, TchError>,
    ) -> Result<Tensor> {
        let on_host = config.offload_text_encoder == OffloadTextEncoder::Cpu;
        let device = if on_host { Device::Cpu } else { link.device.torch };
        let both = if on_host && !link.device.computes {
            timing::leave_out(self.host_secs(config, prompts));
            empty(device)?
        } else {
            let Some(weights) = &mut self.weights else {
                return Err(Error::Input("there is no text encoder: the pipeline was loaded for later stages".into()));
            };
            let both = self.encoder.prompt_embedding(weights.get()?, prompts, device)?;
            weights.release();
            // Those on a GPU are looked at where latents are not finite: here the host does not wait for it.
            if both.device() == Device::Cpu {
                finite::check(&both, || EMBEDDINGS.into())?;
            }
            both
        };
        if on_host { link.upload(&both) } else { Ok(both) }
    }

    /// How long the host takes to encode `prompts`.
    fn host_secs(&self, config: &Config, prompts: &[Vec<i64>]) -> Option<Secs> {
        let tokens = prompts.iter().map(Vec::len).max()? as i64;
        let (operations, numbers) = self.encoder.linear_work(prompts.len() as i64, tokens);
        let bytes = numbers * kind_of(config.dtype).elt_size_in_bytes() as f64;
        self.host_rates.as_ref()?.linear_secs(config.dtype, operations, bytes)
    }
}
