//! Installed files besides programs and pages: the completions of the shells, and the Debian package.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;

use jc_tests::image::{Image, Layout};
use jc_tests::roots::{busybox_layer, busybox_root};
use jc_tests::screen::Screen;
use jc_tests::{Sandbox, require, sandbox, sandbox_for, skip, workspace_dir};

fn completions() -> String {
    workspace_dir().join("jc-run/completions").display().to_string()
}

/// Makes a container with a name, and an image.
fn something_to_complete(s: &Sandbox) -> String {
    busybox_root(s, "root");
    Layout::new(s.path("image")).image("x", &Image::new().layer(busybox_layer()));
    s.sh("jc-pull -q oci:image").run().code(0);
    let run = "jc-run -d --rm --network none --name webserver --rootfs root -- sleep 1000";
    s.sh(run).run().code(0).out().trim().to_owned()
}

/// Command lines whose last word is incomplete, with the expected completions.
const CASES: [(&str, &str); 15] = [
    ("jc-run --memory-s", "--memory-swap"),
    ("jc-cgroup --memory-h", "--memory-high"),
    ("jc-list --j", "--json"),
    ("jc-pull --plat", "--platform"),
    ("jc-stop web", "webserver"),
    ("jc-exec web", "webserver"),
    ("jc-logs ID", "ID"),
    ("jc-rmi oci", "oci:/srv/image"),
    ("jc-changes web", "webserver"),
    ("jc-changes --dis", "--discard"),
    ("jc-run --image oci", "oci:/srv/image"),
    ("jc-run --userns k", "keep-id"),
    ("jc-run --network container:ID", "container:ID"),
    ("jc-landlock --sc", "--scope"),
    ("jc-trace --sec", "--seccomp"),
];

fn check(s: &Sandbox, complete: impl Fn(&str) -> String) {
    let id = something_to_complete(s);
    for (line, offered) in CASES {
        let (line, offered) = (line.replace("ID", &id[..11]), offered.replace("ID", &id));
        let all = complete(&line);
        // Some shells escape the colon, or offer only the text behind it.
        let all = all.replace('\\', "");
        assert!(all.lines().any(|one| one.trim() == offered), "{line}: {all}");
    }
    s.sh("jc-rm -f webserver").run().code(0);
}

#[test]
fn bash_completes() {
    sandbox(|s| {
        check(s, |line| {
            let script = "source $COMPLETIONS/jc.bash; read -ra COMP_WORDS <<< \"$LINE\"
                COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_WORDBREAKS=' '
                COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _jc \"${COMP_WORDS[0]}\" \
                \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
            let bash = s.cmd("bash").args(["--norc", "-c", script]);
            bash.env("COMPLETIONS", completions()).env("LINE", line).run().code(0).out()
        });
        let known = format!("source {}/jc.bash; complete -p", completions());
        let known = s.cmd("bash").args(["--norc", "-c", &known]).run().out();
        for entry in fs::read_dir(jc_tests::bin_dir()).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            assert!(known.contains(&format!(" {name}\n")), "{name}");
        }
    });
}

/// bash breaks words at colons and equal signs.
#[test]
fn a_tab_of_bash_completes_names_with_colons_and_values_behind_an_equal_sign() {
    sandbox(|s| {
        let id = something_to_complete(s);
        let screen = Screen::new(s);
        screen.line(&format!("source {}/jc.bash; clear", completions()));
        screen.wait(|shown| shown == "o$");
        for (typed, completed) in [
            ("jc-rmi oci:/srv/im", "jc-rmi oci:/srv/image".to_owned()),
            ("jc-run --image=oci:/srv/im", "jc-run --image=oci:/srv/image".to_owned()),
            ("jc-run --image oci:/srv/im", "jc-run --image oci:/srv/image".to_owned()),
            ("jc-run --network container:", format!("jc-run --network container:{id}")),
            ("jc-run --userns=k", "jc-run --userns=keep-id".to_owned()),
            ("jc-exec web", "jc-exec webserver".to_owned()),
        ] {
            screen.tmux(&["send-keys", "-l", "--", typed]);
            screen.key("Tab");
            screen.wait(|shown| shown.lines().last() == Some(&format!("o$ {completed}")));
            // The terminal drops what is typed right behind C-c.
            screen.key("C-u");
            screen.line("clear");
            screen.wait(|shown| shown == "o$");
        }
        s.sh("jc-rm -f webserver").run().code(0);
    });
}

#[test]
fn fish_completes() {
    sandbox(|s| {
        require(s, "fish", "fish");
        check(s, |line| {
            let script = format!("source {}/jc.fish; complete -C '{line}'", completions());
            let fish = s.cmd("fish").args(["--no-config", "-c", &script]).env("HOME", "/srv");
            fish.run().code(0).out().replace('\t', "\n")
        });
    });
}

#[test]
fn zsh_completes() {
    sandbox(|s| {
        require(s, "zsh", "zsh");
        // compadd of zsh shows the matches. This one prints them.
        let script = "compadd() { while [[ $1 == -- ]]; do shift; done
                if [[ $1 == -a ]]; then print -l -- ${(P)2}; else print -l -- $@; fi }
            _files() { }; _normal() { }
            words=(${=LINE}) CURRENT=${#words} PREFIX=$words[-1]
            complete() { source $COMPLETIONS/_jc }; complete";
        check(s, |line| {
            let zsh = s.cmd("zsh").args(["-f", "-c", script]).env("LINE", line);
            let all = zsh.env("COMPLETIONS", completions()).run().code(0).out();
            // zsh itself filters by the typed prefix.
            let begun = line.rsplit(' ').next().unwrap();
            all.lines().filter(|one| one.starts_with(begun)).map(|one| format!("{one}\n")).collect()
        });
        // compinit reads each file of its directories, and those of zsh have a thousand.
        let script = format!(
            "fpath=({} ${{^fpath}}/compinit(N:h)); autoload -U compinit; compinit -u -d /srv/dump
             print $_comps[jc-run] $_comps[jc-rmi]",
            completions()
        );
        s.cmd("zsh").args(["-f", "-c", &script]).run().code(0).stdout("_jc _jc\n");
    });
}

