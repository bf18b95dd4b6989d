//! jc-changes --apply and --discard.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use jc_tests::roots::busybox_root;
use jc_tests::volume::volume;
use jc_tests::{Sandbox, sandbox, sandbox_for, tree};
use rustix::fs::{
    CWD, FileType, Mode, RenameFlags, XattrFlags, lsetxattr, makedev, mknodat, renameat_with,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Random numbers that a seed repeats (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// All paths below a directory.
fn paths(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        next += 1;
        if path.symlink_metadata().unwrap().is_dir() {
            let mut below: Vec<PathBuf> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            all.extend(below);
        }
    }
    all
}

/// Makes one random change below a directory. A change that the file system refuses is none.
fn change(random: &mut Random, top: &Path) {
    let all = paths(top);
    let path = random.choose(&all).clone();
    let is_top = path == top;
    let is_dir = path.symlink_metadata().unwrap().is_dir();
    let directories: Vec<&PathBuf> =
        all.iter().filter(|path| path.symlink_metadata().unwrap().is_dir()).collect();
    let new = random.choose(&directories).join(random.choose(&["a", "b", "c", "d\n", "é"]));
    let other = random.choose(&all).clone();
    let content = "x".repeat(random.below(3000));
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(random.below(1 << 60) as u64);
    let id = random.below(100) as u32;
    // A write to a FIFO would wait.
    let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_file());
    let may_write = new.symlink_metadata().is_err() || is_file(&new);
    let refused = match random.below(16) {
        0 | 1 if may_write => fs::write(&new, content),
        2 | 3 => fs::create_dir(&new),
        4 if !is_top && is_dir => fs::remove_dir_all(&path),
        4 | 5 if !is_dir => fs::remove_file(&path),
        6 if !is_top => fs::rename(&path, &new),
        7 if !path.is_symlink() => {
            fs::set_permissions(&path, PermissionsExt::from_mode(0o700 | id))
        }
        8 => lchown(&path, Some(id), Some(id)),
        9 => symlink("../a", &new),
        10 if !other.is_dir() => fs::hard_link(&other, &new),
        11 if is_dir || is_file(&path) => {
            fs::File::open(&path).and_then(|file| file.set_modified(time))
        }
        12 if is_file(&path) => fs::write(&path, content),
        13 if !path.is_symlink() && !is_top => {
            let value = content.as_bytes().get(..id as usize).unwrap_or_default();
            lsetxattr(&path, "user.x", value, XattrFlags::empty()).map_err(Into::into)
        }
        14 => {
            let (kind, device) = *random.choose(&[
                (FileType::Fifo, makedev(0, 0)),
                (FileType::CharacterDevice, makedev(1, 3)),
            ]);
            mknodat(CWD, &new, kind, Mode::RUSR, device).map_err(Into::into)
        }
        15 if !is_top && is_dir => fs::remove_dir_all(&path)
            .and_then(|()| fs::create_dir(&path))
            .and_then(|()| chown(&path, Some(id), None)),
        _ => Ok(()),
    };
    // The next change is another one.
    drop(refused);
}

/// Directories on a tmpfs, which is quick to make and to remove.
fn tmpfs(s: &Sandbox, name: &str) -> PathBuf {
    let path = s.path(name);
    fs::create_dir_all(&path).unwrap();
    mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>).unwrap();
    path
}

