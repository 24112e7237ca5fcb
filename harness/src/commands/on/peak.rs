//! What a process held of PyTorch's memory when most of it was given out, in words.

use std::collections::BTreeMap;

use engine_protocol::gib;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was given out at the peak by what it was for, in bytes, and where the peak came. As a Python process says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(super) struct Peak {
    weights: u64,
    gradients: u64,
    optimizer_state: u64,
    /// And all other tensors.
    activations: u64,
    /// Of cuBLAS and cuDNN.
    workspace: u64,
    /// Reserved then and not given out.
    unused: u64,
    /// By the outermost module's class and its part: what its parameters were, and what hangs on them.
    modules: BTreeMap<String, Held>,
    /// The line of the user's own file.
    place: Option<String>,
    /// The line of the library that it called.
    library: Option<String>,
    /// The module that was being called.
    module: Option<String>,
    /// It came on a thread of PyTorch's own, as the backward pass has.
    backward: bool,
    /// How memory went until the end: for the page.
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub(super) course: Course,
}

/// How memory went: of each list, a figure a moment. Each moment that is kept is the highest or the lowest of those around it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Course {
    /// Allocations and frees.
    pub(super) events: u64,
    /// After how many of them each moment was.
    pub(super) at: Vec<u64>,
    /// What PyTorch held from the driver.
    pub(super) reserved: Vec<u64>,
    weights: Vec<u64>,
    gradients: Vec<u64>,
    optimizer_state: Vec<u64>,
    activations: Vec<u64>,
    workspace: Vec<u64>,
}

impl Course {
    /// What was given out by what it was for, in the order in which a peak's parts are told.
    pub(super) fn parts(&self) -> Vec<(&'static str, Vec<u64>)> {
        let [weights, gradients, optimizer_state, activations, workspace, _] = PARTS;
        let parts = [
            (weights, &self.weights),
            (gradients, &self.gradients),
            (optimizer_state, &self.optimizer_state),
            (activations, &self.activations),
            (workspace, &self.workspace),
        ];
        parts.into_iter().map(|(name, bytes)| (name, bytes.clone())).collect()
    }
}

/// What memory is for, in words.
const PARTS: [&str; 6] = ["weights", "gradients", "optimizer state", "activations and other tensors", "workspaces", "cached and unused"];

/// What a module held.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Held {
    weights: u64,
    gradients: u64,
    optimizer_state: u64,
}

impl Held {
    fn bytes(self) -> u64 {
        self.weights + self.gradients + self.optimizer_state
    }
}

/// Modules that are named in words. JSON has all.
const MODULES: usize = 4;

impl Peak {
    /// Each part that is not nothing, by name.
    pub(super) fn parts(&self) -> Vec<(&'static str, u64)> {
        let bytes = [self.weights, self.gradients, self.optimizer_state, self.activations, self.workspace, self.unused];
        PARTS.into_iter().zip(bytes).filter(|&(_, bytes)| bytes > 0).collect()
    }

    /// What it was made of.
    pub(super) fn made_of(&self) -> String {
        let parts: Vec<_> = self.parts().into_iter().map(|(name, bytes)| format!("{name} {:.2}", gib(bytes))).collect();
        format!("Peak allocated, in GiB: {}.", parts.join(", "))
    }

    /// Where it came, as far as that was told.
    pub(super) fn came(&self) -> Option<String> {
        let line = match (&self.place, &self.library) {
            (Some(place), Some(library)) => format!("at {place}, which called {library}"),
            (Some(line), None) | (None, Some(line)) => format!("at {line}"),
            (None, None) if self.backward => "in the backward pass".to_owned(),
            (None, None) => return None,
        };
        let module = self.module.as_ref().map_or_else(String::new, |module| format!(", in {module}"));
        Some(format!("It came {line}{module}."))
    }

    /// What the modules held that held most.
    pub(super) fn by_module(&self) -> Option<String> {
        let mut modules: Vec<_> = self.modules.iter().map(|(name, held)| (name, held.bytes())).collect();
        modules.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        // What would be told as 0.00 is among the others.
        let told =
            modules.iter().take(MODULES).map(|(name, bytes)| (name, format!("{:.2}", gib(*bytes)))).filter(|(_, size)| size != "0.00");
        let named: Vec<_> = told.map(|(name, size)| format!("{name} {size}")).collect();
        let others = modules.len() - named.len();
        let more = if others > 0 { format!(", and {others} smaller") } else { String::new() };
        (!named.is_empty()).then(|| format!("By module, with gradients and optimizer state: {}{more}.", named.join(", ")))
    }
}
