//! The flags that are more than a number or a yes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::value::{FlagValue, Kind, text, words};

words! { only
    /// Type of arithmetic.
    Dtype {
        /// 16 bits with fp32's range.
        Bf16 = "bf16",
        /// 16 bits.
        Fp16 = "fp16",
        /// 32 bits.
        Fp32 = "fp32",
    }
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::Fp32 => 4,
            Dtype::Bf16 | Dtype::Fp16 => 2,
        }
    }
}

words! { only
    /// Which attention kernel the transformer uses.
    AttnType {
        /// The one that PyTorch picks.
        Sdpa = "sdpa",
        /// Flash attention: no score matrix, 16-bit types only.
        Flash = "flash",
        /// cuDNN's attention: no score matrix, 16-bit types only.
        Cudnn = "cudnn",
        /// Memory-efficient attention: no score matrix, any type.
        MemEfficient = "mem_efficient",
        /// Our own kernel in 8 bits: no score matrix, and near the result. It gives up some quality for time.
        Sage = "sage",
        /// The same over some of the keys: for each 128 queries those tiles of 64 whose mean is nearest to theirs (`attn_topk`). Self-attention alone.
        Sparge = "sparge",
        /// Plain matrix products: the whole score matrix exists at once.
        Math = "math",
    }
}

words! { only
    /// Which sampler walks the sigma schedule.
    Sampler {
        /// UniPC of order 2: predictor and corrector.
        Unipc = "unipc",
        /// Euler: one straight line a step.
        Euler = "euler",
        /// DPM++ 2M: multistep of order 2.
        Dpmpp = "dpmpp",
        /// LCM: each step goes all the way and back with new noise, for models and LoRAs that are made for few steps.
        Lcm = "lcm",
    }
}

words! { only
    /// How the weights of the transformer's blocks are stored.
    WeightDtype {
        /// In the type of arithmetic.
        AsStored = "as_stored",
        /// Linear layers in 8 bits, 4 of exponent and 3 of mantissa, with a scale for each output; made the type of arithmetic again as they are used.
        Fp8E4m3 = "fp8_e4m3",
        /// The same with 5 of exponent and 2 of mantissa.
        Fp8E5m2 = "fp8_e5m2",
        /// The same in whole numbers of 8 bits.
        Int8 = "int8",
        /// Linear layers in blocks as GGUF files have them, so many numbers with scales of their own; made the type of arithmetic again as they are used. Here about
        /// 8.5 bits a number.
        Q8_0 = "q8_0",
        /// 6.6 bits a number.
        Q6K = "q6_k",
        /// 5.5 bits a number.
        Q5K = "q5_k",
        /// 6 bits a number.
        Q5_1 = "q5_1",
        /// 5.5 bits a number.
        Q5_0 = "q5_0",
        /// 4.5 bits a number.
        Q4K = "q4_k",
        /// 5 bits a number.
        Q4_1 = "q4_1",
        /// 4.5 bits a number.
        Q4_0 = "q4_0",
        /// 4.5 bits a number, in steps that are finer near zero.
        Iq4Nl = "iq4_nl",
        /// 4.25 bits a number, in such steps.
        Iq4Xs = "iq4_xs",
        /// 3.4 bits a number.
        Q3K = "q3_k",
        /// 2.6 bits a number.
        Q2K = "q2_k",
    }
    nothing: AsStored
}

words! { only
    /// In which type the linear layers of the transformer's blocks multiply.
    LinearDtype {
        /// The type of arithmetic.
        Dtype = "dtype",
        /// FP8 e4m3, with a scale for each token and for each output: GPUs of compute capability 8.9 and later.
        Fp8 = "fp8",
        /// Whole numbers of 8 bits, with such scales: GPUs of compute capability 8.0 and later.
        Int8 = "int8",
    }
    nothing: Dtype
}