#[test]
fn an_applied_directory_is_what_overlayfs_shows() {
    sandbox_for(Duration::from_secs(120 + 60 * u64::from(volume())), |s| {
        let seed = std::env::var("JC_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1);
        println!("JC_TEST_SEED={seed}");
        for round in 0..60 * u64::from(volume()) {
            let mut random = Random(seed.wrapping_mul(2 * round + 1) | 1);
            let top = tmpfs(s, "t");
            for name in ["base", "u", "u/upper", "u/work", "merged"] {
                fs::create_dir(top.join(name)).unwrap();
            }
            for _ in 0..random.below(60) {
                change(&mut random, &top.join("base"));
            }
            // Names of one file are several files in overlayfs, so the base has none.
            s.sh("cp -a --no-preserve=links t/base t/copy && rm -rf t/base && cp -a t/copy t/base")
                .run()
                .code(0);
            let options = c"lowerdir=/srv/t/base,upperdir=/srv/t/u/upper,workdir=/srv/t/u/work,redirect_dir=nofollow,metacopy=off";
            mount("overlay", top.join("merged"), "overlay", MountFlags::empty(), Some(options))
                .unwrap();
            for _ in 0..1 + random.below(60) {
                change(&mut random, &top.join("merged"));
            }
            let view = tree::manifest(&top.join("merged"));
            unmount(top.join("merged"), UnmountFlags::empty()).unwrap();
            let ran = s.sh("jc-changes --apply t/copy --base t/base t/u/upper && jc-changes --base t/copy t/u/upper").run();
            let ran = ran.code(0).stderr("");
            let copy = tree::manifest(&top.join("copy"));
            assert_eq!(tree::changes(&view, &copy), "", "round {round} of seed {seed}\n{ran}");
            unmount(&top, UnmountFlags::empty()).unwrap();
        }
    });
}

#[test]
fn a_neighbour_who_swaps_directories_for_links_reaches_nothing_outside() {
    sandbox_for(Duration::from_secs(120 + 60 * u64::from(volume())), |s| {
        s.sh("mkdir -p base u/upper/a/b/c outside/b/c t && cp -r base/. t && touch outside/kept outside/b/kept &&
            mkdir -p t/a/b/c && echo x >t/a/old && echo x >t/a/b/old && cp -r t/. base &&
            echo new >u/upper/a/f && echo new >u/upper/a/b/f && echo new >u/upper/a/b/c/f &&
            ln u/upper/a/f u/upper/a/b/link && mknod u/upper/a/old c 0 0 && mknod u/upper/a/b/kept c 0 0 &&
            ln -s /srv/outside t/link && ln -s /srv/outside/b t/a/link")
            .run()
            .code(0);
        let before = tree::manifest(&s.path("outside"));
        let (done, swap) = (AtomicBool::new(false), |a: &str, b: &str| {
            // The names go and come with each application.
            let _: rustix::io::Result<()> =
                renameat_with(CWD, s.path(a), CWD, s.path(b), RenameFlags::EXCHANGE);
        });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    swap("t/a", "t/link");
                    swap("t/a/b", "t/a/link");
                }
            });
            for _ in 0..50 * volume() {
                s.sh("jc-changes --apply t --base base --force u/upper").run();
                assert_eq!(tree::changes(&before, &tree::manifest(&s.path("outside"))), "");
            }
            done.store(true, Ordering::Relaxed);
        });
        s.sh("ls -A t | grep jc-changes").run().code(1);
    });
}

#[test]
fn a_file_that_changed_meanwhile_is_a_conflict() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("mkdir -p root/d/sub root/e u && for f in f g h d/x d/sub/y e/z; do echo old >root/$f; done && cp -a root base").run().code(0);
        let script = "echo new >/f; echo new >/g; rm /h; rm -r /d; echo new >/made; chmod 700 /e; echo new >/e/z";
        s.jc("jc-rootfs").args(["--upper", "u", "root", "--", "sh", "-c", script]).run().code(0);
        // The target is as at the beginning, but for changes that no file of the run meets.
        s.sh("cp -a base t && touch -d 2001-01-01 t/f && echo other >t/elsewhere").run().code(0);
        s.sh("jc-changes --apply t --base base ./u").run().code(0).stdout("").stderr("");
        s.sh("cat t/f t/made t/elsewhere; ls -d t/h t/d 2>/dev/null; stat -c %a t/e")
            .run()
            .stdout("new\nnew\nother\n700\n");
        // An application that is repeated meets its own files.
        s.sh("jc-changes --apply t --base base ./u f made e").run().code(1).stdout("C e\n");
        s.sh("jc-changes --apply t --base base ./u f made").run().code(0).stdout("");
        let others = [
            ("echo other >t/f", "C f\n"),
            ("chmod 600 t/g", "C g\n"),
            ("echo other >t/h", "C h\n"),
            ("echo other >t/d/sub/y", "C d\n"),
            ("echo other >t/d/new", "C d\n"),
            ("rm -r t/d; echo file >t/d", "C d\n"),
            ("echo mine >t/made", "C made\n"),
            ("mkdir t/made", "C made\n"),
            ("ln -sfn f t/g; rm t/f; chmod 755 t/e; chown 5 t/e", "C e\nC g\n"),
        ];
        for (other, list) in others {
            s.sh(&format!("rm -rf t && cp -a base t && {other}")).run().code(0);
            let before = tree::manifest(&s.path("t"));
            let ran = s.sh("jc-changes --apply t --base base ./u").run().code(1).stdout(list);
            let count = list.lines().count();
            ran.fails_as("jc-changes", &format!("t: {count} conflicts, nothing applied"));
            assert_eq!(tree::changes(&before, &tree::manifest(&s.path("t"))), "", "{other}");
            s.sh("jc-changes --apply t --base base --force ./u").run().code(0).stdout("");
            s.sh("cat t/f t/g t/made; ls -d t/h t/d 2>/dev/null").run().stdout("new\nnew\nnew\n");
        }
        let lines = s.sh("rm -rf t && cp -a base t && echo >t/f && jc-changes --apply t --base base --json ./u").run();
        lines.code(1).stdout("{\"kind\":\"C\",\"path\":\"f\"}\n");
    });
}

