//! Where the values of each component's weights come from.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Kind;

use super::component::Component;
use crate::context_parallel::Ranks;
use crate::error::{Error, Result};
use crate::weights::{SharedHost, Source, shared};

/// A source for each component, by its key.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    by_key: BTreeMap<&'static str, Source>,
    /// Of one of several ranks: those that have one copy of what is on the host.
    shared_host: Option<SharedHost>,
    /// Which of the ranks they are for: it does not load what another one has alone, and of what all have a part of it gets the rest from others.
    ranks: Ranks,
}

impl Sources {
    /// These sources.
    pub fn new(sources: impl IntoIterator<Item = (&'static str, Source)>) -> Self {
        Self { by_key: sources.into_iter().collect(), shared_host: None, ranks: Ranks::alone() }
    }

    /// The same of one of several ranks, which share what is on the host.
    #[must_use]
    pub fn among(self, shared_host: Option<SharedHost>) -> Self {
        Self { shared_host, ..self }
    }

    /// The same for one of `ranks`.
    #[must_use]
    pub fn as_one_of(self, ranks: Ranks) -> Self {
        Self { ranks, ..self }
    }

    /// The ranks, as the one sees them that they are for.
    pub(crate) fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// The ranks that share what is on the host.
    pub(crate) fn shared_host(&self) -> Option<&SharedHost> {
        self.shared_host.as_ref()
    }

    /// Weights of all `components` from one seed.
    pub fn seeded(components: &[Box<dyn Component + '_>], seed: i64) -> Self {
        Self::new(components.iter().map(|component| (component.key(), Source::Seeded(seed_of(component.as_ref(), seed)))))
    }

    /// The same values from files in `folder`, which the first process that needs them makes: see [`shared`]. A component whose file cannot be made is drawn.
    pub fn shared(components: &[Box<dyn Component + '_>], seed: i64, compute: Kind, folder: &Path) -> Self {
        let source = |component: &dyn Component| {
            let seed = seed_of(component, seed);
            shared(folder, component.key(), seed, component.groups(), compute).unwrap_or_else(|error| {
                eprintln!("lowmem-worker: the weights of the {} are not shared: {error}", component.name());
                Source::Seeded(seed)
            })
        };
        Self::new(components.iter().map(|component| (component.key(), source(component.as_ref()))))
    }

    /// Weights of all `components` that are allocated and never written, for a device that computes nothing.
    pub fn empty(components: &[Box<dyn Component + '_>]) -> Self {
        Self::new(components.iter().map(|component| (component.key(), Source::Empty)))
    }

    /// The source of `component`'s weights.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, component: &dyn Component) -> Result<&Source> {
        self.by_key.get(component.key()).ok_or_else(|| Error::Input(format!("no weights were given for the {}", component.name())))
    }

    /// Refuses sources of other components than these: the weights are those of another model.
    ///
    /// # Errors
    /// The first that is none of them.
    pub fn only_of(&self, components: &[Box<dyn Component + '_>]) -> Result<()> {
        match self.by_key.keys().find(|key| !components.iter().any(|component| component.key() == **key)) {
            Some(key) => Err(Error::Input(format!("weights were given for `{key}`, which the model does not have"))),
            None => Ok(()),
        }
    }
}

/// No two components draw the same values.
fn seed_of(component: &dyn Component, seed: i64) -> i64 {
    seed.wrapping_mul(4).wrapping_add(component.seed_number())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_protocol::ModelSpec;

    #[test]
    fn sources_of_another_model_are_refused() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sweeps/models/wan-tiny.yaml");
        let model: ModelSpec = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let components = crate::components::of(&model);
        let all = Sources::seeded(&components, 1);
        assert!(all.only_of(&components).is_ok());
        let said = all.only_of(&components[1..]).unwrap_err().to_string();
        assert_eq!(said, "weights were given for `text_encoder`, which the model does not have");
        let said = Sources::default().get(components[1].as_ref()).unwrap_err().to_string();
        assert_eq!(said, "no weights were given for the transformer");
    }
}
