//! What the peaks of a program's processes are made of.

use engine_protocol::gib;

use super::files::svg;
use super::stacks::{Stack, Stacks};
use crate::error::Error;

/// Draws it: a stack for each process, with its name and the bytes of each of its parts. The last part by name is what is left over.
pub(crate) fn peak_of_processes(peaks: &[(String, Vec<(&'static str, u64)>)]) -> Result<String, Error> {
    let mut layers: Vec<&str> = Vec::new();
    for (name, _) in peaks.iter().flat_map(|(_, parts)| parts) {
        if !layers.contains(name) {
            layers.push(name);
        }
    }
    let of = |parts: &[(&str, u64)], layer: &str| parts.iter().find(|(name, _)| *name == layer).map_or(0, |&(_, bytes)| bytes);
    let stack = |parts: &[(&str, u64)]| Stack {
        gib: layers.iter().map(|layer| gib(of(parts, layer))).collect(),
        label: format!("{:.2}", gib(parts.iter().map(|&(_, bytes)| bytes).sum())),
    };
    let stacks = Stacks {
        groups: peaks.iter().map(|(name, _)| name.clone()).collect(),
        names: vec![String::new()],
        layers: layers.iter().map(|&layer| layer.to_owned()).collect(),
        stacks: peaks.iter().map(|(_, parts)| vec![Some(stack(parts))]).collect(),
        counter: "memory at the peak",
    };
    svg(&stacks).map_err(|message| Error::Plot { name: "peak-of-processes", message })
}
