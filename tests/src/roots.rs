//! A small root file system, from Debian's static busybox.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::image::Image;
use crate::layer::{Entry, Layer};
use crate::sandbox::Sandbox;
use crate::skip::leave_skipped;

/// The users in the passwd(5) of the small root.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n";
/// The groups in the group(5) of the small root.
const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:4:web\n";

/// The applets of busybox that the tests use.
const APPLETS: [&str; 46] = [
    "awk", "cat", "chmod", "chown", "cp", "cut", "dd", "df", "echo", "env", "false", "find",
    "grep", "head", "hostname", "id", "ip", "ipcs", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod",
    "mount", "mv", "nc", "ps", "pwd", "readlink", "rm", "sed", "seq", "sh", "sleep", "sort",
    "stat", "stty", "tail", "test", "touch", "true", "tty", "umount", "wc", "yes",
];

fn busybox() -> PathBuf {
    let path = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from);
    match path.into_iter().find(|path| path.exists()) {
        Some(path) => path,
        None => leave_skipped("no busybox: this needs busybox-static"),
    }
}

/// Makes the small root in a new directory of the test, with empty mount points.
pub fn busybox_root(sandbox: &Sandbox, name: &str) -> PathBuf {
    let root = sandbox.path(name);
    let dirs = ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var", "var/www"];
    for dir in [""].into_iter().chain(dirs) {
        fs::create_dir(root.join(dir)).unwrap();
    }
    fs::copy(busybox(), root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), PASSWD).unwrap();
    fs::write(root.join("etc/group"), GROUP).unwrap();
    root
}

/// The small root as a layer, without mount points.
pub fn busybox_layer() -> Layer {
    let content = fs::read(busybox()).unwrap();
    Layer::new()
        .extend(["bin/", "etc/", "root/"].map(Entry::dir))
        .entry(Entry::dir("tmp/").mode(0o1777))
        .entry(Entry::file("bin/busybox", content).mode(0o755))
        .extend(APPLETS.map(|applet| Entry::symlink(&format!("bin/{applet}"), "busybox")))
        .entry(Entry::file("etc/passwd", PASSWD))
        .entry(Entry::file("etc/group", GROUP))
}

/// The small root as an image of two layers.
pub fn busybox_image() -> Image {
    let more = Layer::new().entry(Entry::file("more", "more")).entry(Entry::dir("data/"));
    Image::new().layer(busybox_layer()).layer(more)
}

/// The names in a directory, sorted, one on a line. An absent directory has none.
pub fn names(dir: &Path) -> String {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return String::new(),
        entries => entries.unwrap(),
    };
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned() + "\n").collect();
    names.sort();
    names.concat()
}
