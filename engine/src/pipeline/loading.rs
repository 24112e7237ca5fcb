//! Loading: a component's weights to where the plan has them. Which components a pipeline loads is the pipeline's own.

use engine_protocol::Config;
use tch::Device;

use crate::components::{Component, Components, Sources};
use crate::error::Result;
use crate::memory::{Plan, Residency};
use crate::weights::WeightTypes;

/// All that is needed to load a model's components.
#[derive(Debug)]
pub(super) struct Loading<'a> {
    components: Components<'a>,
    sources: &'a Sources,
    plan: Plan,
    types: WeightTypes,
    device: Device,
}

impl<'a> Loading<'a> {
    /// For `components` as `config` places them.
    ///
    /// # Errors
    /// Sources that are not those of the components.
    pub(super) fn new(components: Components<'a>, config: &Config, device: Device, sources: &'a Sources) -> Result<Self> {
        sources.only_of(&components)?;
        components.iter().try_for_each(|component| sources.get(component.as_ref()).map(drop))?;
        Ok(Self { plan: Plan::new(config, &components), types: WeightTypes::of(config), components, sources, device })
    }

    /// Puts the weights of the component `key` where they live; nothing where the model has none of that key.
    ///
    /// # Errors
    /// Memory that runs out, and what the source cannot give.
    pub(super) fn find(&self, key: &str) -> Result<Option<Residency>> {
        let Some(component) = self.components.iter().find(|component| component.key() == key) else { return Ok(None) };
        self.load(component.as_ref()).map(Some)
    }

    /// As [`Loading::find`], of a component that every model of the pipeline has.
    ///
    /// # Errors
    /// Those of [`Loading::find`].
    pub(super) fn get(&self, key: &str) -> Result<Residency> {
        Ok(self.find(key)?.unwrap_or_else(|| panic!("the model lists no component `{key}`")))
    }

    fn load(&self, component: &dyn Component) -> Result<Residency> {
        Residency::new(component.groups(), self.plan.of(component), self.types, self.device, self.sources.get(component)?)
    }
}
