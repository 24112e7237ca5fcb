//! A row of a file of published figures: what was run, on what, and what it was found to need.

use csv::StringRecord;
use engine_protocol::{GIB, GpuProfile, Secs};

use crate::data::DataFile;
use crate::error::Error;
use crate::gpu_profile::GpuProfiles;

/// By how much a peak may be off where the row does not say.
const TOLERANCE_PERCENT: f64 = 5.0;
/// By how much a time may be off where the row does not say.
const TIME_TOLERANCE_PERCENT: f64 = 20.0;
/// The program of rows that name none.
const PROGRAM: &str = "wan";

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Case {
    /// Where it stands in its file.
    pub(super) line: u64,
    pub(super) program: String,
    pub(super) model: String,
    pub(super) task: String,
    pub(super) profile: GpuProfile,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frames: u32,
    pub(super) steps: u32,
    pub(super) gpus: u32,
    pub(super) options: Vec<String>,
    /// Peak of allocated memory; none where only other figures were published.
    pub(super) peak_gib: Option<f64>,
    pub(super) tolerance_percent: f64,
    /// From prompt to video; none where only other figures were published.
    pub(super) total_secs: Option<f64>,
    pub(super) time_tolerance_percent: f64,
}

impl Case {
    /// In a few words.
    pub(super) fn title(&self) -> String {
        let options = self.options.iter().map(|word| format!(" {word}")).collect::<String>();
        format!("{} {} {}x{}, {} frames{options}", self.model, self.task, self.width, self.height, self.frames)
    }

    /// How far a peak is from the published one.
    pub(super) fn peak_error_percent(&self, peak_allocated_bytes: u64) -> Option<f64> {
        Some(off_percent(peak_allocated_bytes as f64, self.peak_gib? * GIB as f64))
    }

    /// How far a time is from the published one.
    pub(super) fn time_error_percent(&self, secs: Secs) -> Option<f64> {
        Some(off_percent(secs.expected, self.total_secs?))
    }
}

fn off_percent(counted: f64, published: f64) -> f64 {
    (counted / published - 1.0) * 100.0
}

/// Reads all rows. Those of columns that are not known are left alone.
pub(super) fn read(file: &DataFile, profiles: &GpuProfiles) -> Result<Vec<Case>, Error> {
    parse(&file.path.display().to_string(), &file.text, profiles)
}

fn parse(path: &str, text: &str, profiles: &GpuProfiles) -> Result<Vec<Case>, Error> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let broken = |error: &csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                Error::input(format!("{path}:{line}: {len} values, and there are {expected_len} columns"))
            }
            _ => Error::input(format!("{path}:{line}: {error}")),
        }
    };
    let titles = reader.headers().map_err(|error| broken(&error))?.clone();
    let columns = Columns { path, titles: &titles };
    let cases = reader.records().map(|record| columns.case(&record.map_err(|error| broken(&error))?, profiles));
    let cases: Vec<_> = cases.collect::<Result<_, Error>>()?;
    if cases.is_empty() { Err(Error::input(format!("{path}: there is no row"))) } else { Ok(cases) }
}

struct Columns<'a> {
    path: &'a str,
    titles: &'a StringRecord,
}

impl Columns<'_> {
    fn case(&self, record: &StringRecord, profiles: &GpuProfiles) -> Result<Case, Error> {
        let row = Row { columns: self, record, line: record.position().map_or(0, csv::Position::line) };
        let gpu = row.cell("gpu")?;
        let Some(profile) = profiles.published(gpu) else {
            return Err(row.error(&format!("gpu: there is no profile of `{gpu}`; `lowmem gpus` lists the known ones")));
        };
        Ok(Case {
            line: row.line,
            program: row.optional("program").unwrap_or(PROGRAM).to_owned(),
            model: row.cell("model")?.to_owned(),
            task: row.cell("task")?.to_owned(),
            profile: profile.clone(),
            width: row.number("width")?,
            height: row.number("height")?,
            frames: row.number("frames")?,
            steps: row.number("steps")?,
            gpus: row.number("gpus")?,
            options: row.cell("options")?.split_whitespace().map(str::to_owned).collect(),
            peak_gib: row.figure("peak_memory_gib")?,
            tolerance_percent: row.tolerance("tolerance_percent")?.unwrap_or(TOLERANCE_PERCENT),
            total_secs: row.figure("total_secs")?,
            time_tolerance_percent: row.tolerance("time_tolerance_percent")?.unwrap_or(TIME_TOLERANCE_PERCENT),
        })
    }
}

