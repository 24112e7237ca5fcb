//! One part of a sweep of several: every so-many-th case, so that slow and quick ones are in each.

use std::str::FromStr;

use super::expand::Case;

/// `3/8`: the third of eight parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    part: usize,
    parts: usize,
}

impl Shard {
    /// The cases of this part, in order.
    pub(crate) fn of(self, cases: Vec<Case>) -> Vec<Case> {
        cases.into_iter().skip(self.part - 1).step_by(self.parts).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(part, parts)| Some((part.trim().parse().ok()?, parts.trim().parse().ok()?)));
        let (part, parts): (usize, usize) = numbers.ok_or("say which part of how many: 3/8")?;
        if (1..=parts).contains(&part) { Ok(Self { part, parts }) } else { Err(format!("there are parts 1/{parts} to {parts}/{parts}")) }
    }
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Config, Settings};

    use super::*;
    use crate::model::Models;

    #[test]
    fn each_case_is_in_one_part() {
        let models = Models::load().expect("models");
        let config = Config::resolve(&Settings::default(), models.get("wan-tiny").expect("a model")).expect("legal");
        let cases: Vec<Case> = (0..10).map(|number| Case { name: number.to_string(), config: config.clone(), gpu: None }).collect();
        let part =
            |text: &str| text.parse::<Shard>().expect("a part").of(cases.clone()).into_iter().map(|case| case.name).collect::<Vec<_>>();
        assert_eq!(part("2/4"), ["1", "5", "9"]);
        let mut all: Vec<String> = ["1/4", "2/4", "3/4", "4/4"].iter().flat_map(|text| part(text)).collect();
        all.sort();
        assert_eq!(all.len(), 10);
        for text in ["0/4", "5/4", "1", "a/b", "1/0"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
