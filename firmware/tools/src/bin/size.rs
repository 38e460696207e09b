//! Where the flash of a linked program goes, crate by crate, and whether it can panic.
//!
//! `size ELF [--symbols N] [--max-code BYTES] [--deny-panics]`
//!
//! Code inlined into another crate's function counts for that crate; the operators of a set are inlined into the
//! set's `run`, which counts for `equant_runtime`. Exit code 1 if a limit is exceeded or a denied symbol is linked.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::{env, fs};

use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind, SymbolKind, elf};

/// The crate whose code the limit is about.
const RUNTIME: &str = "equant_runtime";

/// Parts of the names of the functions that a panic goes through.
const PANICS: [&str; 4] = ["core::panicking::", "rust_begin_unwind", "::expect_failed", "::unwrap_failed"];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

struct Options {
    elf: String,
    symbols: usize,
    max_code: Option<u64>,
    deny_panics: bool,
}

fn options() -> Result<Options, String> {
    const USAGE: &str = "size ELF [--symbols N] [--max-code BYTES] [--deny-panics]";
    let mut args = env::args().skip(1);
    let mut options = Options { elf: String::new(), symbols: 0, max_code: None, deny_panics: false };
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse::<u64>().ok()).ok_or(format!("{arg} takes a number"));
        match arg.as_str() {
            "--symbols" => options.symbols = number()? as usize,
            "--max-code" => options.max_code = Some(number()?),
            "--deny-panics" => options.deny_panics = true,
            _ if arg.starts_with('-') || !options.elf.is_empty() => return Err(format!("usage: {USAGE}")),
            _ => options.elf = arg,
        }
    }
    if options.elf.is_empty() { Err(format!("usage: {USAGE}")) } else { Ok(options) }
}

fn run() -> Result<bool, String> {
    let options = options()?;
    let bytes = fs::read(&options.elf).map_err(|error| format!("{}: {error}", options.elf))?;
    let file = object::File::parse(&*bytes).map_err(|error| format!("{}: {error}", options.elf))?;

    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        if sh_flags.0 & elf::SHF_ALLOC.0 == 0 || section.size() == 0 {
            continue;
        }
        let memory = if section.kind() == SectionKind::UninitializedData { "RAM" } else { "flash" };
        println!("{:>9} B  {memory:<5}  {}", section.size(), section.name().unwrap_or("?"));
    }

    // Several names may stand for one function: it is counted once, by its first name.
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name().unwrap_or("?")));
        functions.entry(symbol.address()).or_insert((symbol.size(), name));
    }
    if functions.is_empty() {
        return Err(format!("{}: no symbols: build without strip", options.elf));
    }
    let mut crates = BTreeMap::new();
    for (size, name) in functions.values() {
        *crates.entry(crate_of(name)).or_insert(0) += size;
    }
    println!("\ncode by crate");
    for (name, size) in &crates {
        println!("{size:>9} B  {name}");
    }

    if options.symbols > 0 {
        let mut largest: Vec<_> = functions.values().collect();
        largest.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        println!("\nlargest functions");
        for (size, name) in largest.iter().take(options.symbols) {
            println!("{size:>9} B  {name}");
        }
    }

    let mut good = true;
    let runtime = crates.get(RUNTIME).copied().unwrap_or(0);
    if let Some(limit) = options.max_code
        && (runtime == 0 || runtime > limit)
    {
        eprintln!("error: {RUNTIME} takes {runtime} B of code; the limit is {limit} B (and it must be linked)");
        good = false;
    }
    if options.deny_panics {
        for (size, name) in functions.values().filter(|(_, name)| PANICS.iter().any(|panic| name.contains(panic))) {
            eprintln!("error: the program can panic: {name} ({size} B) is linked");
            good = false;
        }
    }
    Ok(good)
}

/// The crate that a demangled name belongs to: that of the trait for a trait's method on the application's own
/// operator set, else the first path in it.
fn crate_of(name: &str) -> &str {
    if name.contains("as equant_runtime::operator::OperatorSet>") {
        return RUNTIME;
    }
    let path = name.trim_start_matches(['<', '&', '[', '*', '(']);
    match path.split_once("::") {
        Some((first, _)) if first.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => first,
        _ if name.starts_with("__") => "compiler_builtins",
        _ => "startup and others",
    }
}

#[cfg(test)]
mod tests {
    use super::crate_of;

    #[test]
    fn crates_of_names() {
        assert_eq!(crate_of("equant_runtime::plan::parse::Plan<O>::check_ops"), "equant_runtime");
        assert_eq!(crate_of("<app::Ops as equant_runtime::operator::OperatorSet>::run"), "equant_runtime");
        assert_eq!(crate_of("<heapless::Vec<T> as core::fmt::Write>::write_str"), "heapless");
        assert_eq!(crate_of("__aeabi_memcpy"), "compiler_builtins");
        assert_eq!(crate_of("Reset"), "startup and others");
    }
}
