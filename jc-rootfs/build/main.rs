//! Writes the table of system calls, and the default filter for the default capabilities, as Rust source. A
//! start with these capabilities then compiles no filter.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

#[path = "../src/linux/seccomp/compiler/mod.rs"]
#[allow(dead_code, reason = "the program uses more of the compiler")]
mod compiler;

#[path = "../../jc-unshare/src/capability.rs"]
#[allow(dead_code, reason = "the script uses a few capabilities")]
mod capability;

mod calls;
mod carriers;

use compiler::abi::{ABIS, Abi};
use compiler::compile::compile;
use compiler::default;
use compiler::syscalls::{Call, NONE, find};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/linux/seccomp/compiler");
    println!("cargo::rerun-if-changed=../jc-unshare/src/capability.rs");
    let native = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "aarch64" => Abi::Aarch64,
        _ => Abi::X86_64,
    };
    let table = parse(include_str!("syscalls.tbl"), native);
    let table = table.ok_or("syscalls.tbl: a line without a number for each ABI")?;
    if let Some(pair) = table.windows(2).find(|pair| pair[0].name >= pair[1].name) {
        return Err(format!("syscalls.tbl: {} is not in order", pair[1].name).into());
    }
    let unknown = |name: &&str| find(&table, name).is_none();
    if let Some(name) = calls::names().find(unknown) {
        return Err(format!("syscalls.tbl: lacks {name}").into());
    }
    let filter = compile(&default::rules(&table, native, calls::CAPABILITIES));

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
    let relevant = calls::relevant();
    writeln!(
        source,
        "/// The capabilities that change the filter.\npub const RELEVANT: u64 = {relevant};"
    )?;
    writeln!(source, "/// The capabilities of `DEFAULT` among `RELEVANT`.")?;
    writeln!(source, "pub const CAPABILITIES: u64 = {};", calls::CAPABILITIES)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("seccomp.rs"), source)?;
    Ok(())
}

/// Parses the lines of syscalls.tbl. `None`: a line lacks a column or has a wrong number.
fn parse(text: &'static str, native: Abi) -> Option<Vec<Call>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| parse_line(line, native)).collect()
}

fn parse_line(line: &'static str, native: Abi) -> Option<Call> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let mut numbers = [NONE; ABIS];
    for number in &mut numbers {
        match words.next()? {
            "-" => {}
            digits => *number = digits.parse().ok()?,
        }
    }
    let (allowed_by, carrier) = (calls::allowed_by(name, native), carriers::carrier(name));
    words.next().is_none().then_some(Call { name, numbers, allowed_by, carrier })
}
