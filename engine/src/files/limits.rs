//! How large what a checkpoint holds may be, by its kind: the largest that is real, times a margin. What is larger is refused before it is parsed, so that no small file
//! takes much memory or time.
//!
//! | kind | the largest that is real | limits |
//! |---|---|---|
//! | config | 4 KB, 150 values: the VAE of Wan2.2 | 256 KiB, 20,000 values |
//! | index of shards | 120 KB, 1,100 values: Wan2.1 14B | 4 MiB, 50,000 values |
//! | tokenizer | 17 MB, 0.8 million values, 2.5 MB of text: umT5 | 48 MiB, 2.5 million values, 6 MiB of text |
//! | pieces of a tokenizer | 48 bytes; less than 2 million bytes of all that no other piece begins with | 1 KiB, 2.5 million |
//! | tokens that a tokenizer adds, values of what it does to a text | 300, 60: umT5 | 10,000, 300 |
//! | header of a safetensors file | 150 KB, 11,000 values: Wan2.1 14B in one file | 8 MiB, 200,000 values |
//! | header of a GGUF file | 14 MB, 60 keys: umT5 with its tokenizer | 64 MiB, 20,000 keys |
//! | shards of an index | 12: Wan2.1 14B | 256 |
//! | tensors of a component | 1,095: Wan2.1 14B | 20,000 |
//! | sides of a tensor | 5: a convolution in three dimensions | 16 |
//! | directory and local headers of a `.pth` | 30 KB, 250 entries: umT5 | 4 MiB, 20,000 entries |
//! | pickle of a `.pth` | 60 KB: umT5 | 4 MiB, 32 MiB of memory |
//! | files of a folder that may be weights | 12 | 1,000 |
//!
//! Values count as much as bytes do: a parser keeps some ten times the bytes of a short value such as `[]`.

/// What a JSON file of a kind may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonLimits {
    /// What people call such a file.
    pub(crate) kind: &'static str,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Numbers, texts, lists and all other values in it.
    pub(crate) values: u64,
    /// Bytes of all texts in it, keys included.
    pub(crate) text: u64,
}

/// `config.json`, `model_index.json`, `scheduler_config.json`.
pub(crate) const CONFIG: JsonLimits = JsonLimits { kind: "config", bytes: 256 << 10, values: 20_000, text: 256 << 10 };

/// `.safetensors.index.json`.
pub(crate) const INDEX: JsonLimits = JsonLimits { kind: "index of shards", bytes: 4 << 20, values: 50_000, text: 4 << 20 };

/// `tokenizer.json`.
pub(crate) const TOKENIZER: JsonLimits = JsonLimits { kind: "tokenizer", bytes: 48 << 20, values: 2_500_000, text: 6 << 20 };

/// Pieces of a `spiece.model`: umT5 has 256,384.
pub(crate) const PIECES: usize = 600_000;

/// Bytes of a tokenizer's piece.
pub(crate) const PIECE_BYTES: usize = 1 << 10;

/// Bytes of all pieces of a tokenizer that no piece before begins with: for each the tokenizers library keeps a table, of some 350 bytes.
pub(crate) const PIECE_BRANCHES: usize = 2_500_000;

/// Tokens beside the pieces.
pub(crate) const ADDED_TOKENS: usize = 10_000;

/// Values of what a tokenizer does to a text before and after it is cut: each may be an expression to compile.
pub(crate) const TOKENIZER_PARTS: u64 = 300;

/// What a safetensors file begins with. Some writers put pictures of their work into it.
pub(crate) const HEADER: JsonLimits = JsonLimits { kind: "header of a safetensors file", bytes: 8 << 20, values: 200_000, text: 8 << 20 };

/// Bytes of what a GGUF file has before its tensors. Its values are skipped, not kept.
pub(crate) const GGUF_HEADER: usize = 64 << 20;

/// Keys of a GGUF file, which some have for each tensor.
pub(crate) const GGUF_KEYS: u64 = 20_000;

/// Files that an index may name.
pub(crate) const SHARDS: usize = 256;

/// Tensors of one component, all its files together.
pub(crate) const TENSORS: usize = 20_000;

/// Sides of a tensor.
pub(crate) const SIDES: usize = 16;

/// Bytes that are read of a `.pth` to find its entries.
pub(crate) const ARCHIVE_BYTES: u64 = 4 << 20;

/// Entries of a `.pth`: a tensor's values are one.
pub(crate) const ENTRIES: u64 = 20_000;

/// Bytes of the pickle in a `.pth`.
pub(crate) const PICKLE_BYTES: u64 = 4 << 20;

/// Bytes of memory that a pickle's values may take.
pub(crate) const PICKLE_MEMORY: usize = 32 << 20;

/// Files in one folder that look like weights.
pub(crate) const FILES: usize = 1000;
