//! What the checks found, as a table and as a folder of `reports/measured`.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use engine_protocol::{RunRecord, Secs};
use lowmem_tests::measured::{Said, Timed, VIRTUAL, csv_of, told};
use lowmem_tests::root;
use reports::Manifest;
use serde::{Deserialize, Serialize};

use crate::agreement::{ParityRow, SettingsRow};
use crate::cases::SWEEP;
use crate::check::Checks;
use crate::hand::Hand;

/// The file that says on what it was measured.
pub(crate) const MACHINE: &str = "machine.yaml";

/// A case that ran, and what the virtual GPU says of it.
pub(crate) struct Case {
    pub(crate) measured: RunRecord,
    pub(crate) said: Option<Said>,
    /// What it says with the profile that `calibrate` wrote.
    pub(crate) calibrated_secs: Option<Secs>,
}

/// What the checks found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) settings: Vec<SettingsRow>,
    pub(crate) parity: Vec<ParityRow>,
    pub(crate) cases: Vec<Case>,
    /// Of the first case.
    pub(crate) manifest: Option<Manifest>,
    /// What `calibrate` said, the profile that it wrote, and where that counts.
    pub(crate) calibration: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) calibrated: Option<Hand>,
}

/// On what it was measured. What is not known is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The name that the driver reports.
    pub(crate) card: String,
    pub(crate) date: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) driver: Option<String>,
    pub(crate) libraries: String,
    pub(crate) host: String,
    /// The version of lowmem, and the commit.
    pub(crate) lowmem: String,
    /// How it came about.
    pub(crate) made_by: String,
    /// Models that ran too, and of which there is no record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) without_records: Vec<String>,
}

impl Found {
    /// Predicted times beside measured ones.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:<90} {:>10} {:>26} {:>7} {:>16}\n", "case", "measured s", "predicted s", "off", "once calibrated s");
        for case in &self.cases {
            for timed in Timed::ALL {
                let Some(measured) = timed.of(&case.measured) else { continue };
                let said = case.said.as_ref().and_then(|said| said.secs(timed));
                let predicted = said.map(|said| format!("{:.2} ({:.2} to {:.2})", said.expected, said.low, said.high)).unwrap_or_default();
                let off = said.map(|said| format!("{:+.1}%", (said.expected / measured.expected - 1.0) * 100.0)).unwrap_or_default();
                let again = case.calibrated_secs.filter(|_| timed == Timed::Total).map(|secs| format!("{:.2}", secs.expected));
                let name = format!("{} {}", case.measured.case, timed.name());
                let again = again.unwrap_or_default();
                writeln!(text, "{name:<90} {:>10.2} {predicted:>26} {off:>7} {again:>16}", measured.expected).expect("a string");
            }
        }
        text
    }

    /// `nvidia-h100-80gb-hbm3-2026-11-27`, after the profile where there is one.
    pub(crate) fn name(&self) -> Option<String> {
        let record = &self.cases.first()?.measured;
        let title = record.gpu.clone().or_else(|| record.device_name.clone())?.to_lowercase();
        Some(format!("{}-{}", title.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-"), self.date()?))
    }

    fn date(&self) -> Option<&str> {
        self.manifest.as_ref()?.begun.split(['T', ' ']).next()
    }

    fn machine(&self) -> Option<Machine> {
        let (record, manifest) = (&self.cases.first()?.measured, self.manifest.as_ref()?);
        let host = &manifest.host;
        let memory = host.memory_bytes.map(|bytes| format!(", {:.0} GiB", engine_protocol::gib(bytes))).unwrap_or_default();
        let processor = host.processor.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
        let query = ["--query-gpu=driver_version,power.limit,pcie.link.gen.max,pcie.link.width.max", "--format=csv,noheader"];
        let smi = said_by("nvidia-smi", &query).and_then(|text| text.lines().next().map(str::to_owned));
        let commit = std::env::var("LOWMEM_COMMIT").ok().or_else(|| said_by("git", &["rev-parse", "--short", "HEAD"]));
        Some(Machine {
            card: record.device_name.clone().unwrap_or_default(),
            date: self.date()?.to_owned(),
            driver: smi.map(|smi| format!("{smi} (driver, power limit, PCI Express generation and lanes)")),
            libraries: format!("libtorch {}", engine::TORCH_VERSION),
            host: format!("{processor}{} cores{memory}", host.cores),
            lowmem: format!("{}{}", manifest.version, commit.map(|commit| format!(", commit {commit}")).unwrap_or_default()),
            made_by: "make test-gpu".into(),
            without_records: Vec::new(),
        })
    }
}

/// What a program says, where it is there and succeeds.
fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(root()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes all that was found into `folder`, ready to commit.
pub(crate) fn write(folder: &Path, checks: &Checks, found: &Found) {
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).and_then(|()| std::fs::write(&path, text)).unwrap_or_else(|error| {
            panic!("{}: {error}", path.display());
        });
    };
    put("checks.csv", &csv_of(&checks.rows()));
    put("settings.csv", &csv_of(&found.settings));
    put("parity.csv", &csv_of(&found.parity));
    put("times.txt", &found.table());
    let records = found.cases.iter().map(|case| serde_json::to_string(&case.measured).expect("plain data") + "\n");
    put(&format!("{SWEEP}/{}", reports::RECORDS), &records.collect::<String>());
    put(VIRTUAL, &told(&found.cases.iter().filter_map(|case| case.said.clone()).collect::<Vec<_>>()));
    if let Some(machine) = found.machine() {
        put(MACHINE, &serde_yaml::to_string(&machine).expect("plain data"));
    }
    if let Some(calibration) = &found.calibration {
        put("calibration.txt", calibration);
    }
    if let Some(profile) = &found.profile {
        put("calibrated.yaml", profile);
    }
}
