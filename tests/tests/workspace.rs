//! The built programs, and their dependencies.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jc_tests::{Cmd, bin_dir, skip, workspace_dir};
use serde_json::Value;

/// The names of the programs in cargo's metadata.
fn programs() -> BTreeSet<String> {
    let args = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let ran = Cmd::new("cargo").args(args).run().code(0);
    let metadata: Value = serde_json::from_str(&ran.out()).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let targets = packages.flat_map(|package| package["targets"].as_array().unwrap());
    let bins = targets.filter(|target| target["kind"][0] == "bin");
    bins.map(|target| target["name"].as_str().unwrap().to_owned()).collect()
}

/// The directory of the programs that `make` has built, if this is `make test`.
fn built() -> Option<PathBuf> {
    env::var_os("JC_BIN_DIR").map(|_| bin_dir())
}

#[test]
fn make_builds_every_program_and_nothing_else() {
    let Some(dir) = built() else { skip!("what `make` builds is tested by `make test`") };
    let built: BTreeSet<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(built, programs());
    for program in ["jc-unshare", "jc-rootfs", "jc-cgroup", "jc-net", "jc-pull", "jc-run"] {
        assert!(built.contains(program), "{program}");
    }
}

#[test]
fn every_program_is_static_and_small() {
    let Some(dir) = built() else { skip!("what `make` builds is tested by `make test`") };
    for program in programs() {
        let path = dir.join(&program);
        let headers = Cmd::new("readelf").args(["--program-headers", "--dynamic"]).arg(&path);
        let headers = headers.env("LC_ALL", "C").run().code(0).out();
        // A static, position-dependent program has neither a loader nor libraries.
        assert!(!headers.contains("INTERP") && !headers.contains("NEEDED"), "{program}: {headers}");
        assert!(headers.contains("EXEC (Executable file)"), "{program}: {headers}");
        let ldd = Cmd::new("ldd").arg(&path).env("LC_ALL", "C").run();
        assert!(ldd.err().contains("not a dynamic executable"), "{program}\n{ldd}");
        let limit = match program.as_str() {
            "jc-unshare" | "jc-rootfs" | "jc-cgroup" | "jc-net" => 2_000_000,
            "jc-pull" => 6_000_000,
            _ => continue,
        };
        let size = fs::metadata(&path).unwrap().len();
        assert!(size < limit, "{program} has {size} bytes");
    }
}

#[test]
fn make_install_puts_all_in_its_place_and_uninstall_takes_it_away() {
    if built().is_none() {
        skip!("what `make` builds is tested by `make test`");
    }
    let root = env::temp_dir().join(format!("jc-tests-install-{}", std::process::id()));
    // The environment is that of a shell: with the variables of cargo test, crates would be built again, and with
    // those of make, its jobs would be missing.
    let inherited = env::vars().map(|(name, _)| name).filter(|name| {
        let user = ["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&name.as_str());
        (name.starts_with("CARGO") || name.starts_with("MAKE") || name == "MFLAGS") && !user
    });
    let unset: Vec<String> = inherited.map(|name| format!("--unset={name}")).collect();
    let make = |goal: &str| {
        Cmd::new("env")
            .args(&unset)
            .args(["make", "-C"])
            .arg(workspace_dir())
            .args([goal, "PREFIX=/opt/jc"])
            .arg(format!("DESTDIR={}", root.display()))
            .timeout(Duration::from_secs(900))
            .run()
            .code(0)
    };
    make("install");
    let mut expected: BTreeSet<PathBuf> =
        programs().into_iter().map(|name| root.join("opt/jc/bin").join(name)).collect();
    for page in pages() {
        let name = page.file_name().unwrap();
        let section = page.extension().unwrap().to_string_lossy();
        expected.insert(root.join(format!("opt/jc/share/man/man{section}")).join(name));
    }
    let share = root.join("opt/jc/share");
    expected.insert(share.join("zsh/site-functions/_jc"));
    expected.insert(share.join("jc/jc-net-repair.service"));
    expected.insert(share.join("jc/apparmor"));
    for driver in files(&workspace_dir().join("jc-run/ci")) {
        let below = driver.strip_prefix(workspace_dir().join("jc-run")).unwrap();
        expected.insert(share.join("jc").join(below));
    }
    for name in programs() {
        expected.insert(share.join("bash-completion/completions").join(&name));
        expected.insert(share.join(format!("fish/vendor_completions.d/{name}.fish")));
    }
    let installed = files(&root);
    make("uninstall");
    let left = files(&root);
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(installed, expected);
    assert_eq!(left, BTreeSet::new());
}

fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace_dir().join("man")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|suffix| suffix != "svg")).collect()
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        all.extend(if path.is_dir() { files(&path) } else { BTreeSet::from([path]) });
    }
    all
}

