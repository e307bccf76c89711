//! An authority of a test's own, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Signs certificates and writes them as files.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub file: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Signed {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new one called `name`, whose files are in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = dir.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir: dir.to_owned(), issuer: Issuer::new(params, key), file }
    }

    /// A certificate for one name or address, perhaps with something amiss; its files are called after `file`.
    pub fn sign(&self, file: &str, host: &str, amiss: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        amiss(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let signed = Signed { chain: self.dir.join(format!("{file}.pem")), key: self.dir.join(format!("{file}.key")) };
        fs::write(&signed.chain, cert.pem()).unwrap();
        fs::write(&signed.key, key.serialize_pem()).unwrap();
        signed
    }
}

impl Signed {
    /// Lines of `[server.tls]`.
    pub fn toml(&self) -> String {
        format!("use_tls = true\ncert_file = {:?}\nkey_file = {:?}", self.chain, self.key)
    }
}
