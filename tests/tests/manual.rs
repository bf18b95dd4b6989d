//! The agreement of the manual pages with the programs.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use jc_tests::{Cmd, bin_dir, skip, workspace_dir};

fn page(name: &str) -> PathBuf {
    workspace_dir().join("man").join(name)
}

/// The programs, each with its `--help`.
fn programs() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(bin_dir()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("jc-") && path.extension().is_none() && path.is_file() {
            let help = Cmd::new(&path).arg("--help").run().code(0).stderr("").out();
            all.push((name, help));
        }
    }
    assert!(all.len() >= 6, "{all:?}");
    all
}

/// The options that `--help` lists: `-x` and `--long`, where an entry of its list begins.
fn in_help(help: &str) -> BTreeSet<String> {
    let list = help.split_once("Options:\n").unwrap_or_else(|| panic!("no options:\n{help}")).1;
    let mut options = BTreeSet::new();
    for line in list.lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        for word in line.split(", ").take(2) {
            let word = word.split([' ', '[', '=']).next().unwrap();
            // A list of possible values has dashes too.
            if word.starts_with('-') && word != "-" {
                options.insert(word.to_owned());
            }
        }
    }
    options
}

/// The options that the page's lists explain: each `.It` with its `Fl` macros.
fn in_page(text: &str) -> BTreeSet<String> {
    let mut options = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with(".It ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let mut at_flag = false;
        for word in words {
            match word {
                "Fl" => at_flag = true,
                "Ar" | "Cm" | "Ns" | "No" | "Oo" | "Oc" => at_flag = false,
                "," => {}
                _ if at_flag => options.extend([format!("-{}", word.replace('\\', ""))]),
                _ => {}
            }
        }
    }
    options
}

#[test]
fn every_program_has_a_page_with_its_options_and_no_others() {
    for (name, help) in programs() {
        let path = page(&format!("{name}.1"));
        assert!(path.exists(), "{name} has no page");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!(".Nm {name}\n")), "{name}");
        assert_eq!(in_page(&text), in_help(&help), "left: man/{name}.1, right: {name} --help");
    }
}

/// The parsers of these programs have an option only if the line names it.
#[test]
fn a_line_that_names_any_option_is_parsed_with_that_option() {
    for (name, help) in programs() {
        if !["jc-rootfs", "jc-run", "jc-unshare"].contains(&name.as_str()) {
            continue;
        }
        for option in in_help(&help) {
            // A flag with a value is refused, and a line without a program too.
            let word = if option.starts_with("--") { format!("{option}=") } else { option.clone() };
            let ran = Cmd::new(bin_dir().join(&name)).arg(&word).run();
            assert!(!ran.err().contains("unexpected argument"), "{name} {word}: {}", ran.err());
            let code = if ["-h", "-V"].contains(&word.as_str()) { 0 } else { 125 };
            ran.code(code);
        }
        let ran = Cmd::new(bin_dir().join(&name)).arg("--no-such-option=1").run().code(125);
        assert!(ran.err().contains("unexpected argument '--no-such-option'"), "{}", ran.err());
    }
}

#[test]
fn help_fits_a_screen_and_names_the_program() {
    for (name, help) in programs() {
        assert!(help.contains("Usage: ") && help.contains(&name), "{help}");
        let version = Cmd::new(bin_dir().join(&name)).arg("--version").run().code(0).stderr("");
        assert_eq!(version.out(), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn the_formats_and_the_contracts_have_pages() {
    for name in ["jc.7", "jc-record.5"] {
        assert!(page(name).exists(), "{name}");
    }
    let contracts = fs::read_to_string(page("jc.7")).unwrap();
    for (name, _) in programs() {
        assert!(contracts.contains(&format!(".Xr {name} 1")), "jc(7) does not know {name}");
    }
}

/// The paths of all pages. The directory also has pictures.
fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace_dir().join("man")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_none_or(|suffix| suffix != "svg")).collect()
}

#[test]
fn mandoc_has_nothing_to_say() {
    if !fs::exists("/usr/bin/mandoc").unwrap() {
        skip!("no mandoc");
    }
    for path in pages() {
        let lint = Cmd::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path);
        lint.run().code(0).stdout("").stderr("");
    }
}

/// All pages that a page refers to exist.
#[test]
fn references_between_the_pages_lead_somewhere() {
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix(".Xr jc")) {
            let mut words = line.split(' ');
            let (name, section) = (words.next().unwrap(), words.next().unwrap());
            let target = page(&format!("jc{name}.{section}"));
            assert!(target.exists(), "{} refers to {}", path.display(), target.display());
        }
    }
}

#[test]
fn the_records_example_is_a_record() {
    let text = fs::read_to_string(page("jc-record.5")).unwrap();
    let start = text.find("{\"jc\":1").unwrap();
    let end = start + text[start..].find(".Ed").unwrap();
    let example: String = text[start..end].lines().map(str::trim).collect();
    let record: serde_json::Value = serde_json::from_str(&example).unwrap();
    for key in record.as_object().unwrap().keys() {
        assert!(text.contains(&format!(".It Cm {key}\n")), "{key}");
    }
}
