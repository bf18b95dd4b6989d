//! A registry behind TLS, with a made authority.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::common::{Image, Layer, MANIFEST, Store, Tar, failure, root};
use crate::registry::Registry;

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

/// Puts TLS in front of a registry; `host:port`. With `clients`, only those may come.
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

/// One request after the other: what is asked, and what is answered until the other side waits.
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
    if !root() {
        return;
    }
    let (registry, authority) = (Registry::start(), Authority::new("ours"));
    let image = Image::new(&[Layer::gzip(&Tar::new().directory("./", 0o755).finish())]);
    registry.push("x", "latest", &image, MANIFEST);
    let host = front(&registry, authority.issue("127.0.0.1"), None);
    let name = format!("{host}/x");
    let store = Store::new();
    let ca = store.beside("ca.pem");
    write(&ca, &authority.issuer.pem());
    let ca = ca.to_str().unwrap();

    // What the system trusts is something else, or nothing at all.
    let system = store.beside("system.pem");
    write(&system, &Authority::new("theirs").issuer.pem());
    let mut command = store.command(&["-q", "--retry", "0", &name]);
    let nothing = command
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/dev/null")
        .output()
        .unwrap();
    let message = failure(&nothing, 1);
    assert!(message.contains("tls: the system's CA certificates: "), "{message}");
    let output = command.env("SSL_CERT_FILE", &system).output().unwrap();
    let message = failure(&output, 1);
    assert!(message.contains("https://") && message.contains("UnknownIssuer"), "{message}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: --ca or certs.d"));
    store.pull(&["-q", "--ca", ca, &name]);
    store.pull(&["-q", "--insecure", &name]);
    let message = store.fail(1, &["-q", "--ca", "/no/ca", &name]);
    assert!(message.contains("read /no/ca: No such file"), "{message}");
    write(&store.beside("empty.pem"), "nothing\n");
    let empty = store.beside("empty.pem");
    let message = store.fail(1, &["-q", "--ca", empty.to_str().unwrap(), &name]);
    assert!(message.ends_with("empty.pem: none in it"), "{message}");

    // Another name than the certificate's, and another authority.
    let other = front(&registry, authority.issue("other.example"), None);
    let message = store.fail(1, &["-q", "--retry", "0", "--ca", ca, &format!("{other}/x")]);
    assert!(message.contains("not valid for"), "{message}");

    let certs = store.beside("home/.config/containers/certs.d").join(&host);
    write(&certs.join("ca.crt"), &authority.issuer.pem());
    store.pull(&["-q", &name]);
    write(&certs.join("client.cert"), "");
    let message = store.fail(1, &["-q", &name]);
    assert!(message.ends_with("client.cert: no key beside it"), "{message}");
}

#[test]
fn a_client_shows_its_certificate_where_certs_d_has_one() {
    if !root() {
        return;
    }
    let (registry, authority) = (Registry::start(), Authority::new("ours"));
    let image = Image::new(&[Layer::gzip(&Tar::new().directory("./", 0o755).finish())]);
    registry.push("x", "latest", &image, MANIFEST);
    let host = front(&registry, authority.issue("127.0.0.1"), Some(&authority));
    let name = format!("{host}/x");
    let store = Store::new();
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
}
