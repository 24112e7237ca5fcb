//! What was measured of this machine, kept in the user's configuration folder: `host.yaml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::{DiskRate, HostRates};
use reports::write_whole;
use serde::{Deserialize, Serialize};

use crate::data;
use crate::error::Error;

/// The file, in the user's configuration folder.
const FILE: &str = "host.yaml";

/// What the file holds.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptRates {
    /// The processor's rates.
    #[serde(flatten)]
    pub(crate) processor: Option<HostRates>,
    /// The rates of each disk, by the system's numbers of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) disks: BTreeMap<String, DiskRate>,
}

impl KeptRates {
    /// What is kept; nothing where the file is not there or cannot be read.
    pub(crate) fn load() -> Self {
        let read = |file: &Path| data::parse(file, &data::read(file)?);
        path().and_then(|file| read(&file).ok()).unwrap_or_default()
    }

    /// Writes it down. Without a folder all is measured again the next time.
    pub(crate) fn save(&self) -> Result<(), Error> {
        let Some(file) = path() else { return Ok(()) };
        let failed = |why: &dyn std::fmt::Display| Error::input(format!("{}: {why}", file.display()));
        let text = serde_yaml::to_string(self).map_err(|error| failed(&error))?;
        let folder = file.parent().expect("a file in a folder");
        fs::create_dir_all(folder).and_then(|()| write_whole(&file, text)).map_err(|error| failed(&error))
    }
}

fn path() -> Option<PathBuf> {
    data::user_folder().map(|folder| folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use engine_protocol::DiskRateSource;

    use super::*;

    #[test]
    fn what_is_kept_of_one_part_leaves_the_other_as_it_was() {
        let processor = "processor: one\nthreads: 2\nrates: []\n";
        let mut kept: KeptRates = serde_yaml::from_str(processor).expect("a file of before disks were measured");
        assert_eq!(kept.processor.as_ref().map(|rates| rates.threads), Some(2));
        let disk = DiskRate { low: 1e9, expected: 2e9, high: 3e9, source: DiskRateSource::Measured };
        kept.disks.insert("254:0".into(), disk);
        let again: KeptRates = serde_yaml::from_str(&serde_yaml::to_string(&kept).expect("YAML")).expect("what was written");
        assert_eq!(again, kept);
        let alone = KeptRates { processor: None, ..kept };
        assert_eq!(serde_yaml::from_str::<KeptRates>(&serde_yaml::to_string(&alone).expect("YAML")).expect("what was written"), alone);
    }
}
