//! TLS of the HTTP API: the server's certificate, named or self-signed, and whom the command line and other servers trust
//! to have it. Only servers can be told to skip verification: what they say is sealed between them in any case.

mod certificate;
mod peers;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub use self::certificate::{Certificate, Identity, WARNED_BEFORE};
pub(crate) use self::peers::peer_tls;
use crate::config::{TlsConfig, first_address};
use crate::storage::write_private;

/// The self-signed certificate's name in the data folder.
pub const CERT_FILE: &str = "cert.pem";
/// The name of its private key there.
pub const KEY_FILE: &str = "key.pem";

/// Where systems keep the authorities they trust (the list of Go's `crypto/x509`, shortened).
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate or no private key in PEM.
    #[error("{} holds no {expected} in PEM", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The certificate and the key are each fine and do not belong together, or cannot be used.
    #[error("{} and {} cannot be used together: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A self-signed certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The cryptography that is built in does not do what TLS needs.
    #[error(transparent)]
    Setup(#[from] rustls::Error),
}

/// A server's TLS, ready to accept.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// What the acceptor needs.
    pub config: Arc<ServerConfig>,
    /// What it shows.
    pub certificate: Arc<Certificate>,
}

/// Reads the certificate that `tls` names; a self-signed one is made in `data_dir` at the first start, for `names`
/// (host names and addresses; the one that stands for every interface is this machine's own) besides this machine's
/// loopback names.
///
/// # Errors
/// When a file is missing, unreadable or no PEM, or the key is not the certificate's.
pub fn server_tls(tls: &TlsConfig, data_dir: &Path, names: &[String]) -> Result<ServerTls, TlsError> {
    let (cert_file, key_file) = match tls {
        TlsConfig::Files { cert, key } => (cert.clone(), key.clone()),
        TlsConfig::SelfSigned => {
            let (cert, key) = (data_dir.join(CERT_FILE), data_dir.join(KEY_FILE));
            if !cert.exists() || !key.exists() {
                make_self_signed(&cert, &key, names)?;
            }
            (cert, key)
        }
    };
    let certificate = Certificate::read(cert_file, key_file)?;
    Ok(ServerTls { config: certificate.server_config()?, certificate })
}

/// What a client trusts: the system's authorities, and the certificates in `extra`.
///
/// # Errors
/// When a file in `extra` cannot be read or holds no certificate.
pub fn client_tls(extra: &[PathBuf]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted_roots(extra)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The system's authorities, and the certificates in `extra`.
fn trusted_roots(extra: &[PathBuf]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in extra {
        for cert in certificates(path)? {
            roots.add(cert).map_err(|_| TlsError::Malformed { path: path.clone(), expected: "certificate" })?;
        }
    }
    let bundle = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = bundle.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()));
    if let Some(path) = system
        && let Ok(bundle) = certificates(&path)
    {
        roots.add_parsable_certificates(bundle);
    }
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn make_self_signed(cert_file: &Path, key_file: &Path, names: &[String]) -> Result<(), TlsError> {
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    for name in names {
        // What the server tells others to reach it at, where nothing says better.
        let is_any = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        let name = if is_any { first_address().to_string() } else { name.clone() };
        if !all.contains(&name) {
            all.push(name);
        }
    }
    let mut params = rcgen::CertificateParams::new(all)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "knot self-signed");
    let key = rcgen::KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    let write = |path: &Path, text: String| {
        write_private(path, text.as_bytes()).map_err(|source| TlsError::File { path: path.to_owned(), source })
    };
    // The certificate last: a crash in between leaves no certificate, and both are made again.
    let _ = fs::remove_file(cert_file);
    write(key_file, key.serialize_pem())?;
    write(cert_file, cert.pem())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |error| pem_error(error, path, "certificate");
    let certs: Vec<_> = CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    if certs.is_empty() {
        return Err(read(pem::Error::NoItemsFound));
    }
    Ok(certs)
}

