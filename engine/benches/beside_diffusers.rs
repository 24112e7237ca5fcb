//! Our half of the comparison with diffusers: makes the weights and inputs that both sides read, then runs its model once for each line on
//! standard input. `beside_diffusers.py` starts it and holds the clock.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use engine::collectives::Alone;
use engine::transformer::Transformer;
use engine::vae::{FrameSink, Pieces, VaeDecoder, decode_video};
use engine::weights::{Group, GroupLayout, GroupName, Groups, Source, Weights};
use engine_protocol::{AttnType, ModelSpec};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

const SEED: i64 = 40;
const INPUTS: GroupName = GroupName::whole("inputs");
const TIMESTEP: f64 = 500.0;
/// Latent frames that the VAE decodes at a time, as in the configuration's default.
const TEMPORAL_CHUNK: i64 = 1;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 1. What to run: JSON in the only argument. `cargo bench` adds one of its own.
    let argument = std::env::args().nth(1).filter(|argument| argument.starts_with('{'));
    let case: Value = serde_json::from_str(&argument.ok_or("run engine/benches/beside_diffusers.sh instead")?)?;
    let text = |name: &str| case[name].as_str().ok_or(format!("the case has no text `{name}`"));
    let folder = PathBuf::from(text("folder")?);
    let kind = if text("dtype")? == "fp32" { Kind::Float } else { Kind::BFloat16 };
    let mut model: ModelSpec = serde_yaml::from_str(&std::fs::read_to_string(text("model")?)?)?;
    if let Some(layers) = case["layers"].as_i64() {
        model.transformer.num_layers = layers;
    }
    let latents: Vec<i64> = serde_json::from_value(case["latents"].clone())?;
    tch::set_num_threads(case["threads"].as_i64().ok_or("the case has no `threads`")? as i32);

    // 2. Weights and inputs, in a file that both sides map: the same bytes for both, in memory once.
    let of_transformer = text("part")? == "transformer";
    let mut groups = if of_transformer { Transformer::groups(&model.transformer) } else { engine::vae::groups(&model.vae) };
    let prompt = [1, model.text_encoder.max_tokens, model.transformer.text_dim];
    groups.push(Group::new(INPUTS, "input.").param("latents", &latents).param("prompt", &prompt));
    let mut shared = Shared::make(&folder, &groups, kind)?;
    let inputs = shared.weights.remove(&INPUTS).expect("the inputs are a group");
    println!("ready");

    // 3. A run a line, and at the end what came out.
    let _guard = tch::no_grad_guard();
    let transformer = Transformer::new(&model.transformer, AttnType::Sdpa, None);
    let decoder = VaeDecoder::new(&model.vae);
    let mut output = None;
    for line in std::io::stdin().lock().lines() {
        if line? == "write" {
            let output: &Tensor = output.as_ref().ok_or("nothing has run")?;
            map(&folder.join("ours"), output.numel() as i64, Kind::Float)?.f_copy_(&output.f_reshape([-1])?)?;
        } else if of_transformer {
            output = Some(transformer.forward(&mut shared, inputs.get("latents"), TIMESTEP, inputs.get("prompt"))?);
        } else {
            let mut frames = Frames::default();
            let decoding = Pieces::in_chunks(TEMPORAL_CHUNK);
            decode_video(
                &decoder,
                &shared.weights[&engine::vae::DECODER],
                inputs.get("latents"),
                decoding,
                &Alone,
                &mut frames,
                &mut |_, _| (),
            )?;
            output = Some(Tensor::f_cat(&frames.chunks, 0)?.f_permute([3, 0, 1, 2])?);
        }
        println!("done");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// All groups, in a file that the other side maps too.
struct Shared {
    weights: HashMap<GroupName, Weights>,
}

impl Shared {
    /// Fills `weights` in `folder` from the seed, and writes a list of its tensors beside it.
    fn make(folder: &Path, groups: &[Group], kind: Kind) -> Result<Self, Box<dyn std::error::Error>> {
        let layouts: Vec<GroupLayout> = groups.iter().map(|group| GroupLayout::new(group, kind)).collect();
        let slab = map(&folder.join("weights"), layouts.iter().map(|layout| layout.bytes).sum(), Kind::Uint8)?;
        let (mut weights, mut tensors, mut start) = (HashMap::new(), Vec::new(), 0);
        for (group, layout) in groups.iter().zip(&layouts) {
            let bound = Weights::bind(group, layout, &slab.f_narrow(0, start, layout.bytes)?)?;
            for (param, (offset, kind)) in group.params.iter().zip(&layout.places) {
                let mut tensor = bound.get(&param.name).shallow_clone();
                if group.name == INPUTS {
                    tensor.f_copy_(&tensor.f_randn_like()?)?;
                } else {
                    Source::Seeded(SEED).fill(group, param, &mut tensor)?;
                }
                tensors.push(json!({
                    "name": format!("{}{}", group.prefix, param.name),
                    "start": start + offset,
                    "fp32": *kind == Kind::Float,
                    "shape": tensor.size(),
                    "stride": tensor.stride(),
                }));
            }
            weights.insert(group.name, bound);
            start += layout.bytes;
        }
        std::fs::write(folder.join("tensors.json"), serde_json::to_vec(&tensors)?)?;
        Ok(Self { weights })
    }
}

impl Groups for Shared {
    fn with<R>(&mut self, name: GroupName, run: impl FnOnce(&Weights) -> engine::Result<R>) -> engine::Result<R> {
        run(&self.weights[&name])
    }
}

/// The file at `path`, made as large as it must be, as a tensor.
fn map(path: &Path, elements: i64, kind: Kind) -> Result<Tensor, Box<dyn std::error::Error>> {
    Ok(Tensor::f_from_file(path.to_str().ok_or("a path that is not text")?, true, elements, (kind, Device::Cpu))?)
}

/// Keeps a video's pixels as the decoder has them.
#[derive(Default)]
struct Frames {
    chunks: Vec<Tensor>,
}

impl FrameSink for Frames {
    fn accept(&mut self, _first_frame: i64, _first_row: i64, pixels: &Tensor) -> engine::Result<()> {
        self.chunks.push(pixels.copy());
        Ok(())
    }

    fn takes_colours(&self) -> bool {
        true
    }
}
