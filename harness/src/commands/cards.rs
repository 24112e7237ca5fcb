//! `lowmem cards`: one video on many GPUs, side by side, for those who choose one.

use std::collections::BTreeMap;
use std::path::Path;

use engine_protocol::{Device, GpuProfile, RunRecord, Split, gib};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{one_video, table};
use crate::autotune::{Quick, QuickAnswer};
use crate::cli::CardsArguments;
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::gpu_profile::GpuProfiles;
use crate::interrupt::Interrupt;
use crate::json::{self, CaseJson, NeedJson};
use crate::model::Models;
use crate::splits::Way;
use crate::sweep::{Definition, Rules, expand};
use crate::testbed::{DeviceChoice, Testbed, Wanted, kinds};
use crate::usual_sizes::USUAL_SIZES;
use crate::worker::Launcher;

const SECS_A_DAY: f64 = 86_400.0;

/// A GPU, and what it does.
struct Row {
    card: GpuProfile,
    answer: QuickAnswer,
    /// The largest usual size that may fit.
    largest: Option<&'static str>,
    /// Of an hour of that GPU.
    price: Option<f64>,
}

impl Row {
    fn secs(&self) -> Option<f64> {
        Some(self.answer.record.as_ref()?.total_secs()?.expected)
    }

    fn videos_a_day(&self) -> Option<f64> {
        self.secs().map(|secs| SECS_A_DAY / secs)
    }

    fn cost(&self) -> Option<f64> {
        Some(self.price? * self.secs()? / 3600.0)
    }
}

/// Prints a row for each GPU.
pub(crate) fn run(arguments: &CardsArguments) -> Result<ExitCode, Error> {
    if let Some(several) = arguments.gpus.iter().find(|name| kinds(name).len() > 1) {
        return Err(Error::input(format!(
            "{several}: a row is of one GPU, and has no place for a video on several: give names without commas for a row each, or see `lowmem autotune --gpu {several}`"
        )));
    }
    let profiles = GpuProfiles::load()?;
    let cards: Vec<GpuProfile> = match arguments.gpus.as_slice() {
        [] => profiles.iter().cloned().collect(),
        names => names.iter().map(|name| Ok(profiles.budget(name)?.profile)).collect::<Result<_, Error>>()?,
    };
    let prices = arguments.prices.as_deref().map(prices).transpose()?.unwrap_or_default();
    if let Some(name) = prices.keys().find(|name| profiles.iter().all(|card| card.name != **name)) {
        return Err(Error::input(format!("--prices: `{name}` is no GPU profile: `lowmem gpus` lists them")));
    }
    let (models, launcher, interrupt) = (Models::load()?, Launcher::find(Device::Virtual)?, Interrupt::listen()?);
    let definition = one_video::definition("cards", &arguments.video, &[], &arguments.settings)?;
    let (sized, fixed): (Vec<_>, Vec<_>) = one_video::with_model(&definition).into_iter().partition(|(key, _)| key == "resolution");
    refuse_split(&definition, &models)?;
    let row = |card: GpuProfile| -> Result<Row, Error> {
        let wanted = Wanted { gpu: Some(&card.name), device: DeviceChoice::Virtual, ram: arguments.ram.as_deref(), pcie: None, disk: None };
        let testbed = Testbed::planned(wanted)?;
        let quick =
            Quick { testbed: &testbed, launcher: &launcher, models: &models, interrupt: &interrupt, ways: &[Way::ONE], cuts_finest: true };
        let answer = quick.answer(&fixed.iter().chain(&sized).cloned().collect::<Vec<_>>())?;
        let with = |size: &str| [&fixed[..], &[("resolution".to_owned(), json!(size))]].concat();
        // A size that the model cannot make is no size.
        let fits = |size: &&str| quick.may_fit(&with(size)).unwrap_or(false);
        let largest = USUAL_SIZES[..5].iter().find_map(|names| names.iter().copied().find(fits));
        Ok(Row { price: prices.get(&card.name).copied(), card, answer, largest })
    };
    let rows = cards.into_par_iter().map(row).collect::<Result<Vec<_>, Error>>()?;
    if interrupt.is_wanted() {
        return Ok(ExitCode::Interrupted);
    }
    if arguments.json {
        json::print(&rows.iter().map(|row| row.as_json(&models)).collect::<Vec<_>>())?;
    } else {
        print(&rows, !prices.is_empty(), arguments.ram.as_deref());
    }
    Ok(if rows.iter().any(|row| row.answer.record.is_some()) { ExitCode::Done } else { ExitCode::NothingFits })
}

