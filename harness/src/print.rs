//! Printing that outlives its reader: `lowmem report | head` is no crash.

/// A line on standard output.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write;
        // A reader that went away wants no more lines.
        let _ = writeln!(std::io::stdout(), $($part)*);
    }};
}

/// A line on standard error.
macro_rules! tell {
    ($($part:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}
