//! A registry behind TLS, with an authority of the test.

#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use jc_tests::http::{Answer, Registry};
use jc_tests::image::{Built, Packed};
use jc_tests::layer::Layer;
use jc_tests::pulled::{Store, failure};
use jc_tests::{Ran, Sandbox, sandbox};
use serde_json::json;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM and in DER.
struct Identity {
    pem: String,
    key_pem: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

/// Starts a TLS server in front of a registry, and returns its `host:port`. With `clients`, clients need a
/// certificate of that authority.
fn front(registry: &Registry, server: Identity, clients: Option<&Authority>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = Arc::new(builder.with_single_cert(vec![server.certificate], server.key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let behind = registry.host.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, behind) = (Arc::clone(&config), behind.clone());
            std::thread::spawn(move || drop(forward(stream.unwrap(), config, &behind)));
        }
    });
    address
}

/// Bytes that a server sends once, and bytes that it sends repeatedly.
type Flood = (&'static str, &'static str);

/// A server that floods its client: within TLS in answer to a request, or in place of the handshake.
fn flooding(server: Option<Identity>, bytes: Flood) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = server.map(|server| {
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![server.certificate], server.key).unwrap())
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, config) = (stream.unwrap(), config.clone());
            std::thread::spawn(move || match config {
                None => flood(stream, bytes),
                Some(config) => {
                    flood(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), bytes);
                }
            });
        }
    });
    address
}

fn flood(mut to: impl Read + Write, (once, again): Flood) {
    drop(to.read(&mut [0; 16384]));
    drop(to.write_all(once.as_bytes()));
    let again = again.repeat(16384 / again.len());
    // The client hangs up.
    while to.write_all(again.as_bytes()).is_ok() {}
}

/// Forwards requests one after the other, with their complete answers.
fn forward(stream: TcpStream, config: Arc<ServerConfig>, to: &str) -> std::io::Result<()> {
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tls.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let text = String::from_utf8(head).unwrap();
        let close = text.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let mut plain = TcpStream::connect(to)?;
        plain.write_all(close.as_bytes())?;
        plain.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer)?;
        tls.write_all(&answer)?;
        tls.flush()?;
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_registry_is_trusted_by_ca_by_certs_d_or_not_at_all() {
    sandbox(|s| {
        let (registry, authority) = (Registry::start(), Authority::new("ours"));
        let image = Built::of(&[Packed::gzip(&Layer::new().directory("./", 0o755).into_tar())]);
        registry.push("x", "latest", &image);
        let host = front(&registry, authority.issue("127.0.0.1"), None);
        let name = format!("{host}/x");
        let store = Store::new(s);
        let ca = store.beside("ca.pem");
        write(&ca, &authority.issuer.pem());
        let ca = ca.to_str().unwrap();

        // The system trusts another authority, or none.
        let system = store.beside("system.pem");
        write(&system, &Authority::new("theirs").issuer.pem());
        let system_trusts = |file: &Path| {
            let command = store.command(&["-q", "--retry", "0", &name]).env("SSL_CERT_FILE", file);
            command.env("SSL_CERT_DIR", "/dev/null").run()
        };
        let nothing = system_trusts(Path::new("/dev/null"));
        let message = failure(&nothing, 1);
        assert!(message.contains("tls: the system's CA certificates: "), "{message}");
        let message = failure(&system_trusts(Path::new("/dev/zero")), 1);
        assert!(message.contains("read /dev/zero: longer than 16777216 bytes"), "{message}");
        let output = system_trusts(&system);
        let message = failure(&output, 1);
        assert!(message.contains("https://") && message.contains("UnknownIssuer"), "{message}");
        assert!(output.err().contains("hint: --ca or certs.d"));
        store.pull(&["-q", "--ca", ca, &name]);
        store.pull(&["-q", "--insecure", &name]);
        let message = store.fail(1, &["-q", "--ca", "/no/ca", &name]);
        assert!(message.contains("read /no/ca: No such file"), "{message}");
        write(&store.beside("empty.pem"), "nothing\n");
        let empty = store.beside("empty.pem");
        let message = store.fail(1, &["-q", "--ca", empty.to_str().unwrap(), &name]);
        assert!(message.ends_with("empty.pem: none in it"), "{message}");

        // A certificate for another name, and one of another authority.
        let other = front(&registry, authority.issue("other.example"), None);
        let message = store.fail(1, &["-q", "--retry", "0", "--ca", ca, &format!("{other}/x")]);
        assert!(message.contains("not valid for"), "{message}");

        let certs = store.beside("home/.config/containers/certs.d").join(&host);
        write(&certs.join("ca.crt"), &authority.issuer.pem());
        store.pull(&["-q", &name]);
        // A home directory that sudo(8) keeps belongs to another user.
        for file in ["ca.crt", "client.cert", "client.key"] {
            let path = certs.join(file);
            std::fs::copy(certs.join("ca.crt"), certs.join("copy")).unwrap();
            for other in ["client.cert", "client.key", file] {
                std::fs::copy(certs.join("copy"), certs.join(other)).unwrap();
            }
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
            let message = store.fail(1, &["-q", &name]);
            assert!(
                message.contains(file) && message.contains("belongs to user 65534"),
                "{message}"
            );
            std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
            s.sh("rm \"$0\"; mkfifo \"$0\"").arg(&path).run().code(0);
            let message = store.fail(1, &["-q", &name]);
            assert!(message.ends_with(": not a regular file"), "{message}");
            s.sh("cd \"$0\" && rm client.* ca.crt && mv copy ca.crt").arg(&certs).run().code(0);
        }
        write(&certs.join("client.cert"), "");
        let message = store.fail(1, &["-q", &name]);
        assert!(message.ends_with("client.cert: no key beside it"), "{message}");
    });
}