words! { only
    /// How libtorch gets the GPU's memory from the driver.
    Allocator {
        /// Its caching allocator, with segments of fixed size.
        Native = "native",
        /// The same with segments that grow, of pages that are mapped as they are needed: less is reserved beyond what is allocated.
        ExpandableSegments = "expandable_segments",
        /// The driver's own pool.
        CudaMallocAsync = "cuda_malloc_async",
    }
    nothing: Native
}

words! { only
    /// What becomes of a run that is out of memory.
    OnOom {
        /// It ends.
        Fail = "fail",
        /// It goes on at the next lower level that is predicted to fit, from the last finished step.
        Lower = "lower",
    }
    nothing: Fail
}

words! { only
    /// Where streamed weights come from each time.
    StreamFrom {
        /// From memory where the host has enough of it free, else from the files.
        Auto = "auto",
        /// From the host's memory, which they are read into once.
        Memory = "memory",
        /// From the checkpoint's mapped files: slower, for a host without memory for them.
        File = "file",
    }
}

words! { only
    /// When weights are loaded, and how long they are held.
    LoadWeights {
        /// At the start where the host has enough memory free for all of them, else as they are used.
        Auto = "auto",
        /// All of them before the first stage; they are held until the video is done.
        AtStart = "at_start",
        /// Those of a model as its stage begins; they are let go of when it is over. A pool's two transformers come one after the other.
        AsUsed = "as_used",
    }
}

words! { only
    /// Which cache lets sampler steps leave out transformer blocks.
    Flexcache {
        /// None: every step computes all blocks.
        None = "none",
        /// TeaCache: a step whose timestep embedding has changed little adds what the blocks added before.
        Teacache = "teacache",
        /// MagCache: the same, by published ratios of what the blocks add from step to step.
        Magcache = "magcache",
        /// First-block cache: a step whose first block adds nearly what it added before leaves out the others.
        Firstblock = "firstblock",
        /// TaylorSeer on what all blocks add: between two computed steps it is extrapolated.
        Taylorseer = "taylorseer",
        /// BlockDance: every other step begins with a block in the middle, from the state that the step before had there.
        Blockdance = "blockdance",
        /// Pyramid attention broadcast: between two steps that compute it, what attention gave is used again, of each block by itself.
        Pab = "pab",
        /// TaylorSeer on what each part of each block gives: self-attention, cross-attention, feed-forward.
        TaylorseerModules = "taylorseer_modules",
        /// FreeCache: a step whose prediction the ones before it foretell, nearly, does without the transformer.
        Freecache = "freecache",
        /// MeanCache: the same at steps that a table has, found for other models; experimental.
        Meancache = "meancache",
    }
    nothing: None
}

words! { switch(Cpu, Off)
    /// Where a cache keeps what it reuses.
    FlexcacheOffload {
        /// On the GPU.
        Off = "off",
        /// On the host, page-locked; it crosses the bus in slices, when a step needs it.
        Cpu = "cpu",
    }
}

words! { switch(Cpu, Off)
    /// Where the text encoder runs.
    OffloadTextEncoder {
        /// On the GPU, resident.
        Off = "off",
        /// On the CPU; its prompt embeddings are copied once.
        Cpu = "cpu",
        /// On the GPU, layer by layer from the host; tokens are looked up on the host, where the table of embeddings stays.
        Stream = "stream",
    }
}

