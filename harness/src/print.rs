//! Printing that outlives its reader, `lowmem report | head` is no crash, and that no name from a file can give orders to a terminal by.

use std::fmt::Arguments;
use std::io::Write;

/// A line on standard output.
macro_rules! say {
    () => { say!("") };
    ($($part:tt)*) => { $crate::print::line(&mut ::std::io::stdout(), format_args!($($part)*)) };
}

/// A line on standard error.
macro_rules! tell {
    ($($part:tt)*) => { $crate::print::line(&mut ::std::io::stderr(), format_args!($($part)*)) };
}

/// Writes it whole.
pub(crate) fn line(to: &mut impl Write, text: Arguments<'_>) {
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
