//! Certificates: the system's, `--ca`, and `certs.d` (containers-certs.d(5)).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jc_unshare::{Context, Error, Result, path_variable, read_at_most};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};

use jc_unshare::image::config_files;

/// The most bytes of SSL_CERT_FILE, many times those of the bundle of a distribution.
const MAX_BUNDLE: u64 = 16 << 20;

/// The files of `certs.d` for one host.
#[derive(Clone, Debug, Default)]
pub struct HostCerts {
    /// `*.crt`: authorities to trust for the host.
    authorities: Vec<PathBuf>,
    /// `*.cert` with its `*.key`: the certificate of the client.
    client: Option<(PathBuf, PathBuf)>,
}

impl HostCerts {
    /// Reads the directories of `certs.d` for `authority`. The result is `None` if they have no file. A
    /// certificate without its key is an error.
    pub fn find(authority: &str) -> Result<Option<Self>> {
        let mut found = Self::default();
        for directory in directories() {
            found.read(&directory.join(authority))?;
        }
        let nothing = found.authorities.is_empty() && found.client.is_none();
        Ok(Some(found).filter(|_| !nothing))
    }

    fn read(&mut self, directory: &Path) -> Result<()> {
        for path in config_files::list(directory)? {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => self.authorities.push(path),
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !key.exists() {
                        let path = path.display();
                        return Err(Error::new(format_args!("{path}: no key beside it"))
                            .hint(format_args!("{} is missing", key.display())));
                    }
                    self.client.get_or_insert((path, key));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn directories() -> Vec<PathBuf> {
    let own = path_variable("HOME").map(|home| home.join(".config/containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    own.into_iter().chain(system).collect()
}

/// The TLS configuration of a client. A file without a certificate is an error, and so is a system without
/// certificates.
///
/// * `with_roots` - whether to load the system's certificates, which plain http does not need
/// * `extra` - files (PEM) of more authorities
/// * `verify` - whether the server has to prove its name
pub fn config(
    with_roots: bool,
    extra: &[PathBuf],
    host: Option<&HostCerts>,
    verify: bool,
) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for path in extra {
        add(&mut roots, path, &config_files::read_named(path)?)?;
    }
    for path in host.into_iter().flat_map(|host| &host.authorities) {
        add(&mut roots, path, &read_found(path)?)?;
    }
    if with_roots && verify {
        add_native(&mut roots)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(format_args!("tls: {e}")))?;
    let builder = if verify {
        builder.with_root_certificates(roots)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification { provider }))
    };
    let Some((certificate, key)) = host.and_then(|host| host.client.as_ref()) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = pem("certificate", certificate, &read_found(certificate)?)?;
    let mut keys: Vec<PrivateKeyDer<'static>> = pem("key", key, &read_found(key)?)?;
    builder
        .with_client_auth_cert(chain, keys.swap_remove(0))
        .map_err(|e| Error::new(format_args!("certificate {}: {e}", certificate.display())))
}

/// Trusts the authorities in the text of a file.
fn add(roots: &mut RootCertStore, path: &Path, text: &[u8]) -> Result<()> {
    for certificate in pem::<CertificateDer<'static>>("certificate", path, text)? {
        let added = roots.add(certificate);
        added.map_err(|e| Error::new(format_args!("certificate {}: {e}", path.display())))?;
    }
    Ok(())
}

/// Reads a file of `certs.d`, which may be in the home directory of another user.
fn read_found(path: &Path) -> Result<Vec<u8>> {
    let absent = || Error::new(format_args!("{}: the file has been removed", path.display()));
    config_files::read_found(path)?.ok_or_else(absent)
}

/// The items of one type in the text of a file, at least one. `what` is their name in errors.
fn pem<T: PemObject>(what: &str, path: &Path, text: &[u8]) -> Result<Vec<T>> {
    let found: Result<Vec<T>, _> = T::pem_slice_iter(text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::new(format_args!("{what} {}: none in it", path.display()))),
        Err(e) => Err(Error::new(format_args!("{what} {}: {e}", path.display()))),
    }
}

/// Trusts the system's authorities: those of SSL_CERT_FILE and SSL_CERT_DIR, or else those that are installed.
fn add_native(roots: &mut RootCertStore) -> Result<()> {
    let (file, directories) = (path_variable("SSL_CERT_FILE"), path_variable("SSL_CERT_DIR"));
    let mut errors = Vec::new();
    let mut trust = |found: CertificateResult| {
        roots.add_parsable_certificates(found.certs);
        errors.extend(found.errors);
    };
    if file.is_none() && directories.is_none() {
        trust(load_native_certs());
    }
    for directory in directories.iter().flat_map(std::env::split_paths) {
        trust(load_certs_from_paths(None, Some(&directory)));
    }
    if let Some(path) = file {
        // The crate would read a device to its end.
        let text = read_at_most(File::open(&path).on("read", &path)?, MAX_BUNDLE, &path)?;
        let found = CertificateDer::pem_slice_iter(&text).flatten();
        roots.add_parsable_certificates(found);
    }
    if !roots.is_empty() {
        return Ok(());
    }
    let why = errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
    Err(Error::new(format_args!("tls: the system's CA certificates: {why}"))
        .hint("install ca-certificates, or name a file with --ca"))
}

/// Accepts every certificate, for `--insecure`.
#[derive(Debug)]
struct NoVerification {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
