//! Loading: a component's weights to where the plan has them, at the start or when they are first used. Which components a pipeline loads is the pipeline's own.

use std::collections::BTreeMap;
use std::rc::Rc;

use engine_protocol::{Config, DiskRate, LoadWeights, ModelSpec};
use tch::Device;

use crate::attribution;
use crate::components::{self, Sources};
use crate::context_parallel::Ranks;
use crate::error::Result;
use crate::memory::{Plan, Residency, Traffic, WithRanks};
use crate::signs;
use crate::timing;
use crate::weights::WeightTypes;

/// All that is needed to load a model's components.
#[derive(Debug)]
pub(super) struct Loading {
    model: ModelSpec,
    sources: Sources,
    plan: Plan,
    types: WeightTypes,
    device: Device,
    at_start: bool,
    /// Components that this rank uses, and whether all do.
    used: BTreeMap<&'static str, bool>,
}

impl Loading {
    /// For the components of `model` as `config` places them.
    ///
    /// # Errors
    /// Sources that are not those of the components.
    pub(super) fn new(model: &ModelSpec, config: &Config, device: Device, sources: &Sources) -> Result<Rc<Self>> {
        let components = components::of(model);
        sources.only_of(&components)?;
        components.iter().try_for_each(|component| sources.get(component.as_ref()).map(drop))?;
        Ok(Rc::new(Self {
            model: model.clone(),
            sources: sources.clone(),
            plan: Plan::new(config, &components),
            types: WeightTypes::of(config),
            device,
            at_start: config.load_weights != LoadWeights::AsUsed,
            used: components
                .iter()
                .filter(|component| component.is_of_rank(config, sources.ranks().all.rank()))
                .map(|component| (component.key(), component.is_of_all_ranks(config)))
                .collect(),
        }))
    }

    /// The ranks, as this one sees them.
    pub(super) fn ranks(&self) -> &Ranks {
        self.sources.ranks()
    }

    /// The weights of the component `key`; nothing where the model has none of that key, or another rank uses it alone.
    ///
    /// # Errors
    /// Memory that runs out, and what the source cannot give.
    pub(super) fn find(self: &Rc<Self>, key: &'static str) -> Result<Option<Loadable>> {
        if !self.used.contains_key(key) {
            return Ok(None);
        }
        let mut loadable =
            Loadable { loading: Rc::clone(self), key, weights: None, passed: Traffic::default(), poisoned: false, disk: None };
        if self.at_start {
            loadable.weights = Some(self.load(key)?);
        }
        Ok(Some(loadable))
    }

    /// As [`Loading::find`], of a component that every model of the pipeline has, and every rank.
    ///
    /// # Errors
    /// Those of [`Loading::find`].
    pub(super) fn get(self: &Rc<Self>, key: &'static str) -> Result<Loadable> {
        Ok(self.find(key)?.unwrap_or_else(|| panic!("the model lists no component `{key}`")))
    }

    fn load(&self, key: &str) -> Result<Residency> {
        let components = components::of(&self.model);
        let component = components.iter().find(|component| component.key() == key).expect("it was found before").as_ref();
        let source = self.sources.get(component)?;
        // What one rank uses alone no other would come to map.
        let host = self.sources.shared_host().filter(|_| self.used.get(key) == Some(&true)).map(|shared| (shared, component.key()));
        let ranks = WithRanks { host, parts: self.ranks().weights.as_ref() };
        let load = || Residency::among(ranks, component.groups().to_vec(), self.plan.of(component), self.types, self.device, source);
        attribution::in_group(key, load)
    }
}

/// A component's weights: held from the start, or from when they are first used until they are let go of.
#[derive(Debug)]
pub(super) struct Loadable {
    loading: Rc<Loading>,
    key: &'static str,
    weights: Option<Residency>,
    /// What weights that were let go of had moved.
    passed: Traffic,
    poisoned: bool,
    disk: Option<DiskRate>,
}

impl Loadable {
    /// The weights, which are loaded now where they are not there.
    ///
    /// # Errors
    /// Memory that runs out, and what the source cannot give.
    pub(super) fn get(&mut self) -> Result<&mut Residency> {
        if self.weights.is_none() {
            let mut weights = timing::apart(self.loading.device, || self.loading.load(self.key))?;
            if self.poisoned {
                weights.poison_buffers();
            }
            self.disk.into_iter().for_each(|disk| weights.set_disk(disk));
            self.weights = Some(weights);
        }
        Ok(self.weights.as_mut().expect("loaded just now"))
    }

    /// They are not used any more for now: their buffers go, and they themselves where they need not stay.
    pub(super) fn release(&mut self) {
        if self.loading.at_start {
            self.weights.iter_mut().for_each(Residency::release_staging);
        } else if let Some(weights) = self.weights.take() {
            // Gigabytes that are page-locked take seconds to give back.
            signs::interrupt_step();
            self.passed = self.passed.plus(weights.traffic());
        }
    }

    /// What in the files of these weights is not finite: the first tensor that is not, with its file. It reads all of them.
    pub(super) fn not_finite(&self) -> Result<Option<String>> {
        let components = components::of(&self.loading.model);
        let component = components.iter().find(|component| component.key() == self.key).expect("it was found before").as_ref();
        self.loading.sources.get(component)?.not_finite()
    }

    /// See [`Residency::poison_buffers`].
    pub(super) fn poison_buffers(&mut self) {
        self.poisoned = true;
        self.weights.iter_mut().for_each(Residency::poison_buffers);
    }

    /// See [`Residency::set_disk`].
    pub(super) fn set_disk(&mut self, disk: DiskRate) {
        self.disk = Some(disk);
        self.weights.iter_mut().for_each(|weights| weights.set_disk(disk));
    }

    /// Bytes moved so far.
    pub(super) fn traffic(&self) -> Traffic {
        self.weights.iter().map(Residency::traffic).fold(self.passed, Traffic::plus)
    }
}
