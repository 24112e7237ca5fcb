//! What is known of a flag, and the macro that makes `Settings`, `Config` and the table from one list.
//!
//! The list itself is in `table.rs`. What a flag does is not here: it stands where it acts.

use serde_json::Value;

use super::error::ConfigError;
use crate::Device;
use crate::ModelSpec;
use crate::flag_values::{FlagValue, Kind, text, told};

/// Where a value that nobody gave is looked up.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The memory level.
    pub level: u8,
    /// What runs the case.
    pub device: Device,
    /// The model.
    pub model: &'a ModelSpec,
}

/// The value of a flag that is left out.
#[derive(Debug, Clone)]
pub(super) enum Preset<T> {
    /// The same everywhere.
    Always(T),
    /// From a memory level on, and below it.
    FromLevel(u8, T, T),
    /// On the CPU, and on a GPU.
    OnCpu(T, T),
    /// The model's.
    OfModel(fn(&ModelSpec) -> T),
    /// What `resolve.rs` makes of other flags, in words.
    Derived(&'static str),
}

impl<T: FlagValue> Preset<T> {
    pub(super) fn at(self, at: &At<'_>) -> Option<T> {
        match self {
            Preset::Always(value) => Some(value),
            Preset::FromLevel(first, from, below) => Some(if at.level >= first { from } else { below }),
            Preset::OnCpu(cpu, gpu) => Some(if at.device == Device::Cpu { cpu } else { gpu }),
            Preset::OfModel(of) => Some(of(at.model)),
            Preset::Derived(_) => None,
        }
    }

    pub(super) fn words(&self) -> String {
        let shown = |value: &T| Some(told(&value.tell())).filter(|text| !text.is_empty()).unwrap_or_else(|| "nothing".into());
        match self {
            Preset::Always(value) => shown(value),
            Preset::FromLevel(first, from, below) => format!("{}; {} from level {first}", shown(below), shown(from)),
            Preset::OnCpu(cpu, gpu) => format!("{}; {} on the CPU", shown(gpu), shown(cpu)),
            Preset::OfModel(_) => "the model's".into(),
            Preset::Derived(words) => (*words).into(),
        }
    }
}

/// What a flag is about: the order in which people meet flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Which video.
    Video,
    /// What it shows.
    Prompt,
    /// How it is sampled.
    Sampling,
    /// The memory level and what holds at all levels.
    Memory,
    /// In which types and by which kernels arithmetic is done.
    Arithmetic,
    /// Where weights live.
    Placement,
    /// How the VAE decodes.
    Vae,
    /// How much of a case is run.
    Measuring,
}

impl Group {
    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Group::Video => "The video",
            Group::Prompt => "What it shows",
            Group::Sampling => "Sampling",
            Group::Memory => "Memory in all",
            Group::Arithmetic => "Arithmetic",
            Group::Placement => "Where weights live",
            Group::Vae => "The VAE",
            Group::Measuring => "Measuring",
        }
    }
}

/// What another value does to the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Results {
    /// Nothing: the same bits.
    Same,
    /// It is the same but for rounding, or for seams between tiles.
    Close,
    /// It comes near it, and some of its quality is given up for time.
    Lossy,
    /// It is another video.
    Other,
}

impl Results {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Results::Same => "the same bits",
            Results::Close => "the same but for rounding or seams",
            Results::Lossy => "near it: some quality is given up",
            Results::Other => "another video",
        }
    }
}