/// Debian's own programs install the package into a separate root.
#[test]
fn a_release_is_complete_and_its_debian_package_is_clean_comes_and_goes() {
    let Some(bin) = std::env::var_os("JC_BIN_DIR") else { skip!("`make` builds what is packed") };
    sandbox_for(std::time::Duration::from_secs(600), |s| {
        require(s, "dpkg-deb", "dpkg");
        require(s, "lintian", "lintian");
        let target = s.path("target");
        fs::create_dir(&target).unwrap();
        s.sh(&format!("cp -r {} target/bin", Path::new(&bin).display())).run().code(0);
        // No compiler is recent enough here, so `make` packs the programs that exist.
        let make = format!(
            "env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS DEBEMAIL=jc@debian.org CARGO_TARGET_DIR=/srv/target CARGO_HOME=/nonexistent PATH=/usr/sbin:/usr/bin:/sbin:/bin \
             make -C {} needed=99.0 dist",
            workspace_dir().display()
        );
        s.sh(&make).timeout(std::time::Duration::from_secs(300)).run().code(0);
        let version = env!("CARGO_PKG_VERSION");
        s.sh("cd target/dist && sha256sum --check --strict --quiet SHA256SUMS").run().code(0);
        let listed = format!(
            "cd target/dist; ls | wc -l; cut -c 67- SHA256SUMS | wc -l; tar -tzf jc-{version}.tar.gz
             tar -tzf jc-{version}-*-linux.tar.gz"
        );
        let listed = s.sh(&listed).run().code(0).out();
        assert!(listed.starts_with("4\n3\n"), "{listed}");
        for file in ["Cargo.toml", "-x-/bin/jc-run", "-x-/share/man/man1/jc-run.1", "man/jc.7"] {
            let machine = std::env::consts::ARCH;
            let path = match file.strip_prefix("-x-") {
                Some(installed) => format!("jc-{version}-{machine}-linux{installed}"),
                None => format!("jc-{version}/{file}"),
            };
            assert!(listed.lines().any(|line| line == path), "{path}\n{listed}");
        }
        let deb = s.sh(&format!("ls target/dist/jc_{version}_*.deb")).run().code(0).out();
        let deb = deb.trim();
        let lintian =
            s.sh(&format!("TMPDIR=/srv lintian --allow-root --fail-on error,warning {deb}"));
        lintian.timeout(std::time::Duration::from_secs(300)).run().code(0).stdout("");
        let dpkg = |what: &str| {
            let options = "--root=/srv/debian --force-script-chrootless --force-not-root --force-depends --log=/dev/null";
            s.sh(&format!("dpkg {options} {what}")).run().code(0)
        };
        s.sh("mkdir -p debian/var/lib/dpkg/info debian/var/lib/dpkg/updates; touch debian/var/lib/dpkg/status")
            .run()
            .code(0);
        let files = "cd debian; find . -type f ! -path './var/*' | sort";
        dpkg(&format!("--install {deb}"));
        let installed = s.sh(files).run().out();
        for path in [
            "./usr/bin/jc-run",
            "./usr/bin/jc-pull",
            "./usr/share/man/man1/jc-run.1.gz",
            "./usr/share/man/man5/jc-state.5.gz",
            "./usr/share/bash-completion/completions/jc-run",
            "./usr/share/zsh/vendor-completions/_jc",
            "./usr/share/fish/vendor_completions.d/jc-run.fish",
            "./usr/share/doc/jc/copyright",
        ] {
            assert!(installed.lines().any(|line| line == path), "{path}\n{installed}");
        }
        s.sh("debian/usr/bin/jc-run --version").run().code(0);
        assert!(!installed.contains("/etc/"), "{installed}");
        dpkg("--purge jc");
        s.sh(files).run().stdout("");
        // A system with AppArmor 4.
        s.sh("mkdir -p debian/etc/apparmor.d/abi && touch debian/etc/apparmor.d/abi/4.0")
            .run()
            .code(0);
        dpkg(&format!("--install {deb}"));
        s.sh("cmp debian/usr/share/jc/apparmor debian/etc/apparmor.d/jc").run().code(0);
        dpkg("--purge jc");
        s.sh(files).run().stdout("./etc/apparmor.d/abi/4.0\n");
    });
}

/// AppArmor 3 lacks the rule for user namespaces and its version of the policy.
#[test]
fn the_profile_of_apparmor_is_parsed() {
    sandbox(|s| {
        require(s, "apparmor_parser", "apparmor");
        let profile = workspace_dir().join("jc-unshare/apparmor").display().to_string();
        let has_rule = fs::exists("/etc/apparmor.d/abi/4.0").unwrap();
        let lines = if has_rule { "p" } else { "/^abi/d; /^  userns,$/d; p" };
        let parse = |profile: &str, option: &str| {
            s.sh(&format!("apparmor_parser --skip-kernel-load --skip-cache {option} {profile}"))
                .run()
        };
        s.sh(&format!(
            "sed -n '{lines}' {profile} > profile; echo x >> broken; cat profile >> broken"
        ))
        .run()
        .code(0);
        parse("profile", "").code(0);
        assert!(parse("profile", "--names").code(0).out().lines().any(|name| name == "jc"));
        parse("broken", "").code(1);
        s.sh(&format!("grep -c '^  userns,$' {profile}")).run().stdout("1\n");
    });
}
