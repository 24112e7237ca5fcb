//! What a plan comes to in bytes, before anything is allocated: exact for weights and staging buffers, estimated from shapes for activations.

use engine_protocol::{
    BufferUse, Config, Home, ModelSpec, Moves, OffloadTextEncoder, PlanReport, PlannedBuffers, PlannedGroups, PlannedStage, Settled, Stage,
};

use super::plan::{Place, Plan, Waits, staging_buffers};
use super::residency::Stored;
use crate::text_encoder::{TextEncoder, byte_tokens};
use crate::transformer::Transformer;
use crate::vae::{self, Decoding, VaeDecoder};
use crate::weights::{Group, WeightTypes};

/// What libtorch 2.13 allocates for cuBLAS at the first matrix product and keeps: 32 MiB on GPUs of compute capability 9 and up. On others it is 8.1 MiB,
/// and a prediction is that much too high there.
const CUBLAS_WORKSPACE_BYTES: i64 = 32 << 20;

/// What will live where under `config` on a GPU, and the predicted peak of each stage.
///
/// Counted is what libtorch's caching allocator calls allocated; what it reserves beyond that and the context are not.
pub fn predict(model: &ModelSpec, config: &Config) -> PlanReport {
    predict_from(Stage::Encode, model, config)
}

/// As [`predict`], for a pipeline that is loaded for the stages from `first` on.
pub fn predict_from(first: Stage, model: &ModelSpec, config: &Config) -> PlanReport {
    let mut parts = parts(model, config);
    parts.retain(|part| part.stage >= first);
    let activations = Activations { model, config };
    let stages = Stage::ALL.map(|stage| PlannedStage {
        stage,
        resident_bytes: parts.iter().map(Part::resident_bytes).sum(),
        // Transformers of a pool come one after the other, each with buffers of its own.
        staging_bytes: parts.iter().filter(|part| part.stage == stage).map(Part::buffer_bytes).max().unwrap_or(0),
        activation_bytes: activations.of(stage).map(|bytes| bytes as u64),
    });
    PlanReport {
        settled: Settled::default(),
        groups: parts.iter().flat_map(Part::rows).collect(),
        buffers: parts.iter().flat_map(Part::buffers).collect(),
        stages: stages.into(),
    }
}

/// A part of the model: its groups in execution order, each with where it lives.
struct Part {
    name: &'static str,
    /// The stage that uses it.
    stage: Stage,
    /// When its streamed groups are copied.
    moves: Moves,
    groups: Vec<Placed>,
}

#[derive(Clone, Copy)]
struct Placed {
    name: Name,
    bytes: i64,
    /// In the type of arithmetic, where it waits in another.
    unpacked_bytes: i64,
    place: Place,
}

/// What people call a group, which may be one part of what they mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    One(&'static str),
    /// One of many, `blocks` for example, with its number.
    Numbered(&'static str, usize),
}

/// Names of a model's groups: `before` of them are parts of the first thing, then come things of which each has `each` groups, and the last thing has one.
struct Names {
    first: &'static str,
    before: usize,
    many: &'static str,
    each: usize,
    last: &'static str,
}

impl Names {
    /// The name of group `index`, where `last` is the last one's index.
    fn of(&self, index: usize, last: usize) -> Name {
        match index.checked_sub(self.before) {
            None => Name::One(self.first),
            Some(_) if index == last => Name::One(self.last),
            Some(after) => Name::Numbered(self.many, after / self.each),
        }
    }
}

/// The model's parts in execution order.
fn parts(model: &ModelSpec, config: &Config) -> Vec<Part> {
    let (plan, types) = (Plan::new(config, model), WeightTypes::of(config));
    let part = |name, stage, moves, groups: Vec<Group>, places: Vec<Place>, names: Names| {
        let last = groups.len() - 1;
        let placed = groups.iter().zip(places).enumerate().map(|(index, (group, place))| {
            let stored = Stored::new(group, types);
            Placed { name: names.of(index, last), bytes: stored.layout.bytes, unpacked_bytes: stored.unpacked_bytes(), place }
        });
        Part { name, stage, moves, groups: placed.collect() }
    };

    let groups = TextEncoder::groups(&model.text_encoder);
    let names = Names { first: "embedding table", before: 1, many: "layers", each: 1, last: "last norm" };
    let mut parts = vec![part("text encoder", Stage::Encode, Moves::DuringEncode, groups, plan.text_encoder, names)];

    let transformers: &[&str] = if model.pool.is_some() { &["high-noise transformer", "low-noise transformer"] } else { &["transformer"] };
    for (name, places) in transformers.iter().zip(plan.transformers) {
        let groups = Transformer::groups(&model.transformer);
        let [before, each] = [Transformer::GROUPS_BEFORE, Transformer::GROUPS_A_BLOCK];
        let names = Names { first: "embeddings", before, many: "blocks", each, last: "output layer" };
        parts.push(part(name, Stage::Denoise, Moves::EachPass, groups, places, names));
    }

    let groups = vae::groups(&model.vae);
    let names = Names { first: "decoder", before: 1, many: "", each: 1, last: "" };
    parts.push(part("VAE", Stage::Decode, Moves::BeforeDecode, groups, plan.vae, names));
    parts
}