/// Refuses a video that is split over several GPUs.
fn refuse_split(definition: &Definition, models: &Models) -> Result<(), Error> {
    let mut whole = Definition::empty("cards");
    one_video::with_model(definition).into_iter().for_each(|(key, value)| whole.fix(key, value));
    let expanded = expand(&whole, models, Rules { device: Device::Virtual, may_shorten: true })?;
    match expanded.cases.first().map(|case| case.config.split()).filter(|split| *split != Split::ONE) {
        Some(split) => Err(Error::input(format!(
            "{split}: a row is of one GPU, and has no place for a video on {ranks}: leave it out, or see `lowmem autotune --gpu NAME --gpus {ranks}` for cards of one kind and `--gpu A,B` for one of each",
            ranks = split.ranks()
        ))),
        None => Ok(()),
    }
}

/// What an hour of each GPU costs, by its profile's name.
fn prices(path: &Path) -> Result<BTreeMap<String, f64>, Error> {
    let prices: BTreeMap<String, f64> = data::parse(path, &data::read(path)?)?;
    match prices.iter().find(|(_, price)| !price.is_finite() || **price < 0.0) {
        Some((name, price)) => Err(Error::input(format!("{}: {name}: {price} is no price of an hour", path.display()))),
        None => Ok(prices),
    }
}

fn print(rows: &[Row], has_prices: bool, ram: Option<&str>) {
    if let Some(record) = rows.iter().find_map(|row| row.answer.record.as_ref()) {
        let config = &record.config;
        say!("{} at {}, {} frames, {} steps\n", config.model, config.resolution, config.frames, config.steps);
    }
    let mut titles = vec!["GPU", "level", "GPU GiB", "of", "RAM GiB", "time", "videos a day", "largest"];
    titles.extend(has_prices.then_some("cost a video"));
    let mut table = table(&titles, &[1, 2, 3, 4, 6, 8][..if has_prices { 6 } else { 5 }]);
    for row in rows {
        let record = row.answer.record.as_ref();
        let shown = |figure: Option<f64>, digits: usize| figure.map(|figure| format!("{figure:.digits$}")).unwrap_or_default();
        let in_gib = |bytes: Option<u64>| shown(bytes.map(gib), 1);
        let mut cells = vec![
            row.card.name.clone(),
            record.map_or_else(|| "-".to_owned(), |record| record.config.low_mem_level.to_string()),
            record.map_or_else(
                || row.answer.smallest.as_ref().map(|(_, need)| format!("≥ {:.1}", gib(need.gpu_bytes))).unwrap_or_default(),
                |record| in_gib(record.peak_device_bytes()),
            ),
            in_gib(Some(row.card.memory_bytes.value)),
            in_gib(record.and_then(RunRecord::host_needed_bytes)),
            row.secs().map_or_else(|| "does not fit".to_owned(), reports::rough_time),
            shown(row.videos_a_day(), 1),
            row.largest.unwrap_or("-").to_owned(),
        ];
        cells.extend(has_prices.then(|| shown(row.cost(), 2)));
        table.add_row(cells);
    }
    say!("{table}");
    say!("Each row was run on a virtual GPU: memory is counted, RAM predicted, times estimated (before");
    say!("power limits and cooling). Largest: the largest usual size that fits with as many frames, by");
    say!("prediction. {}", ram.map_or_else(|| "RAM is assumed unlimited.".to_owned(), |ram| format!("RAM: {ram}.")));
}

/// One GPU.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Card")]
pub(crate) struct CardJson {
    gpu: String,
    memory_bytes: u64,
    fits: bool,
    /// How the video runs there.
    best: Option<CaseJson>,
    videos_a_day: Option<f64>,
    /// In the currency of --prices.
    cost_a_video: Option<f64>,
    /// The largest usual size with as many frames, by prediction.
    largest_resolution: Option<String>,
    /// What takes least, by prediction.
    smallest: Option<NeedJson>,
}

impl Row {
    fn as_json(&self, models: &Models) -> CardJson {
        let record = self.answer.record.as_ref();
        CardJson {
            gpu: self.card.name.clone(),
            memory_bytes: self.card.memory_bytes.value,
            fits: record.is_some(),
            best: record.map(|record| CaseJson::new(record, record.device, models.get(&record.config.model).ok())),
            videos_a_day: self.videos_a_day(),
            cost_a_video: self.cost(),
            largest_resolution: self.largest.map(str::to_owned),
            smallest: self.answer.smallest.as_ref().map(|(_, need)| need.as_json()),
        }
    }
}
