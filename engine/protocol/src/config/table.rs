//! Every flag, once: its key, its type, what holds where it is left out, and what people are told about it.
//!
//! `Settings`, `Config`, the reading of settings, the columns of `results.csv`, the flags that an answer prints, the table in `sweeps/README.md`, the schema
//! of sweep files, `lowmem flags` and the generators of property tests come from this list. To add a flag, add an entry here, and make it act where it acts;
//! rules that tie several flags together are in `resolve.rs`. Then `make generated` writes the documents anew.

use std::sync::LazyLock;

use serde_json::Value;

use super::flag::Preset::{Always, Derived, FromLevel, OfModel, OnCpu};
use super::flag::{About, At, Field, FlagOf, Group, Preset, Results, flags};
use crate::flag_values::{
    Allocator, AttnType, CpSplit, Dtype, FlagValue, Flexcache, FlexcacheOffload, Fused, LinearDtype, LoadWeights, OffloadTextEncoder,
    OnOom, PinnedMemory, ResidentBlocks, Resolution, Sampler, Sigmas, StepsMeasured, StreamFrom, WeightDtype,
};

/// A flag of a configuration.
pub type Flag = FlagOf<Settings, Config>;

/// Tile side in latent pixels, the page's default.
pub(super) const TILE_SIZE: u32 = 8;
/// The most that neighbouring tiles share by default. However large they are, their borders show no more than those of small ones that share a quarter.
pub(super) const TILE_OVERLAP: u32 = 3;

/// Tokens that a transformer block takes at a time by default. Slices of this size fill a GPU, so they cost no time, and what a block needs in
/// passing is then one or two hundred MiB for the widest published layer, whatever the length of the video.
const SEQUENCE_CHUNK: u32 = 4096;

/// The memory level that takes least of the GPU.
pub(super) const LAST_LEVEL: u8 = 3;

/// Parts of a token sequence at most: in more there would be next to nothing.
pub const MOST_GPUS: u32 = 1024;

const TILING: &str = "the VAE is not tiled: set vae_tiling=true or low_mem_level=1";
const STREAMING: &str = "no transformer block is streamed: set offload_dit=true or low_mem_level=3";
const NO_CACHE: &str = "there is no cache: set flexcache=teacache, for example";
const THRESHOLD: &str = "only flexcache=teacache, magcache, firstblock and freecache go by a threshold";
const SPARGE: &str = "only attn_type=sparge leaves keys out";
const GUIDANCE: &str = "guidance_scale=1 has no uncond prediction";

fn about(group: Group, results: Results) -> About<Config> {
    About::new(group, results)
}