#[test]
fn a_server_that_floods_its_client_is_given_up() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\n";
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    // Records of TLS (RFC 8446, 5.1): a change of ciphers, an alert, an empty handshake, a HelloRequest.
    let handshakes: [Flood; 4] = [
        ("", "\x14\x03\x03\0\x01\x01"),
        ("", "\x15\x03\x03\0\x02\x01\x5a"),
        ("", "\x16\x03\x03\0\0"),
        ("", "\x16\x03\x03\0\x04\0\0\0\0"),
    ];
    let answers: [Flood; 9] = [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\nlink: aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n"),
        // Frames of HTTP/2, which the client does not speak: SETTINGS and CONTINUATION.
        ("\0\0\0\x04\0\0\0\0\0", "\0\0\x04\x09\0\0\0\0\x01aaaa"),
        (HEAD, "a: b\r\n"),
        (HEAD, "a"),
        (CHUNKS, "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n"),
        (CHUNKS, "0"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "a: b\r\n"),
        ("HTTP/1.1 401 No\r\nwww-authenticate: ", "Basic a=\"b\", "),
    ];
    sandbox(|s| {
        let (authority, store) = (Authority::new("ours"), Store::new(s));
        let ca = store.beside("ca.pem");
        write(&ca, &authority.issuer.pem());
        let given_up = |server: String| {
            let limits = ["--cpu=20", "--data=268435456", "--"];
            let pull = s.cmd("prlimit").args(limits).arg(s.bin("jc-pull"));
            let pull = pull.args(["-q", "--retry", "0", "--timeout", "1", "far.example/x", "--ca"]);
            // A name of this machine would be tried by plain http first.
            failure(
                &pull.arg(&ca).env("https_proxy", format!("http://{}", proxy(&server))).run(),
                1,
            )
        };
        std::thread::scope(|scope| {
            let ends = |server: String, bytes: Flood| {
                let found = given_up(server);
                assert!(found.contains("https://far.example/v2/x/"), "{bytes:?}: {found}");
            };
            for bytes in handshakes {
                scope.spawn(move || ends(flooding(None, bytes), bytes));
            }
            for bytes in answers {
                let server = authority.issue("far.example");
                scope.spawn(move || ends(flooding(Some(server), bytes), bytes));
            }
        });
    });
}

#[test]
fn a_client_shows_its_certificate_where_certs_d_has_one() {
    sandbox(|s| {
        let (registry, authority) = (Registry::start(), Authority::new("ours"));
        let image = Built::of(&[Packed::gzip(&Layer::new().directory("./", 0o755).into_tar())]);
        registry.push("x", "latest", &image);
        let host = front(&registry, authority.issue("127.0.0.1"), Some(&authority));
        let name = format!("{host}/x");
        let store = Store::new(s);
        let certs = store.beside("home/.config/containers/certs.d").join(&host);
        write(&certs.join("ca.crt"), &authority.issuer.pem());
        let message = store.fail(1, &["-q", "--retry", "0", &name]);
        assert!(message.contains("CertificateRequired"), "{message}");
        let client = authority.issue("client");
        write(&certs.join("client.cert"), &client.pem);
        write(&certs.join("client.key"), &client.key_pem);
        store.pull(&["-q", &name]);
        write(&certs.join("client.key"), "");
        let message = store.fail(1, &["-q", &name]);
        assert!(message.ends_with("client.key: none in it"), "{message}");
    });
}

