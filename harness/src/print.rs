//! Printing that outlives its reader, `lowmem report | head` is no crash, and that no name from a file can give orders to a terminal by.

use std::fmt::Arguments;
use std::io::{IsTerminal, Write, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::Table;

/// Columns of a terminal, as people have them at least.
pub(crate) const WIDTH: u16 = 80;

/// A line on standard output.
macro_rules! say {
    () => { say!("") };
    ($($part:tt)*) => { $crate::print::line(&mut ::std::io::stdout(), format_args!($($part)*)) };
}

/// A line on standard error.
macro_rules! tell {
    ($($part:tt)*) => { $crate::print::line(&mut ::std::io::stderr(), format_args!($($part)*)) };
}

/// Whether lines go nowhere.
static HUSHED: AtomicBool = AtomicBool::new(false);

/// From now on lines go nowhere, or are written again: of several ranks one speaks for all.
pub(crate) fn hush(is_hushed: bool) {
    HUSHED.store(is_hushed, Ordering::Relaxed);
}

/// Writes it whole.
pub(crate) fn line(to: &mut impl Write, text: Arguments<'_>) {
    if HUSHED.load(Ordering::Relaxed) {
        return;
    }
    let text = text.to_string();
    let lines: Vec<String> = text.split('\n').map(untrusted::line).collect();
    // A reader that went away wants no more lines.
    let _ = to.write_all((lines.join("\n") + "\n").as_bytes());
}

/// Something for programs, as it is: whoever wrote it has made it harmless.
pub(crate) fn exact(to: &mut impl Write, bytes: &[u8]) {
    // A reader that went away wants no more.
    let _ = to.write_all(bytes);
}

/// A text for people on standard output: on a terminal in lines of its width that begin with `indent`, elsewhere as one line.
pub(crate) fn prose(indent: &str, text: &str) {
    let text = untrusted::line(text);
    if !stdout().is_terminal() {
        return exact(&mut stdout(), format!("{indent}{text}\n").as_bytes());
    }
    let more = format!("{indent}  ");
    let options = textwrap::Options::new(WIDTH.into()).initial_indent(indent).subsequent_indent(&more).break_words(false);
    exact(&mut stdout(), (textwrap::fill(&text, options) + "\n").as_bytes());
}

/// A table on standard output, whose cells are harmless: with colours where that is a terminal, unless somebody wants none (NO_COLOR).
pub(crate) fn table(table: &Table) {
    let mut table = table.clone();
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        table.force_no_tty();
    }
    exact(&mut stdout(), format!("{}\n", table.trim_fmt()).as_bytes());
}