flags! {
    config {
        /// The model's name: `lowmem models` lists them.
        always model: String = Derived("must be given"), about(Group::Video, Results::Other).name();

        /// Width and height of the video: `480p`, `720p`, `1080p` (1920x1088) or WIDTHxHEIGHT, in multiples that the model can.
        always resolution: Resolution = OfModel(|model| model.sampling.resolution.into()), about(Group::Video, Results::Other).unit("pixels");

        /// Frames of the video: for Wan 1 more than a multiple of 4.
        always frames: u32 = OfModel(|model| model.sampling.frames), about(Group::Video, Results::Other).unit("frames").range(1, 1 << 16);

        /// What the video shows.
        always prompt: String = Always("a cat".into()), about(Group::Prompt, Results::Other);

        /// What it does not show: the prompt of the uncond prediction.
        always negative_prompt: String = Always(String::new()),
            about(Group::Prompt, Results::Other).idle(|config| !config.has_guidance(), GUIDANCE);

        /// The picture that the video begins with: a PNG, JPEG or WebP file. For models that take one.
        sometimes image: String = Derived("none; a model that needs one is measured with a grey one"), about(Group::Prompt, Results::Other);

        /// The picture that the video ends with, beside the one that it begins with. For models that take the picture beside the latents.
        sometimes last_image: String = Derived("none"), about(Group::Prompt, Results::Other);

        /// Seed of the starting noise, and of the weights where there is no checkpoint.
        always seed: i64 = Always(0), about(Group::Prompt, Results::Other);

        /// Sampler steps.
        always steps: u32 = OfModel(|model| model.sampling.steps), about(Group::Sampling, Results::Other).unit("steps").range(1, 1000);

        /// The noise level at each step, for models and LoRAs that are made for few of them: `1, 0.9375, 0.8333, 0.625`. Timesteps are 1000 times as much. It says how many steps there are.
        sometimes sigmas: Sigmas = Derived("evenly spaced, then shifted by flow_shift"), about(Group::Sampling, Results::Other);

        /// Which sampler walks the sigma schedule.
        always sampler: Sampler = OfModel(|model| model.sampling.sampler), about(Group::Sampling, Results::Other);

        /// Weight of the difference between the cond and the uncond prediction. At 1 there is no uncond pass, which halves the time.
        always guidance_scale: f64 = OfModel(|model| model.sampling.guidance_scale), about(Group::Sampling, Results::Other).at_least(1);

        /// The guidance scale of the low-noise transformer, for a model that is a pool of two.
        sometimes low_noise_guidance_scale: f64 = Derived("the model's, else guidance_scale"),
            about(Group::Sampling, Results::Other).at_least(1)
                .idle(|config| config.low_noise_guidance_scale.is_none(), "this model has one transformer");

        /// Shift of the sigma schedule: larger gives more of the steps to high noise.
        always flow_shift: f64 = OfModel(|model| model.sampling.flow_shift),
            about(Group::Sampling, Results::Other).idle(|config| config.sigmas.is_some(), "sigmas are shifted already");

        /// Cond and uncond prediction come from one pass over both, and not from one pass after the other: more memory, fewer copies of streamed weights.
        sometimes guidance_batch: bool = Always(false),
            about(Group::Sampling, Results::Close).idle(|config| !config.has_guidance(), GUIDANCE);

        /// Which cache lets sampler steps leave out transformer blocks. It saves time and changes the video.
        always flexcache: Flexcache = Always(Flexcache::None), about(Group::Sampling, Results::Lossy).of_diffusion();

        /// How much a step may differ and still be left out: for `teacache`, `magcache`, `firstblock` and `freecache`.
        sometimes flexcache_threshold: f64 = Derived("what was published for the cache and the model: `docs/caches.md`"),
            about(Group::Sampling, Results::Lossy).at_least(0).of_diffusion()
                .idle(|config| !config.flexcache.has_threshold(), THRESHOLD)
                .idle(|config| config.flexcache_speedup.is_some(), "flexcache_speedup sets it: leave one of the two out");

        /// How many times as fast the steps are to be: the threshold is set so that so many are left out. For `teacache` and `magcache`.
        sometimes flexcache_speedup: f64 = Derived("nothing: flexcache_threshold says"),
            about(Group::Sampling, Results::Lossy).range(1, 8).of_diffusion()
                .idle(|config| !config.flexcache.is_known_before(), "only flexcache=teacache and flexcache=magcache can be set so");

        /// Steps at the start that are computed: of each transformer, where a model has two.
        sometimes flexcache_warmup: u32 = Derived("what was published for the cache"),
            about(Group::Sampling, Results::Lossy).unit("steps").range(0, 1000).of_diffusion().idle(|config| !config.flexcache.is_any(), NO_CACHE);

        /// Steps at the end that are computed.
        sometimes flexcache_cooldown: u32 = Derived("what was published for the cache"),
            about(Group::Sampling, Results::Lossy).unit("steps").range(0, 1000).of_diffusion().idle(|config| !config.flexcache.is_any(), NO_CACHE);

        /// At most so many steps from one that is computed to the next.
        sometimes flexcache_interval: u32 = Derived("5 for taylorseer and taylorseer_modules, 9 for freecache, 3 for magcache, 2 for blockdance and for the self-attention of pab; no limit for the others"),
            about(Group::Sampling, Results::Lossy).unit("steps").range(1, 1000).of_diffusion().idle(|config| !config.flexcache.is_any(), NO_CACHE)
                .idle(|config| config.flexcache == Flexcache::Meancache, "flexcache=meancache has its steps from tables: set flexcache_fresh_steps");

        /// The same for the cross-attention of `pab`, which changes less than self-attention.
        sometimes flexcache_cross_interval: u32 = Derived("3"),
            about(Group::Sampling, Results::Lossy).unit("steps").range(1, 1000).of_diffusion()
                .idle(|config| config.flexcache != Flexcache::Pab, "only flexcache=pab has one for cross-attention");

        /// Order of TaylorSeer's extrapolation: 0 repeats, 1 goes on in a line. It keeps one tensor more than this number. Of `freecache` it is over how many computed steps the mean is taken.
        sometimes flexcache_order: u32 = Always(1),
            about(Group::Sampling, Results::Lossy).range(0, 3).of_diffusion()
                .idle(|config| !config.flexcache.has_order(), "only flexcache=taylorseer, taylorseer_modules and freecache extrapolate");

        /// How many of 50 steps MeanCache computes: 30, 25, 17 or 10. Of other numbers of steps it is the same share, about.
        sometimes flexcache_fresh_steps: u32 = Always(25),
            about(Group::Sampling, Results::Lossy).unit("steps").range(10, 30).of_diffusion()
                .idle(|config| config.flexcache != Flexcache::Meancache, "only flexcache=meancache has its steps from tables");

        /// BlockDance's block: those up to it are left out.
        sometimes flexcache_block: u32 = Derived("20, or the middle one of fewer"),
            about(Group::Sampling, Results::Lossy).range(0, 1000).of_diffusion()
                .idle(|config| config.flexcache != Flexcache::Blockdance, "only flexcache=blockdance begins in the middle");

        /// Where a cache keeps what it reuses.
        sometimes flexcache_offload: FlexcacheOffload = FromLevel(3, FlexcacheOffload::Cpu, FlexcacheOffload::Off),
            about(Group::Placement, Results::Same).of_diffusion().idle(|config| !config.flexcache.is_any(), NO_CACHE)
                .idle(|config| !config.flexcache.keeps_hidden_states(), "flexcache=freecache and flexcache=meancache keep latents alone, which are on the CPU");

        /// The memory level: a preset of the flags below. 0 keeps everything on the GPU, 1 decodes in tiles, 2 also runs the text encoder on the CPU, 3 also
        /// streams the transformer.
        always low_mem_level: u8 = Always(0), about(Group::Memory, Results::Close).range(0, LAST_LEVEL).of_diffusion();

        /// What becomes of a video that runs out of GPU memory. A sweep takes `fail` alone, since it measures each level as it is.
        always on_oom: OnOom = Always(OnOom::Fail),
            about(Group::Memory, Results::Close)
                .idle(|config| !config.has_lower(), "level 3 without resident blocks takes least already")
                .idle_on_cpu("on the CPU no GPU memory runs out");

        /// How libtorch gets the GPU's memory. `PYTORCH_ALLOC_CONF` of your own is not taken over.
        always allocator: Allocator = Always(Allocator::Native),
            about(Group::Memory, Results::Same).idle_on_cpu("on the CPU there is no GPU memory to get");

        /// Room on the GPU that is left to others, a display for example. It is taken off the budget.
        always reserve_gib: f64 = Always(0.0),
            about(Group::Memory, Results::Same).unit("GiB").at_least(0).idle_on_cpu("on the CPU there is no GPU memory to leave");

        /// Parts that the token sequence is split in, a GPU each: context parallelism. `lowmem plan` says what each would hold, `generate` and `sweep` run it.
        sometimes cp_size: u32 = Derived("cp_ulysses times cp_ring"),
            about(Group::Memory, Results::Close).of_diffusion().unit("GPUs").range(1, MOST_GPUS)
                .told(|config| Some(Value::from(config.cp_size.unwrap_or(1))));

        /// GPUs that exchange heads for tokens in self-attention (Ulysses). The model's heads must divide by it.
        sometimes cp_ulysses: u32 = Derived("what of cp_size the model's heads divide by"),
            about(Group::Memory, Results::Close).of_diffusion().unit("GPUs").range(1, MOST_GPUS)
                .told(|config| Some(Value::from(config.cp_ulysses.unwrap_or(1))));

        /// GPUs that pass keys and values on in self-attention (ring attention).
        sometimes cp_ring: u32 = Derived("what is left of cp_size"),
            about(Group::Memory, Results::Close).of_diffusion().unit("GPUs").range(1, MOST_GPUS)
                .told(|config| Some(Value::from(config.cp_ring.unwrap_or(1))));

        /// How much of the token sequence, and with Ulysses of the heads, each GPU has: the same, as much as it is fast (`speed`, which `--gpu A,B` tells), or shares by hand, such as `3:1`.
        sometimes cp_split: CpSplit = Always(CpSplit::Even),
            about(Group::Memory, Results::Close).of_diffusion()
                .idle(|config| config.cp_size.is_none(), "there is one part: set cp_size to 2 or more")
                .told(|config| Some(config.cp_split.clone().unwrap_or_default().tell()));

        /// 2: the cond and the uncond prediction are each made on GPUs of their own.
        sometimes cfg_size: u32 = Always(1),
            about(Group::Memory, Results::Close).of_diffusion().unit("groups of GPUs").range(1, 2)
                .told(|config| Some(Value::from(config.cfg_size.unwrap_or(1))));

        /// Each GPU holds a part of every transformer block, and gets the rest of it from the GPUs that have the other parts of the token sequence, ahead of its turn.
        sometimes shard_weights: bool = Always(false),
            about(Group::Placement, Results::Same).of_diffusion()
                .idle(|config| config.cp_size.is_none() && config.cfg_size.is_none(), "there is one GPU: set cp_size to 2 or more")
                .told(|config| Some(Value::from(config.shard_weights.unwrap_or(false))));

        /// Type of arithmetic and of the weights. A few weights are kept in fp32.
        always dtype: Dtype = OnCpu(Dtype::Fp32, Dtype::Bf16), about(Group::Arithmetic, Results::Close);

        /// How the linear layers of the transformer's blocks wait: as they are, in 8 bits, or in one of GGUF's types. They compute in `dtype` either way, unless `linear_dtype` says otherwise.
        always weight_dtype: WeightDtype = Always(WeightDtype::AsStored), about(Group::Arithmetic, Results::Close);

        /// In which type the linear layers of the transformer's blocks multiply. In 8 bits that is faster and changes the video; their weights wait in the same 8 bits and are used as they are.
        always linear_dtype: LinearDtype = Always(LinearDtype::Dtype), about(Group::Arithmetic, Results::Lossy);

        /// Which attention kernel the transformer uses.
        always attn_type: AttnType = Always(AttnType::Sdpa), about(Group::Arithmetic, Results::Close);

        /// Of the tiles of 64 keys the share that `sparge` attends to: 1 is `sage`.
        sometimes attn_topk: f64 = Always(0.5),
            about(Group::Arithmetic, Results::Lossy).range(0, 1).idle(|config| config.attn_type != AttnType::Sparge, SPARGE);

        /// `sparge` judges tiles by their mean. Where the mean cosine of all pairs of a tile, each with itself among them, is below this, its keys are attended to in any case, or its queries attend to all.
        sometimes attn_similarity: f64 = Always(-0.1),
            about(Group::Arithmetic, Results::Lossy).range(-1, 1).idle(|config| config.attn_type != AttnType::Sparge, SPARGE);

        /// `sparge` leaves out values of a tile all of whose scores are so much below the largest of their rows: their probabilities are below e to the power of minus this.
        sometimes attn_pv_threshold: f64 = Always(50.0),
            about(Group::Arithmetic, Results::Lossy).at_least(0).idle(|config| config.attn_type != AttnType::Sparge, SPARGE);

        /// One kernel where libtorch has several: the norm of queries and keys with their turns (RoPE), GELU in its product, keys and values made in their place, results added by the products that make them, and unpacking of packed
        /// weights. That saves time and memory. It never ran on a GPU, so this is off until it is asked for: `docs/kernels.md`.
        always fused: Fused = Always(Fused::Off), about(Group::Arithmetic, Results::Close);

        /// Tokens that norms, projections, queries and the feed-forward layer take at a time; 0 is all at once. Keys and values are always whole.
        sometimes sequence_chunk: u32 = Always(SEQUENCE_CHUNK),
            about(Group::Arithmetic, Results::Close).unit("tokens").range(0, 1 << 30)
                .told(|config| Some(Value::from(config.sequence_chunk.unwrap_or(0))));

        /// Heads that self-attention takes at a time, so that keys and values exist for those alone; 0 is all at once.
        sometimes head_chunk: u32 = Always(0),
            about(Group::Arithmetic, Results::Close).unit("heads").at_least(0)
                .idle(|config| config.head_chunk.is_none(), "those are all of the model's heads")
                .told(|config| Some(Value::from(config.head_chunk.unwrap_or(0))));

        /// Where the text encoder runs. `true` means `cpu`, `false` means `off`.
        always offload_text_encoder: OffloadTextEncoder = FromLevel(2, OffloadTextEncoder::Cpu, OffloadTextEncoder::Off),
            about(Group::Placement, Results::Close);

        /// When weights are loaded, and how long they are held: on the GPU and on the host. Each is read once either way.
        always load_weights: LoadWeights = Always(LoadWeights::Auto), about(Group::Placement, Results::Same);

        /// The VAE waits on the CPU until it is used, and so does the image encoder where there is one.
        always offload_vae: bool = FromLevel(3, true, false), about(Group::Placement, Results::Same);

        /// The transformer's blocks live on the CPU and are streamed to the GPU, each in three parts.
        always offload_dit: bool = FromLevel(3, true, false), about(Group::Placement, Results::Same);

        /// Of streamed blocks, how many stay on the GPU all the same, spread evenly among the others.
        sometimes resident_blocks: ResidentBlocks = Always(ResidentBlocks::Count(0)),
            about(Group::Placement, Results::Same).unit("blocks").idle(|config| !config.offload_dit, STREAMING);

        /// Parts of blocks, of those that are streamed or that `shard_weights` has on several GPUs, that are on their way while one computes. A block has three.
        sometimes prefetch_blocks: u32 = Always(1),
            about(Group::Placement, Results::Same).unit("parts of blocks").idle(|config| !config.offload_dit && config.shard_weights.is_none(), STREAMING);

        /// Streamed blocks wait in page-locked memory, which copies need to overlap with arithmetic.
        sometimes pinned_memory: PinnedMemory = Always(PinnedMemory::On), about(Group::Placement, Results::Same).idle(|config| !config.offload_dit, STREAMING);

        /// At most so much is page-locked; blocks beyond it wait in ordinary memory.
        sometimes max_pinned_gib: f64 = Derived("no limit"),
            about(Group::Placement, Results::Same).unit("GiB").at_least(0)
                .idle(|config| !config.offload_dit, STREAMING)
                .idle(|config| config.stream_from == Some(StreamFrom::File), "blocks come from their files: set stream_from=memory")
                .idle(|config| config.pinned_memory == Some(PinnedMemory::Off), "no block waits in page-locked memory: set pinned_memory=true");

        /// Where streamed weights come from each time.
        sometimes stream_from: StreamFrom = Always(StreamFrom::Auto),
            about(Group::Placement, Results::Same).idle(|config| !config.offload_dit, STREAMING);

        /// Side of a VAE tile. A smaller tile takes less memory and computes more overlap.
        sometimes vae_tile_size: u32 = Always(TILE_SIZE),
            about(Group::Vae, Results::Close).unit("latent pixels").range(2, 1 << 16).idle(|config| config.vae_tile_size.is_none(), TILING);

        /// What neighbouring tiles share, and blend over.
        sometimes vae_tile_overlap: u32 = Derived("3, or a quarter of vae_tile_size where that is less"),
            about(Group::Vae, Results::Close).unit("latent pixels").idle(|config| config.vae_tile_size.is_none(), TILING);

        /// Latent frames that the VAE decodes at a time.
        always vae_temporal_chunk: u32 = Derived("1; in tiles as many as make about 1024 positions, fewer for a wider VAE"),
            about(Group::Vae, Results::Close).unit("latent frames").range(1, 1 << 16);

        /// What the VAE's convolutions remember between chunks waits in page-locked host memory.
        always activation_offload: bool = Always(false),
            about(Group::Vae, Results::Same)
                .idle(|config| !config.activation_offload, "the VAE decodes all latent frames at once: set vae_temporal_chunk lower");

        /// So many of the steps are run, and times are scaled to all; memory is the same from the second step on. The first one warms up: it counts once.
        sometimes steps_measured: StepsMeasured = Derived("in a sweep 2 on the virtual GPU and 3 on a real one; all elsewhere"),
            about(Group::Measuring, Results::Other).unit("steps");
    }
    settings {
        /// The VAE decodes in tiles.
        vae_tiling: bool = FromLevel(1, true, false),
            about(Group::Vae, Results::Close).told(|config| Some(Value::from(config.vae_tile_size.is_some())));

        /// Taken for the page's sake.
        gradient_checkpointing: bool = Always(false),
            about(Group::Memory, Results::Same).idle(|_| true, "nothing is trained, so no gradient is kept");
    }
}