fn pem_error(error: pem::Error, path: &Path, expected: &'static str) -> TlsError {
    let path = path.to_owned();
    if let pem::Error::Io(source) = error {
        return TlsError::File { path, source };
    }
    TlsError::Malformed { path, expected }
}

fn fingerprint(cert: &CertificateDer<'_>) -> String {
    let Some(suite) = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() else {
        return String::new();
    };
    let mut text = String::new();
    for (at, byte) in suite.common.hash_provider.hash(cert).as_ref().iter().enumerate() {
        let colon = if at == 0 { "" } else { ":" };
        let _ = write!(text, "{colon}{byte:02X}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::ServerName;

    use super::*;

    fn self_signed(dir: &Path) -> ServerTls {
        server_tls(&TlsConfig::SelfSigned, dir, &["knot1.internal".to_owned()]).expect("made")
    }

    fn handshake(server: &ServerTls, trusted: &[PathBuf], name: &str) -> Result<(), String> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let acceptor = server.config.clone();
        let accepting = std::thread::spawn(move || {
            let mut session = rustls::ServerConnection::new(acceptor).expect("set up");
            let mut theirs = theirs;
            while session.is_handshaking() {
                if session.complete_io(&mut theirs).is_err() {
                    return;
                }
            }
        });
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut session = rustls::ClientConnection::new(client_tls(trusted).expect("trust"), name).expect("set up");
        let mut ours = ours;
        let mut result = Ok(());
        while session.is_handshaking() && result.is_ok() {
            result = session.complete_io(&mut ours).map(|_| ()).map_err(|error| error.to_string());
        }
        drop(ours);
        accepting.join().expect("it ended");
        result
    }

    #[test]
    fn a_self_signed_certificate_is_kept_and_its_key_is_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = self_signed(dir.path());
        assert_eq!(self_signed(dir.path()).certificate.identity(), first.certificate.identity());
        assert_eq!(first.certificate.identity().fingerprint.len(), 32 * 3 - 1);
        let mode = fs::metadata(dir.path().join(KEY_FILE)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_client_that_trusts_the_file_gets_through_and_no_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let server = self_signed(dir.path());
        let trusted = [server.certificate.file().to_owned()];
        for name in ["localhost", "127.0.0.1", "::1", "knot1.internal"] {
            handshake(&server, &trusted, name).expect(name);
        }
        assert!(handshake(&server, &trusted, "elsewhere.internal").is_err());
        assert!(handshake(&server, &[], "localhost").is_err_and(|e| e.contains("UnknownIssuer")));
    }

    #[test]
    fn a_server_on_every_interface_is_reached_by_its_address() {
        let dir = tempfile::tempdir().expect("a folder");
        let server = server_tls(&TlsConfig::SelfSigned, dir.path(), &["0.0.0.0".to_owned()]).expect("made");
        handshake(&server, &[server.certificate.file().to_owned()], &first_address().to_string()).expect("it is named");
    }

    #[test]
    fn a_missing_or_mismatching_file_is_named() {
        let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        self_signed(one.path());
        self_signed(two.path());
        let refusal = |cert: PathBuf, key: PathBuf| {
            server_tls(&TlsConfig::Files { cert, key }, one.path(), &[]).expect_err("refused").to_string()
        };
        let (cert, key) = (one.path().join(CERT_FILE), one.path().join(KEY_FILE));
        let missing = refusal(one.path().join("none.pem"), key.clone());
        assert!(missing.contains("none.pem") && missing.contains("No such file"), "{missing}");
        let swapped = refusal(key.clone(), cert.clone());
        assert!(swapped.contains("key.pem holds no certificate"), "{swapped}");
        let no_key = refusal(cert.clone(), cert.clone());
        assert!(no_key.contains("cert.pem holds no private key"), "{no_key}");
        let mismatch = refusal(cert, two.path().join(KEY_FILE));
        assert!(mismatch.contains("cannot be used together"), "{mismatch}");
    }
}