/// Makes an enum of a switch that may be a third thing too: `true`, `false` or a word, each with what it means.
macro_rules! switch_or_word {
    (
        $(#[$about:meta])* $name:ident {
            $(#[$on_about:meta])* On: $on:literal,
            $(#[$off_about:meta])* Off: $off:literal,
            $(#[$third_about:meta])* $third:ident = $word:literal: $meaning:literal,
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[$off_about])*
            Off,
            $(#[$on_about])*
            On,
            $(#[$third_about])*
            $third,
        }

        impl From<bool> for $name {
            fn from(is_on: bool) -> Self {
                if is_on { Self::On } else { Self::Off }
            }
        }

        impl FlagValue for $name {
            fn kind() -> Kind {
                Kind::WordOrSwitch(vec![("true", $on), ("false", $off), ($word, $meaning)])
            }

            fn read(value: &Value) -> Option<Self> {
                if text(value)? == $word { Some(Self::$third) } else { bool::read(value).map(Self::from) }
            }

            fn tell(&self) -> Value {
                match self {
                    Self::Off => Value::from(false),
                    Self::On => Value::from(true),
                    Self::$third => Value::from($word),
                }
            }
        }
    };
}

switch_or_word! {
    /// Whether streamed blocks wait in page-locked memory.
    PinnedMemory {
        /// Page-locked, as far as the machine lets it be.
        On: "what the machine does not page-lock waits in ordinary memory, with a warning",
        /// In ordinary memory.
        Off: "nothing is page-locked",
        /// Page-locked, or not at all.
        Require = "require": "what the machine does not page-lock ends the run",
    }
}

switch_or_word! {
    /// Whether kernels of our own stand where libtorch has several.
    Fused {
        /// Ours.
        On: "our kernels; a GPU that has none is refused",
        /// libtorch's kernels.
        Off: "libtorch's kernels",
        /// Ours, where the GPU has them.
        Auto = "auto": "our kernels where the GPU has them, libtorch's on older ones and on the CPU",
    }
}

impl Default for Fused {
    /// Configurations that were written before there was a choice had these.
    fn default() -> Self {
        Self::Off
    }
}

impl Fused {
    /// Whether they are ours, once that is settled.
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// How many transformer blocks stay on the GPU where the others are streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResidentBlocks {
    /// So many.
    Count(u32),
    /// As few as let the copies of the others hide behind arithmetic, or as many as the GPU has room for.
    Auto,
}

impl ResidentBlocks {
    const AUTO: &'static str = "auto";

    /// How many, once that is settled.
    pub fn count(self) -> Option<u32> {
        match self {
            ResidentBlocks::Count(count) => Some(count),
            ResidentBlocks::Auto => None,
        }
    }
}

impl FlagValue for ResidentBlocks {
    fn kind() -> Kind {
        Kind::IntegerOrWord(vec![(
            Self::AUTO,
            "as few as let the copies of the others hide behind arithmetic; where they cannot, as many as fit",
        )])
    }

    fn read(value: &Value) -> Option<Self> {
        if text(value)? == Self::AUTO { Some(Self::Auto) } else { u32::read(value).map(Self::Count) }
    }

    fn tell(&self) -> Value {
        match self {
            ResidentBlocks::Count(count) => Value::from(*count),
            ResidentBlocks::Auto => Value::from(Self::AUTO),
        }
    }

    fn asks_for_nothing(&self) -> bool {
        *self == Self::Count(0)
    }
}

impl std::fmt::Display for ResidentBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ResidentBlocks::Count(count) => count.fmt(f),
            ResidentBlocks::Auto => f.write_str(Self::AUTO),
        }
    }
}

/// How a token sequence is shared out among ranks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum CpSplit {
    /// To each the same.
    #[default]
    Even,
    /// To each as its GPU is fast.
    Speed,
    /// To each so much of all together.
    Shares(Vec<u32>),
}

impl CpSplit {
    const EVEN: &'static str = "even";
    const SPEED: &'static str = "speed";

    /// So much to each, where that is said.
    pub fn shares(&self) -> Option<&[u32]> {
        match self {
            Self::Shares(shares) => Some(shares),
            Self::Even | Self::Speed => None,
        }
    }
}

impl FlagValue for CpSplit {
    fn kind() -> Kind {
        Kind::SharesOrWord(vec![(Self::EVEN, "to each GPU the same"), (Self::SPEED, "to each as it is fast by the plan's model")])
    }

