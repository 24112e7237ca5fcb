//! The page: which places it has, and what is put where.

use std::collections::BTreeMap;
use std::ops::Range;

use engine_protocol::Device;

use super::cards::Card;
use super::document::{Document, Row, Table, label, words};
use super::filled::{Filled, Open};
use super::levels::{components, memory, overhead, speed, told_of};
use super::marks;
use super::meaning::{Place, gigabytes, has, level, level_of_cell};
use super::notes::{Footnotes, short_gpu, subject};
use super::use_cases::UseCase;
use super::videos::{Video, is_named, videos};
use crate::run::Run;

/// What is combined with a level, by the words of its heading: how all flags that a run of it has begin, and what to set for one.
const COMBINATIONS: [(&[&str], &str, &str); 3] = [
    (&["sageattention", "sage"], "attn_type=sage", "attn_type=sage"),
    (&["flexcache", "teacache"], "flexcache=", "flexcache=teacache"),
    (&["parallelism", "parallel", "cp"], "cp_", "cp_size=2"),
];

/// The level that a combination is with, where its section names none.
const COMBINED_LEVEL: usize = 2;

/// The document filled in. It has no marks yet.
pub(super) fn filled(text: &str, runs: &[Run]) -> Filled {
    let document = Document::read(text);
    let videos = videos(runs);
    let model = model_of(&document, &videos);
    let of_model = videos.iter().filter(|video| model.is_none_or(|model| video.config.model == model)).collect();
    let mut page = Page {
        document: &document,
        videos: of_model,
        model,
        edits: Vec::new(),
        after: BTreeMap::new(),
        notes: Footnotes::default(),
        open: Vec::new(),
    };
    for table in &document.tables {
        page.table(table);
    }
    for &line in &document.texts {
        page.text(line);
    }
    page.sentences();
    page.done()
}

/// The model that the document is about: the one that a title of a column or a heading names, else that of the runs.
fn model_of<'a>(document: &Document<'_>, videos: &[Video<'a>]) -> Option<&'a str> {
    let titles = document.tables.iter().flat_map(|table| &table.titles).filter(|title| has(title, &["vram", "memory"]));
    let named = titles.chain(document.headings.iter().map(|heading| &heading.words));
    let mut found = named.filter_map(|words| videos.iter().find(|video| is_named(&video.config.model, words)));
    found.next().or(videos.first()).map(|video| video.config.model.as_str())
}

struct Page<'d, 'v, 'a> {
    document: &'d Document<'d>,
    videos: Vec<&'v Video<'a>>,
    model: Option<&'a str>,
    /// What takes the place of a part of a line.
    edits: Vec<(usize, Range<usize>, String)>,
    /// Notes after a line.
    after: BTreeMap<usize, Vec<String>>,
    notes: Footnotes,
    open: Vec<Open>,
}

/// What a table is about, by the places of its columns.
enum Kind {
    Levels { level: usize, vram: Option<usize>, speed: Option<usize>, components: Option<usize> },
    Cards { vram: usize, level: Option<usize>, resolution: usize },
    UseCases { configuration: usize, latency: Option<usize>, throughput: Option<usize> },
}

impl Kind {
    fn of(table: &Table) -> Option<Self> {
        let column = |any: &[&str]| table.titles.iter().position(|title| has(title, any));
        let (vram, level) = (column(&["vram", "memory"]), column(&["level", "levels"]));
        let (speed, components) = (column(&["speed", "performance"]), column(&["components", "component"]));
        if let (Some(vram), Some(resolution)) = (vram, column(&["resolution", "resolutions"])) {
            return Some(Self::Cards { vram, level: level.filter(|level| *level != vram), resolution });
        }
        if let (Some(_), Some(configuration)) = (column(&["use", "usecase"]), column(&["configuration", "config", "settings"])) {
            let (latency, throughput) = (column(&["latency"]), column(&["throughput"]));
            return Some(Self::UseCases { configuration, latency, throughput });
        }
        let vram = vram.filter(|vram| Some(*vram) != level);
        let is_of_levels = vram.is_some() || speed.is_some() || components.is_some();
        level.filter(|_| is_of_levels).map(|level| Self::Levels { level, vram, speed, components })
    }
}

impl<'d> Page<'d, '_, '_> {
    fn table(&mut self, table: &Table) {
        let Some(kind) = Kind::of(table) else { return };
        for row in &table.rows {
            match kind {
                Kind::Levels { level, vram, speed, components } => self.level_row(row, level, [vram, speed, components]),
                Kind::Cards { vram, level, resolution } => self.card_row(row, vram, level, resolution),
                Kind::UseCases { configuration, latency, throughput } => self.use_case_row(row, configuration, latency, throughput),
            }
        }
    }

