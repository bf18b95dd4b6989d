//! A real registry, Debian's docker-registry, on loopback inside the sandbox.

use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::image::{Format, Layout};
use crate::sandbox::Sandbox;
use crate::skip::leave_skipped;
use crate::wait::wait_until;

/// A running registry, which ends with this value.
pub struct Registry {
    child: Child,
    address: String,
    storage: PathBuf,
}

/// A shell script that makes an authority, certificates of it, and a password in the form of htpasswd(1).
const CERTIFICATES: &str = r#"
    set -e
    mkdir certs && cd certs
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj /CN=ca -keyout ca.key -out ca.crt 2>/dev/null
    for name in server client; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name \
            -keyout $name.key -out $name.csr 2>/dev/null
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' >ext
        openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile ext -out $name.crt 2>/dev/null
    done
    cp client.crt client.cert
    perl -e 'print "alice:", crypt("wonder", q($2y$05$abcdefghijklmnopqrstuu)), "\n"' >htpasswd
    mkdir client && cp ca.crt client.cert client.key client/
"#;

impl Registry {
    /// The registry that `make test` has filled: `debian` and `busybox`, each with the tags `latest` (OCI) and
    /// `docker` (Docker schema 2). The registry is read-only. Without it the test is skipped.
    pub fn prepared(sandbox: &Sandbox) -> Self {
        let fixtures = env::var_os("JC_FIXTURES").map(PathBuf::from).unwrap_or_default();
        if !fixtures.join("made-by").exists() {
            leave_skipped("no registry has been prepared: this needs `make test`");
        }
        Self::start(sandbox, 5000, fixtures.join("registry"), "readonly: {enabled: true}", "")
    }

    /// A registry without images.
    pub fn empty(sandbox: &Sandbox) -> Self {
        let storage = sandbox.path("registry");
        fs::create_dir(&storage).unwrap();
        Self::start(sandbox, 5001, storage, "", "")
    }

    /// A registry with TLS that requires a certificate of its clients, and the login `alice` with the password
    /// `wonder`. The directory `certs` of the test has the files of `certs.d` for it: `ca.crt`, `client.cert`,
    /// `client.key`.
    pub fn guarded(sandbox: &Sandbox) -> Self {
        let storage = sandbox.path("registry");
        fs::create_dir(&storage).unwrap();
        sandbox.sh(CERTIFICATES).run().code(0);
        let extra = "tls: {certificate: /srv/certs/server.crt, key: /srv/certs/server.key, \
            clientcas: [/srv/certs/ca.crt]}\n\
            auth: {htpasswd: {realm: here, path: /srv/certs/htpasswd}}\n";
        Self::start(sandbox, 5002, storage, "", extra)
    }

    fn start(
        sandbox: &Sandbox,
        port: u16,
        storage: PathBuf,
        maintenance: &str,
        extra: &str,
    ) -> Self {
        let address = format!("127.0.0.1:{port}");
        let config = sandbox.path(&format!("registry-{port}.yml"));
        let text = format!(
            "version: 0.1\n\
             log: {{accesslog: {{disabled: true}}, level: error}}\n\
             storage:\n  \
               filesystem: {{rootdirectory: '{}'}}\n  \
               maintenance: {{uploadpurging: {{enabled: false}}, {maintenance}}}\n\
             http:\n  addr: '{address}'\n  {extra}",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut child = match Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
        {
            Ok(child) => child,
            Err(e) => leave_skipped(&format!("docker-registry: {e}")),
        };
        wait_until("docker-registry to listen", || {
            assert!(child.try_wait().unwrap().is_none(), "docker-registry ended at once");
            TcpStream::connect(&address).is_ok()
        });
        Self { child, address, storage }
    }

    /// The address and port, which are the first part of image names.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Copies an OCI image of a layout into the registry as `NAME:TAG`, in this format. The layers stay unchanged.
    pub fn push(&self, s: &Sandbox, layout: &Layout, tag: &str, name: &str, format: Format) {
        let format = match format {
            Format::Oci => "oci",
            Format::Docker => "v2s2",
        };
        let source = format!("oci:{}:{tag}", layout.dir().display());
        s.cmd("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--all"])
            .args(["--format", format])
            .args([source, format!("docker://{}/{name}", self.address)])
            .run()
            .code(0);
    }

    /// The path of a blob in the storage of the registry.
    pub fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let hex = descriptor["digest"].as_str().unwrap().replace("sha256:", "");
        let blobs = Path::new("docker/registry/v2/blobs/sha256");
        self.storage.join(blobs).join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // A registry that had ended would have failed the test earlier.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}
