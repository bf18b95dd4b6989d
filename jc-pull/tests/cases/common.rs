//! What the tests share: images made by hand, a registry in this process, and jc-pull run on them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256, Sha512};

pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Whether the test can run: it makes devices and foreign owners.
pub fn root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let is_root = status.lines().any(|l| l.starts_with("Uid:\t0\t0\t"));
    if !is_root {
        assert!(std::env::var_os("JC_MUST_RUN").is_none_or(|v| v != "1"), "needs root");
        eprintln!("skipped: needs root");
    }
    is_root
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn digest512(bytes: &[u8]) -> String {
    let hex: String = Sha512::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha512:{hex}")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar, written member by member without any of the care that a good writer takes.
#[derive(Default)]
pub struct Tar(Vec<u8>);

/// What a member's header says.
pub struct Member<'a> {
    pub kind: u8,
    pub path: &'a str,
    pub link: &'a str,
    pub mode: u32,
    pub owner: (u64, u64),
    pub mtime: u64,
    pub content: &'a [u8],
    pub device: (u32, u32),
}

impl Default for Member<'_> {
    fn default() -> Self {
        let (owner, device) = ((0, 0), (0, 0));
        Self { kind: b'0', path: "", link: "", mode: 0o644, owner, mtime: 1, content: b"", device }
    }
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn member(mut self, m: &Member<'_>) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(m.kind));
        header.as_old_mut().name[..m.path.len()].copy_from_slice(m.path.as_bytes());
        header.as_old_mut().linkname[..m.link.len()].copy_from_slice(m.link.as_bytes());
        header.set_mode(m.mode);
        header.set_uid(m.owner.0);
        header.set_gid(m.owner.1);
        header.set_mtime(m.mtime);
        header.set_size(m.content.len() as u64);
        header.set_device_major(m.device.0).unwrap();
        header.set_device_minor(m.device.1).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(m.content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.member(&Member { path, content: content.as_bytes(), ..Member::default() })
    }

    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.member(&Member { kind: b'5', path, mode, ..Member::default() })
    }

    pub fn symlink(self, path: &str, link: &str) -> Self {
        self.member(&Member { kind: b'2', path, link, mode: 0o777, ..Member::default() })
    }

    pub fn hard_link(self, path: &str, link: &str) -> Self {
        self.member(&Member { kind: b'1', path, link, ..Member::default() })
    }

    /// Records for the next member.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|n| n.to_string().len() + rest == *n).unwrap();
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.member(&Member { kind: b'x', path: "pax", content: &text, ..Member::default() })
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// An image: its documents and layers by digest, and the manifest's digest.
#[derive(Clone, Default)]
pub struct Image {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub manifest: String,
    pub layers: Vec<String>,
}

/// One layer: what its blob is, and what the image says of it.
pub struct Layer {
    pub blob: Vec<u8>,
    pub diff_id: String,
    pub size: usize,
    pub media_type: String,
}

impl Layer {
    pub fn gzip(tar: &[u8]) -> Self {
        let blob = gzip(tar);
        Self { size: blob.len(), blob, diff_id: digest(tar), media_type: GZIP.to_owned() }
    }

    /// A tar wrapped by someone else, under that suffix of the media type.
    pub fn wrapped(tar: &[u8], blob: Vec<u8>, suffix: &str) -> Self {
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        Self { size: blob.len(), blob, diff_id: digest(tar), media_type }
    }

    pub fn plain(tar: &[u8]) -> Self {
        let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
        Self { size: tar.len(), blob: tar.to_vec(), diff_id: digest(tar), media_type }
    }
}

impl Image {
    pub fn new(layers: &[Layer]) -> Self {
        Self::with(layers, MANIFEST, "application/vnd.oci.image.config.v1+json", "amd64")
    }

    pub fn with(layers: &[Layer], manifest_type: &str, config_type: &str, arch: &str) -> Self {
        let mut image = Self::default();
        let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
        let config = serde_json::json!({
            "architecture": arch, "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"x": "ü"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let described: Vec<_> = layers
            .iter()
            .map(|l| {
                let digest = match l.diff_id.starts_with("sha512:") {
                    true => digest512(&l.blob),
                    false => digest(&l.blob),
                };
                image.blobs.insert(digest.clone(), l.blob.clone());
                image.layers.push(digest.clone());
                serde_json::json!({"mediaType": l.media_type, "digest": digest, "size": l.size})
            })
            .collect();
        let (size, config) = (config.len(), image.add(&config));
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": manifest_type, "layers": described,
            "config": {"mediaType": config_type, "digest": config, "size": size},
        });
        image.manifest = image.add(manifest.to_string().as_bytes());
        image
    }

    pub fn add(&mut self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Writes an OCI layout with this image as its only one.
    pub fn write_layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        for (digest, bytes) in &self.blobs {
            let path = directory.join("blobs").join(digest.replace(':', "/"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let size = self.blobs[&self.manifest].len();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [
            {"mediaType": MANIFEST, "digest": self.manifest, "size": size,
             "annotations": {"org.opencontainers.image.ref.name": "t"}}]});
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    }
}

/// A directory in memory, where that holds all that layers have (user.* attributes since Linux 6.6).
fn temporary() -> tempfile::TempDir {
    let flags = rustix::fs::XattrFlags::empty();
    tempfile::tempdir_in("/dev/shm")
        .ok()
        .filter(|d| rustix::fs::setxattr(d.path(), "user.jc", b"", flags).is_ok())
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// A store of the test's own.
pub struct Store {
    directory: tempfile::TempDir,
}

impl Store {
    pub fn new() -> Self {
        Self { directory: temporary() }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// A directory next to the store.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// jc-pull, with nothing of the caller's own configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jc-pull"));
        command.arg("--store").arg(self.path()).args(arguments);
        for name in ["JC_STORE", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        for name in ["DOCKER_CONFIG", "http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.env("HOME", self.beside("home")).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Pulls what must succeed; the records.
    pub fn pull(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Pulls what must fail with `code`, printing nothing but one line and perhaps a hint.
    pub fn fail(&self, code: i32, arguments: &[&str]) -> String {
        failure(&self.run(arguments), code)
    }

    /// Every path in the store.
    pub fn listing(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        list(&self.path(), &mut found);
        found.sort();
        found
    }
}

/// The one line that a failed run says, perhaps with a hint behind it.
pub fn failure(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty(), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|l| !l.ends_with(" done")).collect();
    assert!(lines.iter().all(|l| l.starts_with("jc-pull: ")), "{stderr}");
    assert!(lines.len() == 1 || lines[1].starts_with("jc-pull: hint: "), "{stderr}");
    assert!(lines.len() <= 2, "{stderr}");
    lines[0].to_owned()
}

fn list(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), found);
        }
    }
}

/// The layers' directories in a record.
pub fn layers(record: &serde_json::Value) -> Vec<PathBuf> {
    let layers = record["layers"].as_array().unwrap();
    layers.iter().map(|l| PathBuf::from(l.as_str().unwrap())).collect()
}
