//! The flags that are more than a number or a yes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Type of arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32 bits.
    Fp32,
    /// 16 bits with fp32's range.
    Bf16,
    /// 16 bits.
    Fp16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::Fp32 => 4,
            Dtype::Bf16 | Dtype::Fp16 => 2,
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Fp32 => "fp32",
            Dtype::Bf16 => "bf16",
            Dtype::Fp16 => "fp16",
        }
    }
}

/// Which attention kernel the transformer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttnType {
    /// The one that PyTorch picks.
    Sdpa,
    /// Flash attention: no score matrix, 16-bit types only.
    Flash,
    /// Memory-efficient attention: no score matrix, any type.
    MemEfficient,
    /// Plain matrix products: the whole score matrix exists at once.
    Math,
}

impl AttnType {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            AttnType::Sdpa => "sdpa",
            AttnType::Flash => "flash",
            AttnType::MemEfficient => "mem_efficient",
            AttnType::Math => "math",
        }
    }
}

/// Which sampler walks the sigma schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// UniPC of order 2: predictor and corrector.
    #[default]
    Unipc,
    /// Euler: one straight line a step.
    Euler,
    /// DPM++ 2M: multistep of order 2.
    Dpmpp,
}

impl Sampler {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Sampler::Unipc => "unipc",
            Sampler::Euler => "euler",
            Sampler::Dpmpp => "dpmpp",
        }
    }
}

/// How the weights of the transformer's blocks are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDtype {
    /// In the type of arithmetic.
    #[default]
    AsStored,
    /// Linear layers in 8 bits, 4 of exponent and 3 of mantissa, with a scale for each output; made the type of arithmetic again as they are used.
    Fp8E4m3,
}

impl WeightDtype {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            WeightDtype::AsStored => "as_stored",
            WeightDtype::Fp8E4m3 => "fp8_e4m3",
        }
    }
}

/// How libtorch gets the GPU's memory from the driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocator {
    /// Its caching allocator, with segments of fixed size.
    #[default]
    Native,
    /// The same with segments that grow, of pages that are mapped as they are needed: less is reserved beyond what is allocated.
    ExpandableSegments,
    /// The driver's own pool.
    CudaMallocAsync,
}

impl Allocator {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Allocator::Native => "native",
            Allocator::ExpandableSegments => "expandable_segments",
            Allocator::CudaMallocAsync => "cuda_malloc_async",
        }
    }
}

/// What becomes of a run that is out of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOom {
    /// It ends.
    #[default]
    Fail,
    /// It goes on at the next lower level, from the last finished step.
    Lower,
}

/// Where the text encoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OffloadTextEncoder {
    /// On the GPU, resident.
    Off,
    /// On the CPU; its prompt embeddings are copied once.
    Cpu,
    /// On the GPU, layer by layer from the host; tokens are looked up on the host, where the table of embeddings stays.
    Stream,
}

impl OffloadTextEncoder {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            OffloadTextEncoder::Off => "off",
            OffloadTextEncoder::Cpu => "cpu",
            OffloadTextEncoder::Stream => "stream",
        }
    }
}

impl<'de> Deserialize<'de> for OffloadTextEncoder {
    /// The page writes `true` and `false`; `off`, `cpu` and `stream` say more.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Yes(bool),
            Word(String),
        }
        match Spelling::deserialize(deserializer)? {
            Spelling::Yes(true) => Ok(OffloadTextEncoder::Cpu),
            Spelling::Yes(false) => Ok(OffloadTextEncoder::Off),
            Spelling::Word(word) => match word.as_str() {
                "off" => Ok(OffloadTextEncoder::Off),
                "cpu" => Ok(OffloadTextEncoder::Cpu),
                "stream" => Ok(OffloadTextEncoder::Stream),
                other => Err(serde::de::Error::custom(format!("unknown place `{other}`, expected `off`, `cpu` or `stream`"))),
            },
        }
    }
}

/// How many transformer blocks stay on the GPU where the others are streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResidentBlocks {
    /// So many.
    Count(u32),
    /// As many as the GPU has room for.
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

impl std::fmt::Display for ResidentBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ResidentBlocks::Count(count) => count.fmt(f),
            ResidentBlocks::Auto => f.write_str(Self::AUTO),
        }
    }
}

impl Serialize for ResidentBlocks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ResidentBlocks::Count(count) => serializer.serialize_u32(*count),
            ResidentBlocks::Auto => serializer.serialize_str(Self::AUTO),
        }
    }
}

impl<'de> Deserialize<'de> for ResidentBlocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Count(u32),
            Word(String),
        }
        match Spelling::deserialize(deserializer) {
            Ok(Spelling::Count(count)) => Ok(ResidentBlocks::Count(count)),
            Ok(Spelling::Word(word)) if word == Self::AUTO => Ok(ResidentBlocks::Auto),
            _ => Err(serde::de::Error::custom("expected a number of blocks or `auto`")),
        }
    }
}

/// Where streamed weights come from each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamFrom {
    /// From the host's memory, which they are read into once.
    Memory,
    /// From the checkpoint's mapped files: slower, for a host without memory for them.
    File,
    /// From memory where the host has enough of it free, else from the files.
    Auto,
}

impl StreamFrom {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            StreamFrom::Memory => "memory",
            StreamFrom::File => "file",
            StreamFrom::Auto => "auto",
        }
    }
}
