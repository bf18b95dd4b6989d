//! Writes the table of system calls, and the default filter for the default capabilities, as Rust source. A
//! start with these capabilities then compiles no filter.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

#[path = "src/seccomp/compiler/mod.rs"]
#[allow(dead_code, reason = "the program uses more of the compiler")]
mod compiler;

use compiler::abi::{ABIS, Abi};
use compiler::compile::compile;
use compiler::default;
use compiler::syscalls::{Call, NONE};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/seccomp/compiler");
    let table = parse(include_str!("src/seccomp/compiler/syscalls.tbl"));
    let table = table.ok_or("syscalls.tbl: a line without a number for each ABI")?;
    if let Some(pair) = table.windows(2).find(|pair| pair[0].name >= pair[1].name) {
        return Err(format!("syscalls.tbl: {} is not in order", pair[1].name).into());
    }
    let native = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "aarch64" => Abi::Aarch64,
        _ => Abi::X86_64,
    };
    let filter = compile(&default::rules(&table, native, default::CAPABILITIES));

    let mut source =
        format!("/// Every system call, by name.\npub static TABLE: [Call; {}] = [\n", table.len());
    for call in &table {
        writeln!(source, "    {call:?},")?;
    }
    source += "];\n/// The default filter for the default capabilities.\n";
    writeln!(source, "pub static DEFAULT: [sock_filter; {}] = [", filter.len())?;
    for i in &filter {
        let (code, jt, jf, k) = (i.code, i.jump_true, i.jump_false, i.operand);
        writeln!(source, "    sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},")?;
    }
    source += "];\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join("seccomp.rs"), source)?;
    Ok(())
}

/// Parses the lines of syscalls.tbl. `None`: a line lacks a column or has a wrong number.
fn parse(text: &'static str) -> Option<Vec<Call>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(parse_line).collect()
}

fn parse_line(line: &'static str) -> Option<Call> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let mut numbers = [NONE; ABIS];
    for number in &mut numbers {
        match words.next()? {
            "-" => {}
            digits => *number = digits.parse().ok()?,
        }
    }
    words.next().is_none().then_some(Call { name, numbers })
}