#[test]
fn a_pattern_selects_what_is_applied_and_discarded() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("mkdir -p root/d root/again u && echo old >root/d/old && echo old >root/again/f && cp -a root t").run().code(0);
        let script =
            "mkdir -p /new/sub; echo x >/new/sub/f; echo x >/new/g; rm /d/old; echo x >/d/made
            chmod 700 /d; rm -r /again; mkdir /again; echo x >/again/f";
        s.jc("jc-rootfs").args(["--upper", "u", "root", "--", "sh", "-c", script]).run().code(0);
        s.sh("jc-changes --apply t ./u '/new/sub/**' /d/old").run().code(0).stderr("");
        s.sh("find t/new t/d; stat -c %a t/d")
            .run()
            .stdout("t/new\nt/new/sub\nt/new/sub/f\nt/d\n755\n");
        let list = |text: &str| {
            s.jc("jc-changes").arg("./u").run().code(0).stdout(text);
        };
        let again = "D again\nA again\nM again/f\n";
        list(&format!("{again}M d\nA d/made\nD d/old\nA new\nA new/g\nA new/sub\nA new/sub/f\n"));
        s.sh("jc-changes --discard ./u new/sub /d/old").run().code(0).stderr("");
        list(&format!("{again}M d\nA d/made\nA new\nA new/g\n"));
        s.sh("jc-changes --discard ./u /again/f")
            .run()
            .code(1)
            .fails_as("jc-changes", "again/f: is in a directory that was made again");
        s.sh("jc-changes --discard ./u again /d").run().code(0).stderr("");
        list("A new\nA new/g\n");
        // An overlay of the rest shows what the list says.
        let rest = "ls /d /again /new; cat /again/f; stat -c %a /d";
        s.jc("jc-rootfs")
            .args(["--upper", "u", "root", "--", "sh", "-c", rest])
            .run()
            .stdout("/again:\nf\n\n/d:\nold\n\n/new:\ng\nold\n755\n");
        s.sh("jc-changes --discard ./u && ls -A u").run().code(0).stdout("").stderr("");
        s.sh("ls root/d root/again").run().stdout("root/again:\nf\n\nroot/d:\nold\n");
    });
}

#[test]
fn an_upper_directory_in_use_is_not_discarded() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::create_dir(s.path("u")).unwrap();
        let line = ["--upper", "u", "root", "--", "sh", "-c", "echo x >/f; echo ready; sleep 1000"];
        let mut running = s.jc("jc-rootfs").args(line).spawn();
        running.wait_for("ready");
        let refused = s.jc("jc-changes").args(["--discard", "./u"]).run();
        refused.code(1).fails_as("jc-changes", "./u: in use by process ");
        s.jc("jc-changes").arg("./u").run().code(0).stdout("A f\n");
        running.signal(rustix::process::Signal::KILL);
        running.wait();
        s.wait_for_no_process();
        s.jc("jc-changes").args(["--discard", "./u"]).run().code(0).stderr("");
    });
}

/// A start makes its directories before a table of mounts has them.
#[test]
fn a_start_beside_discards_keeps_its_directories() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::create_dir(s.path("u")).unwrap();
        let count = 200 * volume();
        let repeat =
            |line: &str| s.sh(&format!("for n in $(seq {count}); do {line}; done")).spawn();
        let start = "jc-rootfs --upper u root -- sh -c 'echo x >/f' || exit";
        let discard = "jc-changes --discard ./u || true";
        for running in [start, discard, discard].map(repeat) {
            let ran = running.wait().code(0);
            let is_fine = |line: &str| {
                line.contains("./u: in use by ") || line.contains("./u: has no file \"lower\"")
            };
            assert!(ran.err().lines().all(is_fine), "{ran}");
        }
    });
}

#[test]
fn starts_at_once_share_a_directory_for_changes() {
    sandbox(|s| {
        busybox_root(s, "root");
        let line = format!(
            "for n in $(seq {}); do jc-rootfs --upper u root -- true || exit; rm -f u/lower; done",
            100 * volume()
        );
        fs::create_dir(s.path("u")).unwrap();
        for running in [(); 4].map(|()| s.sh(&line).spawn()) {
            running.wait().code(0).stderr("");
        }
    });
}

#[test]
fn remains_of_a_killed_application_are_removed() {
    sandbox(|s| {
        busybox_root(s, "root");
        fs::create_dir(s.path("u")).unwrap();
        s.sh("jc-rootfs --upper u root -- sh -c 'echo x >/f' && cp -a root t").run().code(0);
        s.sh("mkdir t/.jc-changes-0123456789abcdef && touch t/.jc-changes-0123456789abcdef/f")
            .run()
            .code(0);
        s.sh("jc-changes --apply t ./u && ls -A t | grep -c jc-changes; cat t/f")
            .run()
            .stdout("0\nx\n");
    });
}

#[test]
fn a_file_with_holes_keeps_them() {
    sandbox(|s| {
        s.sh("mkdir u base t && truncate -s 300M u/hole u/end && echo x | tee -a u/end >u/whole")
            .run()
            .code(0);
        s.sh("echo x | dd of=u/hole bs=1M seek=100 conv=notrunc status=none").run().code(0);
        s.sh("jc-changes --apply t --base base ./u").run().code(0).stdout("").stderr("");
        let same = "for f in hole end whole; do cmp u/$f t/$f || exit; done";
        s.sh(same).run().code(0);
        s.sh("stat -c %b t/hole t/end | awk '$1 > 1000'").run().stdout("");
    });
}