/// A proxy that connects to the server at `to` for every host.
fn proxy(to: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let to = to.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut near, mut far) = (stream.unwrap(), TcpStream::connect(&to).unwrap());
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    near.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut from, mut into) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut into));
                // Either side may close the connection first.
                drop(std::io::copy(&mut far, &mut near));
            });
        }
    });
    address
}

/// A public registry, whose name a proxy resolves. `inner.example` is this machine.
struct Public<'a> {
    registry: Registry,
    store: Store<'a>,
    proxy: String,
    elsewhere: Registry,
}

impl<'a> Public<'a> {
    fn start(s: &'a Sandbox) -> Self {
        let (registry, elsewhere) = (Registry::start(), Registry::start());
        let (authority, store) = (Authority::new("ours"), Store::new(s));
        let proxy = proxy(&front(&registry, authority.issue("far.example"), None));
        write(&store.beside("ca.pem"), &authority.issuer.pem());
        write(&store.beside("hosts"), "127.0.0.1 localhost inner.example\n");
        s.cmd("mount").arg("--bind").arg(store.beside("hosts")).arg("/etc/hosts").run().code(0);
        Self { registry, store, proxy, elsewhere }
    }

    /// Pulls `far.example/x` with a login.
    fn pull(&self, options: &[&str]) -> Ran {
        let path = |name: &str| self.store.beside(name).display().to_string();
        write(&self.store.beside("auth.json"), r#"{"auths":{"far.example":{"auth":"YTpi"}}}"#);
        let (ca, login) = (path("ca.pem"), path("auth.json"));
        let own = ["-q", "--retry", "0", "--timeout", "5", "--ca", &ca, "--authfile", &login];
        let command = self.store.command(&[&own, options, &["far.example/x"]].concat());
        let command = command.env("https_proxy", format!("http://{}", self.proxy));
        command.env("no_proxy", "inner.example").run()
    }

    /// Serves an image that needs a token from `realm`, if given, and whose layer has other `urls`.
    fn push(&self, realm: &str, urls: &[String]) {
        let tar = Layer::new().directory("./", 0o755).into_tar();
        let mut layer = Packed::gzip(&tar);
        layer.media_type =
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".to_owned();
        let mut image = Built::of(&[layer]);
        image.edit_manifest(|manifest| manifest["layers"][0]["urls"] = json!(urls));
        let digest = image.layer(0).to_owned();
        let blob = image.blobs.remove(&digest).unwrap();
        self.elsewhere.set("/far", Answer::ok(&blob, ""));
        let token = "/token?service=s&scope=repository%3Ax%3Apull";
        self.elsewhere.set(token, Answer::ok(br#"{"token":"t"}"#, "application/json"));
        self.registry.push("x", "latest", &image);
        if !realm.is_empty() {
            let challenge = format!(r#"Bearer realm="{realm}",service="s""#);
            let needs = Some(("Bearer t".to_owned(), challenge));
            self.registry.change("/v2/x/manifests/latest", |a| a.needs = needs);
        }
    }
}

#[test]
fn a_public_registry_names_no_service_of_this_machine() {
    sandbox(|s| {
        let public = Public::start(s);
        let port = public.elsewhere.host.split(':').next_back().unwrap().to_owned();
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "inner.example"] {
            for scheme in ["http", "https"] {
                let there = format!("{scheme}://{host}:{port}");
                public.push(&format!("{there}/token"), &[]);
                let realm = failure(&public.pull(&[]), 1);
                public.push("", &[format!("{there}/far")]);
                let url = failure(&public.pull(&[]), 1);
                public.push("", &[]);
                let layer = public.registry.paths("/blobs/");
                for path in &layer {
                    public.registry.set(path, Answer::redirect(&format!("{there}/far")));
                }
                let redirect = failure(&public.pull(&[]), 1);
                for found in [realm, url, redirect] {
                    let refused = ["which this registry may not name", "plain http"];
                    assert!(refused.iter().any(|r| found.contains(r)), "{there}: {found}");
                }
            }
        }
        assert_eq!(public.elsewhere.take_seen(), []);
        // The caller may allow each of these.
        public.push(
            &format!("http://127.0.0.1:{port}/token"),
            &[format!("http://inner.example:{port}/far")],
        );
        public.pull(&["--insecure"]).code(0);
        s.sh("umount /etc/hosts").run().code(0);
    });
}
