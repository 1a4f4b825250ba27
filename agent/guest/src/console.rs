//! Lines for the VM's console, which is what remains of a guest that never answered.
//!
//! Nothing is written there in normal work: each byte on the serial port costs the VM an exit.

use std::{error::Error, fmt};

/// Writes one line to the console, and goes on when nobody takes it.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "ovenbird-guest: {}", format_args!($($line)*));
    }};
}
pub(crate) use say;

/// An error with everything that led to it, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
