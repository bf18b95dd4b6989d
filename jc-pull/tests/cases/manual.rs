//! The manual pages and `--help` say the same.

use std::collections::BTreeSet;
use std::process::Command;

/// Long and short options as clap's help lists them, at the beginning of a line.
fn in_help(program: &str) -> BTreeSet<String> {
    let output = Command::new(program).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(str::trim_start).filter(|l| l.starts_with('-'));
    let words = lines.flat_map(|l| l.split("  ").next().unwrap().split([' ', ',']));
    words.filter(|w| w.len() > 1 && w.starts_with('-')).map(str::to_owned).collect()
}

/// Options that have an item of their own in the page.
fn in_page(page: &str) -> BTreeSet<String> {
    let path = format!("{}/../man/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let items = text.lines().filter_map(|l| l.strip_prefix(".It Fl "));
    let flags = items.flat_map(|item| {
        let flag = |words: &str| format!("-{}", words.split(' ').next().unwrap());
        item.split(" , Fl ").map(flag).collect::<Vec<_>>()
    });
    flags.collect()
}

#[test]
fn every_option_is_in_the_page_and_the_other_way_round() {
    for (program, page) in [
        (env!("CARGO_BIN_EXE_jc-pull"), "jc-pull.1"),
        (env!("CARGO_BIN_EXE_jc-images"), "jc-images.1"),
        (env!("CARGO_BIN_EXE_jc-rmi"), "jc-rmi.1"),
    ] {
        assert_eq!(in_help(program), in_page(page), "{page}");
    }
}