/// When a flag has no effect, and what to say then.
type Idle<C> = (fn(&C) -> bool, &'static str);

/// A flag of settings `S` and configurations `C`: everything about it but what it does.
#[derive(Debug, Clone)]
pub struct FlagOf<S, C> {
    /// Its key.
    pub key: &'static str,
    /// What it is, in a sentence or two.
    pub doc: String,
    /// What it is about.
    pub group: Group,
    /// What values it takes.
    pub kind: Kind,
    /// The least and the most, where both are the same for all models.
    pub range: Option<(f64, f64)>,
    /// What a number counts; empty where it counts nothing.
    pub unit: &'static str,
    /// What holds where it is left out, in words.
    pub default: String,
    /// What it does to the video.
    pub results: Results,
    idle: Vec<Idle<C>>,
    idle_on_cpu: Option<&'static str>,
    is_of_diffusion: bool,
    read: fn(&Value) -> Option<Value>,
    asks_for_nothing: fn(&S) -> bool,
    get: fn(&S) -> Option<Value>,
    set: fn(&mut S, &Value),
    told: fn(&C) -> Option<Value>,
}

impl<S, C> FlagOf<S, C> {
    /// The page's spelling.
    pub fn page_spelling(&self) -> String {
        format!("infer.{}{}", if self.is_of_diffusion { "diffusion." } else { "" }, self.key)
    }

    /// Reads a value as people write it. What comes back is the value as it is told.
    ///
    /// # Errors
    /// No such value, or one out of range.
    pub fn read(&self, value: &Value) -> Result<Value, ConfigError> {
        let shown = told(value);
        let within = self.range.zip(text(value).and_then(|text| text.parse::<f64>().ok()));
        if within.is_some_and(|((low, high), number)| number < low || number > high) {
            return Err(ConfigError::new(format!("{}={shown} is out of range", self.key), format!("use {}", self.range_words())));
        }
        (self.read)(value)
            .ok_or_else(|| ConfigError::new(format!("{}={shown}: there is no such value", self.key), format!("use {}", self.values())))
    }

    /// What values there are, with their range.
    pub fn values(&self) -> String {
        match (&self.kind, self.range) {
            (Kind::Integer | Kind::Number, Some(_)) => self.range_words(),
            (Kind::IntegerOrWord(_), Some(_)) | (_, None) => self.kind.words(),
            (_, Some(_)) => format!("{}, {}", self.kind.words(), self.range_words()),
        }
    }

    fn range_words(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        match self.range {
            Some((low, high)) if high.is_finite() => format!("{low} to {high}{unit}"),
            Some((low, _)) => format!("{low} or more{unit}"),
            None => self.kind.words(),
        }
    }

    /// Why it has no effect, for each case in which it has none.
    pub fn idle_reasons(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.idle.iter().map(|(_, why)| *why).chain(self.idle_on_cpu)
    }

    /// Why it has no effect in `config` on that device, if so.
    pub(super) fn idle_in(&self, config: &C, device: Device) -> Option<&'static str> {
        let by_rule = self.idle.iter().find(|(is_idle, _)| is_idle(config)).map(|(_, why)| *why);
        by_rule.or(self.idle_on_cpu.filter(|_| device == Device::Cpu))
    }

    pub(super) fn asks_for_nothing(&self, settings: &S) -> bool {
        (self.asks_for_nothing)(settings)
    }

    /// What `settings` have for it.
    pub fn of_settings(&self, settings: &S) -> Option<Value> {
        (self.get)(settings)
    }

    /// The setting that gives what `config` has; none where it means nothing there.
    pub fn of(&self, config: &C) -> Option<Value> {
        (self.told)(config)
    }

    /// Sets a value that [`Flag::read`] gave.
    pub(super) fn set(&self, settings: &mut S, value: &Value) {
        (self.set)(settings, value);
    }

    /// A flag whose values are of type `T`, at its field in settings and configuration.
    pub(super) fn new<T: FlagValue>(key: &'static str, doc: &str, default: String, about: About<C>, at: Field<S, C>) -> Self {
        Self {
            key,
            doc: doc.trim().replace("\n ", " "),
            group: about.group,
            kind: if about.is_name { Kind::Name } else { T::kind() },
            range: about.range,
            unit: about.unit,
            default,
            results: about.results,
            idle: about.idle,
            idle_on_cpu: about.idle_on_cpu,
            is_of_diffusion: about.is_of_diffusion,
            read: |value| T::read(value).map(|value| value.tell()),
            asks_for_nothing: at.asks_for_nothing,
            get: at.get,
            set: at.set,
            told: about.told.unwrap_or(at.told),
        }
    }
}

/// How a flag's field in settings and configuration is reached.
pub(super) struct Field<S, C> {
    pub(super) asks_for_nothing: fn(&S) -> bool,
    pub(super) get: fn(&S) -> Option<Value>,
    pub(super) set: fn(&mut S, &Value),
    pub(super) told: fn(&C) -> Option<Value>,
}

/// The rest of an entry of the table.
pub(super) struct About<C> {
    group: Group,
    unit: &'static str,
    range: Option<(f64, f64)>,
    results: Results,
    idle: Vec<Idle<C>>,
    idle_on_cpu: Option<&'static str>,
    is_of_diffusion: bool,
    is_name: bool,
    told: Option<fn(&C) -> Option<Value>>,
}

impl<C> About<C> {
    /// A flag of that group which does that to the video.
    pub(super) fn new(group: Group, results: Results) -> Self {
        Self {
            group,
            unit: "",
            range: None,
            results,
            idle: Vec::new(),
            idle_on_cpu: None,
            is_of_diffusion: false,
            is_name: false,
            told: None,
        }
    }