struct Row<'a> {
    columns: &'a Columns<'a>,
    record: &'a StringRecord,
    line: u64,
}

impl<'a> Row<'a> {
    fn error(&self, message: &str) -> Error {
        Error::input(format!("{}:{}: {message}", self.columns.path, self.line))
    }

    /// What stands there, if the file has such a column.
    fn optional(&self, title: &str) -> Option<&'a str> {
        let index = self.columns.titles.iter().position(|it| it == title)?;
        self.record.get(index).filter(|text| !text.is_empty())
    }

    fn cell(&self, title: &str) -> Result<&'a str, Error> {
        if !self.columns.titles.iter().any(|it| it == title) {
            let titles: Vec<_> = self.columns.titles.iter().collect();
            return Err(Error::input(format!("{}:1: there is no column `{title}`, only {}", self.columns.path, titles.join(", "))));
        }
        Ok(self.optional(title).unwrap_or_default())
    }

    fn number(&self, title: &str) -> Result<u32, Error> {
        let text = self.cell(title)?;
        text.parse().ok().filter(|&number| number > 0).ok_or_else(|| self.error(&format!("{title}: `{text}` is no whole number above 0")))
    }

    /// A figure that may not have been published.
    fn figure(&self, title: &str) -> Result<Option<f64>, Error> {
        (!self.cell(title)?.is_empty()).then(|| self.positive(title)).transpose()
    }

    /// A figure of a column that the file may not have.
    fn tolerance(&self, title: &str) -> Result<Option<f64>, Error> {
        self.optional(title).map(|_| self.positive(title)).transpose()
    }

    fn positive(&self, title: &str) -> Result<f64, Error> {
        let text = self.cell(title)?;
        let number = text.parse().ok().filter(|&number: &f64| number.is_finite() && number > 0.0);
        number.ok_or_else(|| self.error(&format!("{title}: `{text}` is no number above 0")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: &str = "model,task,gpu,width,height,frames,steps,gpus,options,total_secs,peak_memory_gib,source\n";

    fn parsed(text: &str) -> Result<Vec<Case>, Error> {
        parse("cases.csv", text, &GpuProfiles::load().expect("profiles"))
    }

    fn row(gpu: &str, width: &str, peak: &str) -> String {
        format!("{TITLES}wan2.1-t2v-14b,t2v,{gpu},{width},720,81,50,1,--offload_model True,1837.9,{peak},\"README, table\"\n")
    }

    #[test]
    fn a_row_is_read_with_what_it_leaves_out() {
        let case = &parsed(&row("H800/H100", "1280", "69.1")).expect("a row")[0];
        assert_eq!((case.line, case.program.as_str(), case.profile.name.as_str()), (2, "wan", "h100"));
        assert_eq!((case.options.join("|").as_str(), case.tolerance_percent), ("--offload_model|True", 5.0));
        assert_eq!(case.peak_error_percent(GIB * 691 / 10).map(|error| error.abs() < 1e-6), Some(true));
        assert_eq!(parsed(&row("A100", "1280", "")).expect("a row")[0].peak_gib, None);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_line() {
        for (text, message) in [
            (row("V100", "1280", "1"), "cases.csv:2: gpu: there is no profile of `V100`; `lowmem gpus` lists"),
            (row("H20", "wide", "1"), "cases.csv:2: width: `wide` is no whole number above 0"),
            (row("H20", "0", "1"), "cases.csv:2: width: `0` is no whole number above 0"),
            (row("H20", "1280", "nan"), "cases.csv:2: peak_memory_gib: `nan` is no number above 0"),
            (row("H20", "1280", "1").replace("frames,", "pictures,"), "cases.csv:1: there is no column `frames`, only model, task"),
            (format!("{TITLES}wan,t2v\n"), "cases.csv:2: 2 values, and there are 12 columns"),
            (TITLES.to_owned(), "cases.csv: there is no row"),
        ] {
            let error = parsed(&text).expect_err(message).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