    /// A cell's text.
    fn cell(&self, row: &Row, column: usize) -> &'d str {
        row.cells.get(column).map_or("", |at| self.document.part(row.line, at))
    }

    /// Whether a cell takes a figure. One that stays has no footnote.
    fn is_wanted(&self, row: &Row, column: Option<usize>) -> bool {
        column.is_some_and(|column| Place::of(self.cell(row, column)) != Place::Taken)
    }

    /// The heading above a line, with the words given.
    fn place(&self, line: usize, what: &str) -> String {
        let heading = self.document.above(line).next().map(|heading| self.document.lines[heading.line].trim_matches(['#', ' ']));
        heading.map_or_else(|| what.to_owned(), |heading| format!("{heading}: {what}"))
    }

    /// Puts a figure into a place, or lists the place as open.
    fn put(&mut self, line: usize, at: &Range<usize>, figure: Option<String>, open: impl FnOnce(&Self) -> Open) {
        let text = self.document.part(line, at);
        let place = Place::of(text);
        match figure {
            Some(figure) => self.edits.extend(place.filled(text, &figure).map(|filled| (line, at.clone(), filled))),
            None if place == Place::Taken => {}
            None => self.open.push(open(self)),
        }
    }

    fn put_cell(&mut self, row: &Row, column: Option<usize>, figure: Option<String>, open: impl FnOnce(&Self) -> Open) {
        if let Some(at) = column.and_then(|column| row.cells.get(column)) {
            self.put(row.line, at, figure, open);
        }
    }

    /// A word for the GPU and the model in a command.
    fn on(&self) -> String {
        let gpu = self.videos.iter().find(|video| video.fits_at(0).is_some()).or(self.videos.first());
        let gpu = gpu.map_or_else(|| "80GB".to_owned(), |video| short_gpu(video));
        let model = self.model.filter(|model| *model != "wan2.1-t2v-14b").map(|model| format!(" model={model}")).unwrap_or_default();
        format!("--gpu {gpu}{model}")
    }

    fn level_row(&mut self, row: &Row, column: usize, [vram, in_speed, in_components]: [Option<usize>; 3]) {
        let Some(level) = level_of_cell(self.cell(row, column)) else { return };
        let told = told_of(&self.videos, level);
        let open = |what: &'static str| {
            move |page: &Self| {
                let what = page.place(row.line, &format!("level {level}, {what}"));
                Open::new(row.line, &what, &format!("{} {}", page.on(), with_level_0(level)))
            }
        };
        let peak = told.filter(|_| self.is_wanted(row, vram)).and_then(|(video, record)| memory(video, record, false, &mut self.notes));
        self.put_cell(row, vram, peak, open("VRAM"));
        let ratio = told.filter(|_| self.is_wanted(row, in_speed)).and_then(|(video, record)| speed(video, video, record, &mut self.notes));
        self.put_cell(row, in_speed, ratio, open("speed"));
        let lives = told.filter(|_| self.is_wanted(row, in_components)).map(|(video, record)| {
            format!("{}{}", components(record.config_run()), self.notes.sign(format!("By the configuration that ran: {}.", subject(video))))
        });
        self.put_cell(row, in_components, lives, open("components on the GPU"));
    }

    fn card_row(&mut self, row: &Row, in_vram: usize, in_level: Option<usize>, in_resolution: usize) {
        let Some(gb) = gigabytes(self.cell(row, in_vram)) else { return };
        let videos = self.videos.clone();
        let card = Card::of(gb, &videos);
        let said = in_level
            .map(|column| self.cell(row, column))
            .filter(|text| Place::of(text) == Place::Taken)
            .and_then(|text| level(&words(text)));
        let open = |what: &'static str| {
            move |page: &Self| {
                let model =
                    page.model.filter(|model| *model != "wan2.1-t2v-14b").map(|model| format!(" model={model}")).unwrap_or_default();
                let what = page.place(row.line, &format!("{gb} GB, {what}"));
                Open::new(row.line, &what, &format!("--gpu {gb}GB{model}"))
            }
        };
        let recommended = card.as_ref().and_then(Card::level);
        let figure = card.as_ref().filter(|_| self.is_wanted(row, in_level)).map(|card| card.told_level(&mut self.notes));
        self.put_cell(row, in_level, figure, open("level"));
        let level = said.or(recommended);
        let covered = card.as_ref().filter(|card| level.is_none_or(|level| card.is_covered(level)));
        let has_sage = in_level.is_some_and(|column| has(&words(self.cell(row, column)), COMBINATIONS[0].0));
        let is_open = Place::of(self.cell(row, in_resolution)) != Place::Taken;
        let largest = covered.filter(|_| is_open).map(|card| match level {
            Some(level) => card.resolution(level, has_sage, &mut self.notes),
            None => "none".to_owned(),
        });
        self.put_cell(row, Some(in_resolution), largest, open("largest resolution"));
        let refuted = said.zip(covered).and_then(|(level, card)| card.refuted(level));
        self.note(row.line, refuted);
    }

    fn use_case_row(&mut self, row: &Row, in_configuration: usize, in_latency: Option<usize>, in_throughput: Option<usize>) {
        let Some(at) = row.cells.get(in_configuration) else { return };
        let text = self.cell(row, in_configuration);
        let Some(case) = UseCase::of(&words(text)) else { return };
        let told = case.told_of(&self.videos);
        let full = if case.is_full { " dtype=fp32" } else { "" };
        let open = |what: &'static str| {
            move |page: &Self| {
                let what = page.place(row.line, &format!("{text}, {what}"));
                Open::new(row.line, &what, &format!("{} low_mem_level={}{full}", page.on(), case.level))
            }
        };
        if in_latency.or(in_throughput).is_some() {
            let latency = told.filter(|_| self.is_wanted(row, in_latency)).and_then(|told| case.latency(told, &mut self.notes));
            let throughput = told.filter(|_| self.is_wanted(row, in_throughput)).and_then(|told| case.throughput(told, &mut self.notes));
            self.put_cell(row, in_latency, latency, open("latency"));
            self.put_cell(row, in_throughput, throughput, open("throughput"));
        } else {
            match told.and_then(|told| case.both(told, &mut self.notes)) {
                Some(both) => self.edits.push((row.line, at.end..at.end, marks::marked("", &both))),
                None => self.open.push(open("latency and throughput")(self)),
            }
        }
        if case.has_sage {
            let (_, _, setting) = COMBINATIONS[0];
            let what = self.place(row.line, &format!("{text}, with SageAttention"));
            self.open.push(Open::new(row.line, &what, &format!("{} low_mem_level={} {setting}", self.on(), case.level)));
        }
    }

    /// A line that is in no table: a label with its value, or a claim that runs can judge.
    fn text(&mut self, line: usize) {
        let above: Vec<_> = self.document.above(line).take(1).collect();
        let Some(heading) = above.first() else { return };
        let text = self.document.lines[line];
        let labelled = label(text).filter(|(words, _)| has(words, &["vram", "memory", "speed", "performance"]));
        let combination = COMBINATIONS.iter().find(|(names, ..)| has(&heading.words, names));
        // `Level 2: ..`, and not a section that names a level in passing.
        let of_level = level(&heading.words).filter(|_| heading.words.iter().take(2).any(|word| word == "level"));
        match (labelled, combination, of_level) {
            (Some((label, at)), Some(combination), _) => {
                let section = self.document.section(heading);
                self.combination_line(line, &at, has(&label, &["vram", "memory"]), *combination, section);
            }
            (Some((label, at)), None, Some(level)) => self.level_line(line, &at, has(&label, &["vram", "memory"]), level),
            (None, None, Some(3)) => {
                let said = words(text);
                if has(&said, &["transfer", "transfers", "copy", "copies"]) && has(&said, &["overhead", "cost", "slow"]) {
                    let overhead = overhead(&self.videos);
                    self.note(line, overhead);
                }
            }
            _ => {}
        }
    }

    fn level_line(&mut self, line: usize, at: &Range<usize>, is_memory: bool, level: usize) {
        if Place::of(self.document.part(line, at)) == Place::Taken {
            return;
        }
        let told = told_of(&self.videos, level);
        let figure = told.and_then(|(video, record)| {
            if is_memory { memory(video, record, true, &mut self.notes) } else { speed(video, video, record, &mut self.notes) }
        });
        let what = if is_memory { "VRAM" } else { "speed" };
        self.put(line, at, figure, |page| Open::new(line, &page.place(line, what), &format!("{} {}", page.on(), with_level_0(level))));
    }

    fn combination_line(
        &mut self,
        line: usize,
        at: &Range<usize>,
        is_memory: bool,
        combination: (&[&str], &str, &str),
        section: Range<usize>,
    ) {
        let (_, flags, setting) = combination;
        if Place::of(self.document.part(line, at)) == Place::Taken {
            return;
        }
        let named = self.document.lines[section].iter().find_map(|line| {
            let (_, level) = line.split_once("low_mem_level=")?;
            level.chars().next()?.to_digit(10).map(|level| level as usize)
        });
        let level = named.unwrap_or(COMBINED_LEVEL);
        let is_combined = |video: &&&Video<'_>| !video.flags.is_empty() && video.flags.iter().all(|flag| flag.starts_with(flags));
        let told = self.videos.iter().filter(is_combined).find_map(|video| Some((*video, video.fits_at(level)?)));
        let figure = told.and_then(|(video, record)| {
            // Without the combination it is the same video on the same card.
            let is_plain = |other: &&&Video<'_>| other.flags.is_empty() && other.is_same_but_for_flags(video);
            let plain = self.videos.iter().find(is_plain).copied().unwrap_or(video);
            if is_memory { memory(video, record, true, &mut self.notes) } else { speed(video, plain, record, &mut self.notes) }
        });
        let what = if is_memory { "VRAM" } else { "speed" };
        self.put(line, at, figure, |page| {
            Open::new(line, &page.place(line, what), &format!("{} low_mem_level=0,{level} {setting}", page.on()))
        });
    }

    /// A note after the paragraph, list or table of a line.
    fn note(&mut self, line: usize, text: Option<String>) {
        if let Some(text) = text {
            self.after.entry(self.document.last_of_paragraph(line)).or_default().push(format!("> Note: {text}"));
        }
    }

    /// Sentences that say that figures are to come, over a table that has figures now.
    fn sentences(&mut self) {
        let from = self.sources();
        let filled: Vec<usize> = self.edits.iter().map(|edit| edit.0).collect();
        for &line in &self.document.texts {
            let text = self.document.lines[line];
            let heading = self.document.above(line).next();
            let is_over = heading.is_some_and(|heading| {
                let section = self.document.section(heading);
                has(&heading.words, &["comparison", "hardware"]) && filled.iter().any(|line| section.contains(line))
            });
            if is_over && label(text).is_none() && Place::of(text) == Place::Open && !text.trim().is_empty() {
                let start = text.len() - text.trim_start().len();
                self.edits.push((line, start..start + text.trim().len(), marks::marked(text.trim(), &from)));
            }
        }
    }

    /// What the figures rest on, in a sentence.
    fn sources(&self) -> String {
        let mut cards: Vec<String> = Vec::new();
        for video in &self.videos {
            let how = if video.run.manifest.device == Device::Virtual { "virtual" } else { "measured" };
            let card = format!("{} ({how})", short_gpu(video));
            if !cards.contains(&card) {
                cards.push(card);
            }
        }
        cards.sort();
        format!("Filled in by lowmem from runs on {}; footnotes say where each figure is from.", cards.join(", "))
    }

    fn done(mut self) -> Filled {
        let (places, eol) = (self.edits.len(), self.document.eol());
        let footnotes = self.notes.lines();
        let mut blocks: BTreeMap<usize, Vec<Vec<String>>> =
            self.after.into_iter().map(|(line, notes)| (line, vec![apart(notes)])).collect();
        if let Some(last) = self.document.lines.len().checked_sub(1).filter(|_| !footnotes.is_empty()) {
            blocks.entry(last).or_default().push(footnotes);
        }
        // From the end of each line on, so that places stay what they are.
        self.edits.sort_by_key(|(line, at, _)| (*line, at.start));
        let mut text = String::new();
        for (line, (shown, end)) in self.document.lines.iter().zip(&self.document.ends).enumerate() {
            let mut shown = (*shown).to_owned();
            for (_, at, new) in self.edits.iter().rev().filter(|edit| edit.0 == line) {
                shown.replace_range(at.clone(), new);
            }
            text += &shown;
            blocks.get(&line).into_iter().flatten().for_each(|lines| text += &marks::block(lines, eol));
            text += end;
        }
        self.open.sort_by_key(|open| open.line);
        Filled { text, places, open: self.open }
    }
}

/// The setting that runs a level, and level 0 to hold it against.
fn with_level_0(level: usize) -> String {
    if level == 0 { "low_mem_level=0".to_owned() } else { format!("low_mem_level=0,{level}") }
}

/// Notes with an empty line between each two, so that each is a paragraph.
fn apart(notes: Vec<String>) -> Vec<String> {
    notes
        .into_iter()
        .flat_map(|note| [note, ">".to_owned()])
        .collect::<Vec<_>>()
        .split_last()
        .map(|(_, notes)| notes.to_vec())
        .unwrap_or_default()
}
