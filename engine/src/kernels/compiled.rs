//! What our kernels come to on each kind of GPU that they are for: compiled here, without such a GPU.

use engine_protocol::SAGE_CAPABILITIES;
use serde::{Deserialize, Serialize};

use super::element::Element;
use super::nvrtc::{self, Source};
use super::{gate_and_residual, layer_norm, norm_and_turn, sage, unpack};
use crate::error::{Error, Result};

/// A kernel as the compiler made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledKernels {
    /// Its name.
    pub kernel: String,
    /// The compute capability that it is for.
    pub capability: String,
    /// What it is compiled for.
    pub element: String,
    /// Channels of a head, where it is compiled for so many.
    pub head: Option<i64>,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// Bytes that a thread writes to memory for lack of registers, each time that it passes there.
    pub spill_store_bytes: u32,
    /// Bytes that it reads again.
    pub spill_load_bytes: u32,
}

/// Compiles every kernel for every kind of GPU.
///
/// # Errors
/// There is no NVRTC, or it refuses one of them.
pub fn compiled_everywhere() -> Result<Vec<CompiledKernels>> {
    let mut kernels = Vec::new();
    for capability in SAGE_CAPABILITIES {
        for element in Element::ALL {
            let mut compile = |head, source: &Source, mut options: Vec<String>, names: &[&str]| -> Result<()> {
                options.push("--ptxas-options=-v".into());
                let log = nvrtc::compile(source, &options)?.log;
                for name in names {
                    let log = of_kernel(&log, name).ok_or_else(|| Error::Input(format!("NVRTC says nothing of {name}: {log}")))?;
                    kernels.push(CompiledKernels {
                        kernel: (*name).to_owned(),
                        capability: format!("{}.{}", capability.0, capability.1),
                        element: element.cpp().to_owned(),
                        head,
                        registers: before(log, " registers").unwrap_or(0),
                        shared_bytes: before(log, " bytes smem").unwrap_or(0),
                        spill_store_bytes: before(log, " bytes spill stores").unwrap_or(0),
                        spill_load_bytes: before(log, " bytes spill loads").unwrap_or(0),
                    });
                }
                Ok(())
            };
            for head in [64, 128] {
                let options = sage::Variant::padded(element, head).options(capability);
                compile(Some(head), sage::SOURCE, options, &sage::NAMES)?;
            }
            for kernel in [&layer_norm::KERNEL, &norm_and_turn::KERNEL, &gate_and_residual::KERNEL, &unpack::KERNEL] {
                compile(None, kernel.source, element.options(capability), &[kernel.name])?;
            }
        }
    }
    Ok(kernels)
}

/// What the assembler says of one kernel.
fn of_kernel<'a>(log: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = log.split_once(&format!("Compiling entry function '{name}'"))?;
    Some(rest.split("Compiling entry function").next().unwrap_or(rest))
}

/// The number that stands before these words.
fn before(log: &str, words: &str) -> Option<u32> {
    log.split_once(words)?.0.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_words_are_read() {
        let log = "ptxas info    : Compiling entry function 'one' for 'sm_80'\n    40 bytes stack frame, 56 bytes spill stores, 76 bytes spill loads\n\
                   ptxas info    : Used 255 registers, used 1 barriers, 40960 bytes smem\n\
                   ptxas info    : Compiling entry function 'two' for 'sm_80'\nptxas info    : Used 32 registers\n";
        let one = of_kernel(log, "one").expect("it is there");
        let words = [" registers", " bytes smem", " bytes spill stores", " bytes spill loads"];
        assert_eq!(words.map(|words| before(one, words)), [Some(255), Some(40960), Some(56), Some(76)]);
        let two = of_kernel(log, "two").expect("it is there");
        assert_eq!(words.map(|words| before(two, words)), [Some(32), None, None, None]);
        assert_eq!(of_kernel(log, "three"), None);
    }
}