/// A page names a test as `file::test`.
#[test]
fn every_test_that_a_page_names_exists() {
    for page in ["SECURITY.md", "RELIABILITY.md", "HACKING.md"] {
        let text = fs::read_to_string(workspace_dir().join(page)).unwrap();
        let names = text.split('`').filter_map(|word| word.split_once("::"));
        for (file, test) in names {
            let path = workspace_dir().join("tests/tests").join(format!("{file}.rs"));
            let Ok(source) = fs::read_to_string(path) else { continue };
            let exists = ["fn", "mod"].iter().any(|kind| {
                [format!("{kind} {test}("), format!("{kind} {test} ")]
                    .iter()
                    .any(|d| source.contains(d))
            });
            assert!(exists, "{page} names {file}::{test}");
        }
    }
}

#[test]
fn the_top_level_is_closed() {
    let tracked = Cmd::new("git").arg("-C").arg(workspace_dir()).args(["ls-files"]).run();
    if !tracked.status().success() {
        skip!("not a git checkout");
    }
    let allowed = [
        ".ci",
        ".editorconfig",
        ".github",
        ".gitignore",
        "BENCHMARKS.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "HACKING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "RELIABILITY.md",
        "SECURITY.md",
        "clippy.toml",
        "deny.toml",
        "jc-cgroup",
        "jc-net",
        "jc-pull",
        "jc-rootfs",
        "jc-run",
        "jc-unshare",
        "man",
        "rustfmt.toml",
        "tests",
    ];
    let out = tracked.out();
    let top: BTreeSet<&str> = out.lines().filter_map(|path| path.split('/').next()).collect();
    let strange: Vec<&&str> = top.iter().filter(|name| !allowed.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// The crates that a package is linked with on Linux, by name.
fn linked(package: &str) -> BTreeSet<String> {
    let args =
        ["tree", "--offline", "--locked", "--edges=normal", "--prefix=none", "--format={lib}"];
    let ran = Cmd::new("cargo").args(args).args(["--package", package]).run().code(0);
    ran.out().lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn nothing_but_jc_pull_links_an_http_client() {
    for package in ["jc-unshare", "jc-rootfs", "jc-cgroup", "jc-net", "jc-run"] {
        let crates = linked(package);
        assert!(crates.contains("clap"), "{package}: {crates:?}");
        for client in ["reqwest", "hyper", "rustls", "tokio", "ureq"] {
            assert!(!crates.contains(client), "{package} links {client}");
        }
    }
    // jc-run executes the other programs and does not link them.
    for other in ["jc_rootfs", "jc_cgroup", "jc_net", "jc_pull"] {
        assert!(!linked("jc-run").contains(other), "jc-run links {other}");
    }
}

#[test]
fn forbidden_crates_are_not_in_the_lockfile() {
    let lock = fs::read_to_string(workspace_dir().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"rustix\"\n"));
    for banned in ["rustables", "openssl-sys", "aws-lc-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{banned}\"\n")), "{banned}");
    }
}

#[test]
fn unsafe_code_is_in_one_file_of_a_package_at_most() {
    for entry in fs::read_dir(workspace_dir()).unwrap() {
        let package = entry.unwrap().path();
        if !package.join("Cargo.toml").exists() {
            continue;
        }
        let files = files(&package.join("src"));
        let allowing: Vec<&PathBuf> = files
            .iter()
            .filter(|file| fs::read_to_string(file).unwrap().contains("allow(unsafe_code"))
            .collect();
        assert!(allowing.len() <= 1, "{allowing:?}");
    }
}
