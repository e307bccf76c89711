//! The certificate that the HTTP API shows: the one in its files, taken anew when those change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode;

use super::{TlsError, certificates, fingerprint, pem_error, provider};

/// How long before it expires a certificate is warned of.
pub const WARNED_BEFORE: Duration = Duration::from_secs(14 * 24 * 3_600);

/// A certificate in two files, ready to be shown.
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    present: RwLock<Present>,
}

/// What the files held when they were last read.
#[derive(Clone)]
struct Present {
    certified: Arc<CertifiedKey>,
    identity: Identity,
    stamps: Stamps,
}

/// What people compare and wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the server's own certificate, in hexadecimal with colons.
    pub fingerprint: String,
    /// The end of its time, in seconds since 1970; none where the certificate does not say one that can be read.
    pub expires_s: Option<u64>,
}

/// By which a file's change is noticed: when it was written, and how long it is.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("cert", &self.cert)
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}

impl Certificate {
    pub(super) fn read(cert: PathBuf, key: PathBuf) -> Result<Arc<Self>, TlsError> {
        let present = RwLock::new(read(&cert, &key)?);
        Ok(Arc::new(Self { cert, key, present }))
    }

    /// The file that a client may be told to trust.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.cert
    }

    /// What is shown now.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.present().identity
    }

    /// Takes what is in the files where that has changed, and says what it is. What cannot be used changes nothing, and
    /// is told once.
    ///
    /// # Errors
    /// When the files have changed and cannot be used.
    pub fn renew(&self) -> Result<Option<Identity>, TlsError> {
        let before = self.present();
        let stamps = stamps(&self.cert, &self.key);
        if stamps == before.stamps {
            return Ok(None);
        }
        let (present, outcome) = match read(&self.cert, &self.key) {
            Ok(present) => {
                let identity = Some(&present.identity).filter(|identity| **identity != before.identity).cloned();
                (present, Ok(identity))
            }
            Err(error) => (Present { stamps, ..before }, Err(error)),
        };
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = present;
        outcome
    }

    /// What an acceptor needs to show it.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(self.clone())));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn present(&self) -> Present {
        self.present.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Identity {
    /// For how long it is still good at `now_s`, in seconds since 1970; none where that is not known.
    #[must_use]
    pub fn left(&self, now_s: u64) -> Option<Duration> {
        self.expires_s.map(|expires| Duration::from_secs(expires.saturating_sub(now_s)))
    }
}

#[derive(Debug)]
struct Shown(Arc<Certificate>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.present().certified)
    }
}

fn read(cert: &Path, key: &Path) -> Result<Present, TlsError> {
    // Before they are read, so that what changes meanwhile is read again.
    let stamps = stamps(cert, key);
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error(error, key, "private key"))?;
    let own = chain.first();
    let identity = Identity {
        fingerprint: own.map(fingerprint).unwrap_or_default(),
        expires_s: own.and_then(|own| {
            let parsed = x509_cert::Certificate::from_der(own).ok()?;
            Some(parsed.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
        }),
    };
    let certified = CertifiedKey::from_der(chain, private, &provider()).map_err(|source| TlsError::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        source,
    })?;
    Ok(Present { certified: Arc::new(certified), identity, stamps })
}

fn stamps(cert: &Path, key: &Path) -> Stamps {
    [cert, key].map(|path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(dir: &Path, expires: i32) -> (PathBuf, PathBuf) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(expires, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
        fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    #[test]
    fn a_new_certificate_is_shown_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = write(dir.path(), 2030);
        let shown = Certificate::read(cert.clone(), key.clone()).unwrap();
        let first = shown.identity();
        assert_eq!(first.expires_s, Some(1_893_456_000), "the first of January of 2030");
        assert_eq!(shown.renew().unwrap(), None);

        write(dir.path(), 2031);
        let second = shown.renew().unwrap().expect("it has changed");
        assert_ne!(second.fingerprint, first.fingerprint);
        assert_eq!(shown.identity(), second);

        fs::write(&key, "not a key").unwrap();
        assert!(shown.renew().is_err_and(|error| error.to_string().contains("key.pem holds no private key")));
        assert_eq!(shown.renew().unwrap(), None, "once is enough");
        assert_eq!(shown.identity(), second, "what was good is shown on");
    }

    #[test]
    fn what_is_left_is_counted_from_now() {
        let identity = |expires_s| Identity { fingerprint: String::new(), expires_s };
        assert_eq!(identity(Some(100)).left(40), Some(Duration::from_secs(60)));
        assert_eq!(identity(Some(100)).left(101), Some(Duration::ZERO));
        assert_eq!(identity(None).left(0), None);
    }
}
