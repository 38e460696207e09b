//! Runs many plans once each, from a file on the host, and says what every operator cost: for benchmarks of kernels.
//!
//! Semihosting's command line is `NAME PLANS` (no blanks in names). `PLANS` holds the number of plans and then, for each,
//! its length and its bytes; numbers are little-endian u32. Inputs are noise ([`crate::trial`]).
//!
//! Standard output gets a line for each plan: the digest of its output (8 hexadecimal digits), then the count of each of
//! its operators, in the counter's unit. The program exits with [`OK`], [`REFUSED`] or [`FILES`] and says why on
//! standard error.

use core::fmt::{self, Write};

use equant_runtime::{Plan, Session};
use semihosting::fs::File;
use semihosting::io::{self, Read};
use semihosting::{eprintln, experimental::env};

use crate::board::Counter;
pub use crate::conformance::{Buffers, FILES, OK, REFUSED};
use crate::files::{self, NAMES};
use crate::profile::Layers;
use crate::report::{Line, Stdout};
use crate::trial;

/// Why the program ended early.
#[derive(Debug)]
enum Error {
    Usage,
    File(io::Error),
    TooLong { plan: u32, what: &'static str, len: usize, limit: usize },
    Layers { plan: u32 },
    Output,
    Runtime { plan: u32, error: equant_runtime::Error },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Self {
        Self::Output
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage => f.write_str("the command line is NAME PLANS, without blanks in names"),
            Self::File(error) => write!(f, "plans file: {error}"),
            Self::TooLong { plan, what, len, limit } => {
                write!(f, "plan {plan}: {what} of {len} bytes; this build has room for {limit}")
            }
            Self::Layers { plan } => {
                write!(f, "plan {plan}: more than {} operators to profile", crate::profile::MAX_LAYERS)
            }
            Self::Output => f.write_str("standard output cannot be written"),
            Self::Runtime { plan, error } => write!(f, "plan {plan}: {error}"),
        }
    }
}

/// Does what the command line says and returns the exit code.
pub fn run<C: Counter>(counter: &C, buffers: Buffers<'_>) -> i32 {
    match try_run(counter, buffers) {
        Ok(()) => OK,
        Err(error) => {
            eprintln!("error: {error}");
            if matches!(error, Error::Runtime { .. }) { REFUSED } else { FILES }
        }
    }
}

fn try_run<C: Counter>(counter: &C, Buffers { plan: room, arena }: Buffers<'_>) -> Result<(), Error> {
    let args = env::args::<NAMES>().map_err(|_| Error::Usage)?;
    let name = args.into_iter().nth(1).ok_or(Error::Usage)?.map_err(|_| Error::Usage)?;
    let (mut file, _) = files::open(name)?;
    let mut out = Stdout::open();
    for plan in 0..word(&mut file)? {
        let len = word(&mut file)? as usize;
        let limit = room.len();
        let image = room.get_mut(..len).ok_or(Error::TooLong { plan, what: "a plan", len, limit })?;
        file.read_exact(image)?;
        measure(counter, plan, image, arena, &mut out)?;
    }
    Ok(())
}

/// Runs one plan and writes its line.
fn measure<C: Counter>(counter: &C, plan: u32, image: &[u8], arena: &mut [u8], out: &mut Stdout) -> Result<(), Error> {
    let refused = |error| Error::Runtime { plan, error };
    let parsed = <Plan<'_>>::parse(image).map_err(refused)?;
    let (len, limit) = (parsed.arena_len(), arena.len());
    if len > limit {
        return Err(Error::TooLong { plan, what: "an arena", len, limit });
    }
    let mut session = Session::new(parsed, arena).map_err(refused)?;
    let mut layers = Layers::new(counter);
    let digest = trial::run(&mut session, &mut layers).map_err(refused)?;
    if layers.missed > 0 {
        return Err(Error::Layers { plan });
    }
    let mut line = Line::new(out);
    write!(line, "{digest:08x}")?;
    for count in &layers.counts {
        write!(line, " {count}")?;
    }
    writeln!(line)?;
    line.flush()?;
    Ok(())
}

fn word(file: &mut File) -> Result<u32, Error> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