impl Part {
    /// Its resident groups, which are one allocation.
    fn resident_bytes(&self) -> u64 {
        let bytes: i64 = self.groups.iter().filter(|group| group.place == Place::Resident).map(|group| group.bytes).sum();
        if bytes == 0 { 0 } else { block_bytes(bytes) }
    }

    /// What is there in passing for its groups: staging buffers, and room to unpack one.
    fn buffers(&self) -> impl Iterator<Item = PlannedBuffers> {
        self.staging().into_iter().chain(self.room_to_unpack())
    }

    fn room_to_unpack(&self) -> Option<PlannedBuffers> {
        let largest = self.groups.iter().map(|group| group.unpacked_bytes).max().filter(|&bytes| bytes > 0)?;
        Some(self.planned_buffers(BufferUse::Unpacking, 1, largest))
    }

    fn planned_buffers(&self, purpose: BufferUse, count: u64, bytes: i64) -> PlannedBuffers {
        PlannedBuffers { part: self.name.into(), stage: self.stage, purpose, count, buffer_bytes: block_bytes(bytes) }
    }

    fn staging(&self) -> Option<PlannedBuffers> {
        let streamed = self.groups.iter().filter_map(|group| match group.place {
            Place::Streamed { prefetch, .. } => Some((prefetch as usize, group.bytes)),
            Place::Resident | Place::Host => None,
        });
        let (prefetch, bytes): (Vec<usize>, Vec<i64>) = streamed.unzip();
        let (count, largest) = staging_buffers(*prefetch.last()?, &bytes);
        Some(self.planned_buffers(BufferUse::Staging, count as u64, largest))
    }

    fn buffer_bytes(&self) -> u64 {
        self.buffers().map(|buffers| buffers.count * buffers.buffer_bytes).sum()
    }

    /// What its groups are parts of, neighbours that are alike in one row.
    fn rows(&self) -> Vec<PlannedGroups> {
        let whole = |parts: &[Placed]| Placed { bytes: parts.iter().map(|part| part.bytes).sum(), ..parts[0] };
        let wholes: Vec<Placed> = self.groups.chunk_by(|a, b| (a.name, a.place) == (b.name, b.place)).map(whole).collect();
        let mut rows: Vec<Vec<Placed>> = Vec::new();
        for whole in wholes {
            let is_like = |row: &&mut Vec<Placed>| row[0].is_like(&whole);
            match rows.iter_mut().find(is_like) {
                Some(row) => row.push(whole),
                None => rows.push(vec![whole]),
            }
        }
        rows.iter().map(|row| self.row(row)).collect()
    }

    fn row(&self, groups: &[Placed]) -> PlannedGroups {
        let (home, moves) = match groups[0].place {
            Place::Resident => (Home::Gpu, Moves::Never),
            Place::Host => (Home::Cpu, Moves::Never),
            Place::Streamed { waits: Waits::Pinned, .. } => (Home::Pinned, self.moves),
            Place::Streamed { waits: Waits::Pageable, .. } => (Home::Pageable, self.moves),
            Place::Streamed { waits: Waits::InFile { .. }, .. } => (Home::File, self.moves),
        };
        let (count, bytes) = (groups.len() as u64, groups.iter().map(|group| group.bytes as u64).sum());
        PlannedGroups { part: self.name.into(), name: name_of(groups), count, bytes, home, moves }
    }
}

impl Placed {
    /// Whether it may stand in one row with `other`: things of which there are many, alike in size and place.
    fn is_like(&self, other: &Self) -> bool {
        let are_many = matches!((self.name, other.name), (Name::Numbered(..), Name::Numbered(..)));
        are_many && (self.bytes, self.place) == (other.bytes, other.place)
    }
}

