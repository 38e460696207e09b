//! The `equant` command: parses, shows progress, prints. The work is done by [`crate::pipeline`].

mod args;
mod compile;
mod diagnosis;
mod elastic;
mod error;
mod eval;
mod inspect;
mod model;
mod output;
mod package;
mod profile;
mod progress;
mod quantize;
mod run;
mod sensitivity;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};
use error::Failure;
use output::Output;

/// Parses the command line, does what it says and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version go to stdout with code 0, mistakes to stderr with code 2.
        Err(error) => {
            let code = if error.use_stderr() { error::USAGE } else { 0 };
            // Nobody is left to be told when this cannot be printed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let output = Output::new(cli.json, cli.quiet, cli.verbose);
    match dispatch(cli.command, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            output.error(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(command: Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Quantize(args) => quantize::run(args, output),
        Command::Eval(args) => eval::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Compile(args) => compile::run(args, output),
        Command::Analyze(args) => elastic::analyze(args, output),
        Command::Export(args) => elastic::export(args, output),
        Command::Package(args) => package::pack(args, output),
        Command::Unpack(args) => package::unpack(args, output),
        Command::Run(args) => run::run(args, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "equant", &mut script);
            output.text(&String::from_utf8_lossy(&script))
        }
    }
}