    fn read(value: &Value) -> Option<Self> {
        match text(value)?.as_str() {
            Self::EVEN => Some(Self::Even),
            Self::SPEED => Some(Self::Speed),
            shares => {
                let shares: Vec<u32> = shares.split(':').map(|share| share.trim().parse().ok()).collect::<Option<_>>()?;
                let are_shares = shares.len() > 1 && shares.iter().all(|share| (1..=1000).contains(share));
                are_shares.then_some(Self::Shares(shares))
            }
        }
    }

    fn tell(&self) -> Value {
        match self {
            Self::Even => Value::from(Self::EVEN),
            Self::Speed => Value::from(Self::SPEED),
            Self::Shares(shares) => Value::from(shares.iter().map(u32::to_string).collect::<Vec<_>>().join(":")),
        }
    }

    fn asks_for_nothing(&self) -> bool {
        *self == Self::Even
    }
}

/// How many of the sampler steps are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepsMeasured {
    /// So many.
    Count(u32),
    /// All of them. A configuration says so by naming none.
    All,
}

impl StepsMeasured {
    const ALL: &'static str = "all";

    /// How many, where it is not all of them.
    pub fn count(self) -> Option<u32> {
        match self {
            StepsMeasured::Count(count) => Some(count),
            StepsMeasured::All => None,
        }
    }
}

impl From<u32> for StepsMeasured {
    fn from(count: u32) -> Self {
        Self::Count(count)
    }
}

impl FlagValue for StepsMeasured {
    fn kind() -> Kind {
        Kind::IntegerOrWord(vec![(Self::ALL, "all of them")])
    }

    fn read(value: &Value) -> Option<Self> {
        if text(value)? == Self::ALL { Some(Self::All) } else { u32::read(value).map(Self::Count) }
    }

    fn tell(&self) -> Value {
        match self {
            StepsMeasured::Count(count) => Value::from(*count),
            StepsMeasured::All => Value::from(Self::ALL),
        }
    }
}

/// Width and height of a video in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Resolution {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl Resolution {
    /// Names that people use for a pair: the sizes of Wan's own scripts, and full HD in the multiples of 16 that its models take.
    const NAMED: [(&'static str, &'static str, [u32; 2]); 3] =
        [("480p", "832x480", [832, 480]), ("720p", "1280x720", [1280, 720]), ("1080p", "1920x1088", [1920, 1088])];

    /// Pixels of a frame.
    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

impl From<[u32; 2]> for Resolution {
    fn from([width, height]: [u32; 2]) -> Self {
        Self { width, height }
    }
}

impl std::fmt::Display for Resolution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FlagValue for Resolution {
    fn kind() -> Kind {
        Kind::Size(Self::NAMED.iter().map(|(name, means, _)| (*name, *means)).collect())
    }

    /// Wan's own scripts write a star between the sides.
    fn read(value: &Value) -> Option<Self> {
        let text = text(value)?.to_ascii_lowercase();
        let named = Self::NAMED.iter().find(|(name, ..)| *name == text).map(|(.., sides)| *sides);
        let sides = || text.split_once(['x', '*', '×']).and_then(|(w, h)| Some([w.trim().parse().ok()?, h.trim().parse().ok()?]));
        named.or_else(sides).map(Self::from)
    }

    fn tell(&self) -> Value {
        Value::from(self.to_string())
    }
}

/// In JSON as they are told, and read as people write them.
macro_rules! told_in_json {
    ($($name:ident),*) => { $(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.tell().serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Value::deserialize(deserializer)?;
                Self::read(&value).ok_or_else(|| serde::de::Error::custom(format!("{value}: expected {}", Self::kind().words())))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                Self::kind().json_schema()
            }
        }
    )* };
}

told_in_json!(CpSplit, Fused, PinnedMemory, ResidentBlocks, Resolution, StepsMeasured);

impl Default for ResidentBlocks {
    fn default() -> Self {
        Self::Count(0)
    }
}