    pub(super) fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    pub(super) fn range(self, low: impl Into<f64>, high: impl Into<f64>) -> Self {
        Self { range: Some((low.into(), high.into())), ..self }
    }

    pub(super) fn at_least(self, low: impl Into<f64>) -> Self {
        self.range(low, f64::INFINITY)
    }

    /// It has no effect where `is_idle` holds, and this is what to say then.
    pub(super) fn idle(mut self, is_idle: fn(&C) -> bool, why: &'static str) -> Self {
        self.idle.push((is_idle, why));
        self
    }

    /// It has no effect on the CPU, and this is what to say then.
    pub(super) fn idle_on_cpu(self, why: &'static str) -> Self {
        Self { idle_on_cpu: Some(why), ..self }
    }

    /// The page writes it under `infer.diffusion`.
    pub(super) fn of_diffusion(self) -> Self {
        Self { is_of_diffusion: true, ..self }
    }

    /// Its text is a name, so commas stand between several.
    pub(super) fn name(self) -> Self {
        Self { is_name: true, ..self }
    }

    /// The setting that gives what a configuration has, where that is not its field's own value.
    pub(super) fn told(self, told: fn(&C) -> Option<Value>) -> Self {
        Self { told: Some(told), ..self }
    }
}

/// Makes `Settings`, `Config` and the table of flags from one list.
///
/// An entry is a doc comment, how the flag stands in `Config`, key, type, the value where it is left out, and the rest. It stands there `always`, or
/// `sometimes`: then it is empty where it means nothing, so that two cases that are the same in effect are equal. A flag under `settings` sets what
/// another one's field in `Config` says.
macro_rules! flags {
    (
        config { $($(#[doc = $doc:literal])+ $shape:ident $key:ident: $type:ty = $preset:expr, $about:expr;)* }
        settings { $($(#[doc = $own_doc:literal])+ $own_key:ident: $own_type:ty = $own_preset:expr, $own_about:expr;)* }
    ) => {
        /// Everything that can be set, each empty unless given. The memory level fills in the rest.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $key: Option<$type>,)*
            $($(#[doc = $own_doc])+ pub $own_key: Option<$own_type>,)*
        }

        /// A complete configuration. What means nothing in it is empty, so two cases that are the same in effect are equal.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Config {
            $($(#[doc = $doc])+ #[serde(default)] pub $key: flags!(@type $shape $type),)*
        }

        /// Every flag as it is given, or as it is preset where it is left out. A preset that hangs on other flags is the type's own default so far.
        pub(super) fn preset(settings: &Settings, at: &At<'_>) -> Config {
            Config { $($key: flags!(@value $shape settings.$key.clone().or_else(|| Preset::<$type>::at($preset, at))),)* }
        }

        /// All flags, in the order in which people meet them.
        pub static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(|| {
            vec![
                $({
                    let field = Field::<Settings, Config> {
                        asks_for_nothing: |settings: &Settings| settings.$key.as_ref().is_none_or(FlagValue::asks_for_nothing),
                        get: |settings: &Settings| settings.$key.as_ref().map(FlagValue::tell),
                        set: |settings: &mut Settings, value| settings.$key = <$type>::read(value),
                        told: |config: &Config| flags!(@told $shape config.$key),
                    };
                    Flag::new::<$type>(stringify!($key), concat!($($doc, "\n"),+), Preset::<$type>::words(&$preset), $about, field)
                },)*
                $({
                    let field = Field::<Settings, Config> {
                        asks_for_nothing: |settings: &Settings| settings.$own_key.as_ref().is_none_or(FlagValue::asks_for_nothing),
                        get: |settings: &Settings| settings.$own_key.as_ref().map(FlagValue::tell),
                        set: |settings: &mut Settings, value| settings.$own_key = <$own_type>::read(value),
                        told: |_| None,
                    };
                    Flag::new::<$own_type>(stringify!($own_key), concat!($($own_doc, "\n"),+), Preset::<$own_type>::words(&$own_preset), $own_about, field)
                },)*
            ]
        });
    };
    (@type always $type:ty) => { $type };
    (@type sometimes $type:ty) => { Option<$type> };
    (@value always $value:expr) => { $value.unwrap_or_default() };
    (@value sometimes $value:expr) => { $value };
    (@told always $value:expr) => { Some($value.tell()) };
    (@told sometimes $value:expr) => { $value.as_ref().map(FlagValue::tell) };
}

pub(super) use flags;
