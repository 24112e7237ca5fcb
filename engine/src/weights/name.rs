//! Names of groups: a model asks for its groups by them, and a plan shows them. Where a group lies, and whether it moves, no name says.

use std::fmt;
use std::ops::Range;

/// What a group is called: `embeddings.time`, `blocks.3.attn1`, `output layer`. No two groups of a component have one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupName {
    /// What it is, or is a part of: `blocks`.
    pub of: &'static str,
    /// Where there are many, which one.
    pub number: Option<u32>,
    /// Which part of that; empty where it is all of it.
    pub part: &'static str,
}

/// Groups that a pass does without.
#[derive(Debug, Clone, Default)]
pub struct LeftOut {
    /// Those that are numbered so.
    pub numbers: Range<u32>,
    /// Those that are such parts of what is numbered.
    pub parts: Vec<&'static str>,
}

impl LeftOut {
    /// Whether the group `name` is one of them.
    pub fn has(&self, name: GroupName) -> bool {
        name.number.is_some_and(|number| self.numbers.contains(&number) || self.parts.contains(&name.part))
    }
}

impl GroupName {
    /// The group that is all of `of`.
    pub const fn whole(of: &'static str) -> Self {
        Self { of, number: None, part: "" }
    }

    /// A part of `of`.
    pub const fn part(of: &'static str, part: &'static str) -> Self {
        Self { of, number: None, part }
    }

    /// One of many: all of it where `part` is empty.
    pub const fn numbered(of: &'static str, number: u32, part: &'static str) -> Self {
        Self { of, number: Some(number), part }
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of)?;
        if let Some(number) = self.number {
            write!(f, ".{number}")?;
        }
        if self.part.is_empty() { Ok(()) } else { write!(f, ".{}", self.part) }
    }
}

#[cfg(test)]
mod tests {
    use super::GroupName;

    #[test]
    fn a_name_says_what_which_and_what_part() {
        let names = [GroupName::whole("output layer"), GroupName::part("embeddings", "time"), GroupName::numbered("blocks", 3, "attn1")];
        assert_eq!(names.map(|name| name.to_string()), ["output layer", "embeddings.time", "blocks.3.attn1"]);
        assert_eq!(GroupName::numbered("layers", 0, "").to_string(), "layers.0");
    }
}
