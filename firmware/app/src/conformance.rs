//! Runs any plan on any number of inputs, with files on the host: for comparing a target with the host bit for bit.
//!
//! Semihosting's command line is `NAME PLAN INPUTS OUTPUTS [HASHES]` (no blanks in names):
//!
//! - `PLAN`: a plan.
//! - `INPUTS`: for each run, the raw bytes of the model's inputs one after the other, as
//!   [`Session::input_mut`] takes them. The file's length decides the number of runs.
//! - `OUTPUTS`: written: for each run, the raw bytes of the model's outputs, as [`Session::output`] gives them.
//! - `HASHES`: written: for each run and each operator in execution order, the [`fnv1a`] of the bytes of its
//!   result (one little-endian u64).
//!
//! The program exits with [`OK`], [`REFUSED`] or [`FILES`] and says why on standard error.

use core::fmt;

use equant_runtime::plan::{OpView, TensorRecord};
use equant_runtime::session::{NoProfile, Profile};
use equant_runtime::{Plan, Session};
use semihosting::fs::File;
use semihosting::io::{self, Read, Write};
use semihosting::{eprintln, experimental::env};

use crate::files::{self, NAMES};
use crate::hash::fnv1a;

/// Exit code: all runs done.
pub const OK: i32 = 0;
/// Exit code: the runtime refused the plan, or a run failed.
pub const REFUSED: i32 = 2;
/// Exit code: bad arguments, a file that cannot be read or written, or one that is too long for its buffer.
pub const FILES: i32 = 3;

/// Memory that [`run`] works in: 16-byte aligned, as large as the board can afford.
#[derive(Debug)]
pub struct Buffers<'b> {
    /// Holds the plan.
    pub plan: &'b mut [u8],
    /// Holds activations and scratch.
    pub arena: &'b mut [u8],
}

/// Why a conformance run ended early.
#[derive(Debug)]
enum Error {
    Usage,
    File { what: &'static str, error: io::Error },
    TooLong { what: &'static str, len: u64, limit: usize },
    Inputs { len: u64, each: u64 },
    Runtime(equant_runtime::Error),
}

impl From<equant_runtime::Error> for Error {
    fn from(error: equant_runtime::Error) -> Self {
        Self::Runtime(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage => {
                f.write_str("the command line is NAME PLAN INPUTS OUTPUTS [HASHES], without blanks in names")
            }
            Self::File { what, error } => write!(f, "{what} file: {error}"),
            Self::TooLong { what, len, limit } => write!(f, "{what}: {len} bytes; this build has room for {limit}"),
            Self::Inputs { len, each } => write!(f, "inputs file: {len} bytes is no multiple of the {each} of a run"),
            Self::Runtime(error) => write!(f, "plan: {error}"),
        }
    }
}

/// Does what the command line says and returns the exit code.
pub fn run(buffers: Buffers<'_>) -> i32 {
    match try_run(buffers) {
        Ok(()) => OK,
        Err(error) => {
            eprintln!("error: {error}");
            if matches!(error, Error::Runtime(_)) { REFUSED } else { FILES }
        }
    }
}

fn try_run(Buffers { plan, arena }: Buffers<'_>) -> Result<(), Error> {
    let args = env::args::<NAMES>().map_err(|_| Error::Usage)?;
    let mut args = args.into_iter().skip(1);
    let mut next = || args.next().map(|name| name.map_err(|_| Error::Usage));
    let [plan_name, inputs_name, outputs_name] =
        [next().ok_or(Error::Usage)??, next().ok_or(Error::Usage)??, next().ok_or(Error::Usage)??];
    let hashes_name = next().transpose()?;

    let image = read_plan(plan_name, plan)?;
    let plan = Plan::parse(image)?;
    if arena.len() < plan.arena_len() {
        return Err(Error::TooLong { what: "arena", len: plan.arena_len() as u64, limit: arena.len() });
    }
    let mut session = Session::new(plan, arena)?;

    let (mut inputs, len) = open("inputs", inputs_name)?;
    let each = (0..plan.input_count()).filter_map(|i| plan.model_input(i)?.byte_len()).map(u64::from).sum::<u64>();
    let runs = len.checked_div(each).filter(|runs| runs * each == len).ok_or(Error::Inputs { len, each })?;
    let mut outputs = create("outputs", outputs_name)?;
    let mut hashes = hashes_name.map(|name| create("hashes", name)).transpose()?;

    for _ in 0..runs {
        for i in 0..plan.input_count() {
            inputs.read_exact(session.input_mut(i)?).map_err(|error| Error::File { what: "inputs", error })?;
        }
        match &mut hashes {
            Some(file) => {
                let mut hashes = Hashes { plan, file, error: None };
                session.run_profiled(&mut hashes)?;
                if let Some(error) = hashes.error {
                    return Err(Error::File { what: "hashes", error });
                }
            }
            None => session.run_profiled(&mut NoProfile)?,
        }
        for i in 0..plan.output_count() {
            outputs.write_all(session.output(i)?).map_err(|error| Error::File { what: "outputs", error })?;
        }
    }
    Ok(())
}

/// Reads a whole plan and returns its bytes.
fn read_plan<'b>(name: &str, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
    const WHAT: &str = "plan";
    let (mut file, len) = open(WHAT, name)?;
    let limit = buffer.len();
    let bytes = usize::try_from(len).ok().and_then(|len| buffer.get_mut(..len));
    let bytes = bytes.ok_or(Error::TooLong { what: WHAT, len, limit })?;
    file.read_exact(bytes).map_err(|error| Error::File { what: WHAT, error })?;
    Ok(bytes)
}

/// Opens a file and finds its length.
fn open(what: &'static str, name: &str) -> Result<(File, u64), Error> {
    files::open(name).map_err(|error| Error::File { what, error })
}

fn create(what: &'static str, name: &str) -> Result<File, Error> {
    files::create(name).map_err(|error| Error::File { what, error })
}

/// Writes a digest of every operator's result.
struct Hashes<'p, 'f> {
    plan: Plan<'p>,
    file: &'f mut File,
    error: Option<io::Error>,
}

impl Profile for Hashes<'_, '_> {
    fn after(&mut self, op: &OpView<'_>, arena: &[u8]) {
        // What lies in the memory an operator works in, its second output, is up to the core.
        let digest = self.plan.output(op, 0).ok().and_then(|y| bytes(arena, &y)).map_or(0, fnv1a);
        if let Err(error) = self.file.write_all(&digest.to_le_bytes()) {
            self.error.get_or_insert(error);
        }
    }
}

/// The bytes of an arena tensor.
fn bytes<'a>(arena: &'a [u8], tensor: &TensorRecord) -> Option<&'a [u8]> {
    arena.get(tensor.offset as usize..)?.get(..tensor.byte_len()? as usize)
}
