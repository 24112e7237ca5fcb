//! A configuration told as settings: all of them, or the fewest that give it again.

use serde_json::Value;

use super::flag::Group;
use super::settings::setting_text;
use super::table::{Config, FLAGS, Flag, Settings};
use crate::{Device, ModelSpec};

/// A flag and its value as it is told.
pub(super) type Told = (&'static Flag, Value);

impl Config {
    /// The settings that give this configuration again: its level, and all that the level and the model leave open.
    pub fn settings(&self) -> Vec<Told> {
        FLAGS.iter().filter_map(|flag| Some((flag, flag.of(self)?))).collect()
    }

    /// The fewest settings that give this configuration again on that device: its model and its level, and every flag that has another value than the level,
    /// the model and the flags before it give.
    pub fn fewest_settings(&self, device: Device, model: &ModelSpec) -> Vec<Told> {
        let mut settings = self.settings();
        let gives_this = |settings: &[Told]| Self::resolve_on(device, &as_settings(settings), model).is_ok_and(|config| config == *self);
        if gives_this(&settings) {
            for flag in FLAGS.iter().rev().filter(|flag| !["model", "low_mem_level"].contains(&flag.key)) {
                let without: Vec<_> = settings.iter().filter(|(other, _)| other.key != flag.key).cloned().collect();
                if gives_this(&without) {
                    settings = without;
                }
            }
        }
        settings
    }

    /// Every flag that is not its level's default, as `key=value`: what tells two answers at the same level apart. Which video it is and what it shows is
    /// left out, since an answer is for one video.
    pub fn flags_beside_level(&self, device: Device, model: &ModelSpec) -> Vec<String> {
        let is_said = |flag: &Flag| ![Group::Video, Group::Prompt, Group::Measuring].contains(&flag.group) && flag.key != "low_mem_level";
        let said = self.fewest_settings(device, model).into_iter().filter(|(flag, _)| is_said(flag));
        said.map(|(flag, value)| setting_text(flag.key, &value)).collect()
    }
}

fn as_settings(told: &[Told]) -> Settings {
    let mut settings = Settings::default();
    told.iter().for_each(|(flag, value)| flag.set(&mut settings, value));
    settings
}