/// The name of a row: `blocks 0-39`, or where there are gaps `20 of blocks 0-38`.
fn name_of(groups: &[Placed]) -> String {
    match (groups[0].name, groups[groups.len() - 1].name) {
        (Name::One(word), _) => word.to_owned(),
        (Name::Numbered(word, first), Name::Numbered(_, last)) if first < last => {
            let gaps = if last - first + 1 == groups.len() { String::new() } else { format!("{} of ", groups.len()) };
            format!("{gaps}{word} {first}-{last}")
        }
        (Name::Numbered(word, number), _) => format!("{word} {number}"),
    }
}

/// Estimates of everything but weights and staging buffers.
struct Activations<'a> {
    model: &'a ModelSpec,
    config: &'a Config,
}

impl Activations<'_> {
    /// Bytes at the peak of `stage`; empty where there is no estimate.
    fn of(&self, stage: Stage) -> Option<i64> {
        match stage {
            Stage::Load => Some(0),
            Stage::Encode => Some(self.encode()),
            Stage::Denoise => self.denoise(),
            Stage::Decode => self.decode(),
        }
    }

    /// Bytes of one number in the compute type.
    fn bytes(&self) -> i64 {
        self.config.dtype.bytes() as i64
    }

    /// Where the text encoder runs on the host, what it hands on is all that comes to the GPU. Elsewhere prompts are taken to have a token a byte, as
    /// without a checkpoint; real tokenizers make fewer.
    fn encode(&self) -> i64 {
        if self.config.offload_text_encoder == OffloadTextEncoder::Cpu {
            return self.prompt_embeddings();
        }
        let uncond = self.config.has_guidance().then_some(&self.config.negative_prompt);
        let prompts = [Some(&self.config.prompt), uncond].into_iter().flatten();
        let spec = &self.model.text_encoder;
        let longest = prompts.map(|prompt| byte_tokens(prompt, spec.max_tokens).len()).max().unwrap_or(0);
        CUBLAS_WORKSPACE_BYTES + TextEncoder::new(spec).activation_bytes(self.prompts(), longest as i64, self.bytes())
    }

    /// Prompts: for the cond prediction, and for the uncond one where there is guidance.
    fn prompts(&self) -> i64 {
        if self.config.has_guidance() { 2 } else { 1 }
    }

    fn prompt_embeddings(&self) -> i64 {
        self.prompts() * self.model.text_encoder.max_tokens * self.model.text_encoder.d_model * self.bytes()
    }

    /// The latents, on the GPU in the compute type.
    fn latents(&self) -> i64 {
        self.config.latent_shape(self.model).iter().product::<i64>() * self.bytes()
    }

    /// The prompt embeddings, the latents of a pass, and what the pass holds.
    fn denoise(&self) -> Option<i64> {
        let transformer = Transformer::of(self.config, &self.model.transformer);
        let latents = self.config.latent_shape(self.model);
        let batch = if self.config.guidance_batch == Some(true) { 2 } else { 1 };
        let pass = transformer.activation_bytes(batch, latents, self.model.text_encoder.max_tokens, self.bytes())?;
        Some(CUBLAS_WORKSPACE_BYTES + self.prompt_embeddings() + batch * self.latents() + pass)
    }

    /// The latents, and what the decoder holds.
    fn decode(&self) -> Option<i64> {
        let latents = self.config.latent_shape(self.model);
        let decoder = VaeDecoder::new(&self.model.vae);
        let held = decoder.activation_bytes(latents, Decoding::of(self.config).ok()?, self.bytes(), &|bytes| block_bytes(bytes) as i64);
        Some(CUBLAS_WORKSPACE_BYTES + self.latents() + held)
    }
}

/// What an allocation of `bytes` counts for in libtorch's caching allocator (`c10/cuda/CUDACachingAllocator.cpp`, torch 2.13): a multiple of 512
/// bytes, and from 10 MiB on all of its own segment, which is a multiple of 2 MiB, unless more than 1 MiB of that would be left for others.
fn block_bytes(bytes: i64) -> u64 {
    const MIB: u64 = 1 << 20;
    let rounded = (bytes as u64).max(1).next_multiple_of(512);
    let segment = rounded.next_multiple_of(2 * MIB);
    if rounded >= 10 * MIB && segment - rounded <= MIB { segment } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_counts_as_libtorch_counts_it() {
        assert_eq!(block_bytes(1), 512);
        assert_eq!(block_bytes(3 << 20), 3 << 20);
        assert_eq!(block_bytes((20 << 20) - 100), 20 << 20);
        assert_eq!(block_bytes((20 << 20) + 1), (20 << 20) + 512);
    }
}
