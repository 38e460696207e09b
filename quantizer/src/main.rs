//! The `equant` command; see [`equant::cli`].

fn main() -> std::process::ExitCode {
    equant::cli::main()
}
