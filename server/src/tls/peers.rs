//! Whom a server trusts when it connects to another by `wss://`.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::{TlsError, fingerprint, provider, trusted_roots};
use crate::config::Trust;

/// A certificate that does not do, and what would.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum Refused {
    #[error("its certificate has expired: renew it there (SHA-256 {fingerprint})")]
    Expired { fingerprint: String },
    #[error("its certificate is not valid yet: is the clock of this machine right? (SHA-256 {fingerprint})")]
    TooEarly { fingerprint: String },
    #[error("its certificate is not for `{asked}` but for {named}: use a name that it has, or give it this one")]
    Misnamed { asked: String, named: String },
    #[error(
        "nobody that this server trusts has signed its certificate: name who did as `ca_file` in [server.cluster.tls], or this certificate in `pins`: {fingerprint}"
    )]
    Unknown { fingerprint: String },
    #[error("its certificate is not among `pins` in [server.cluster.tls]; if it is the right one, add {fingerprint}")]
    NotPinned { fingerprint: String },
    #[error("its certificate cannot be trusted: {why} (SHA-256 {fingerprint})")]
    Other { why: CertificateError, fingerprint: String },
}

/// What a server needs to connect to others inside TLS.
///
/// # Errors
/// When `ca_file` cannot be read or holds no certificate.
pub(crate) fn peer_tls(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let is_by_authority = !trust.skip_verify && trust.pins.is_empty();
    let roots = if is_by_authority { trusted_roots(trust.ca_file.as_slice())? } else { RootCertStore::empty() };
    let authorities = if roots.is_empty() {
        None
    } else {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        Some(builder.build().map_err(|error| Error::General(error.to_string()))?)
    };
    let verifier =
        Verifier { authorities, pins: trust.pins.clone(), skip: trust.skip_verify, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Checks certificates by authority or by fingerprint, and says of those that it refuses what would help.
struct Verifier {
    /// None where not one is known.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<String>,
    skip: bool,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("pins", &self.pins).field("skip", &self.skip).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.skip {
            return Ok(ServerCertVerified::assertion());
        }
        let fingerprint = fingerprint(end_entity);
        if !self.pins.is_empty() {
            return if self.pins.contains(&fingerprint) {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(refuse(Refused::NotPinned { fingerprint }))
            };
        }
        let Some(authorities) = &self.authorities else {
            return Err(refuse(Refused::Unknown { fingerprint }));
        };
        let verified = authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| {
            if let Error::InvalidCertificate(why) = error {
                refuse(explained(why, server_name, fingerprint))
            } else {
                error
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what is left is told as rustls tells it")]
fn explained(why: CertificateError, asked: &ServerName<'_>, fingerprint: String) -> Refused {
    let asked = asked.to_str().into_owned();
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refused::Expired { fingerprint },
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Refused::TooEarly { fingerprint }
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let named = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            Refused::Misnamed { asked, named }
        }
        CertificateError::NotValidForName => Refused::Misnamed { asked, named: "others".to_owned() },
        // Signed by somebody of the same name: every server that signs for itself has one name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Refused::Unknown { fingerprint },
        why => Refused::Other { why, fingerprint },
    }
}

fn refuse(why: Refused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair};

    use super::*;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        cert: CertificateDer<'static>,
    }

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), cert }
    }

    fn signed(by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["knot1.internal".to_owned()]).unwrap();
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &by.issuer).unwrap().der().clone()
    }

    fn verifier(trusted: Option<&Authority>, pins: Vec<String>) -> Verifier {
        let authorities = trusted.map(|authority| {
            let mut roots = RootCertStore::empty();
            roots.add(authority.cert.clone()).unwrap();
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap()
        });
        Verifier { authorities, pins, skip: false, provider: provider() }
    }

    fn verify(verifier: &Verifier, cert: &CertificateDer<'_>, name: &str) -> Result<(), String> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let verified = verifier.verify_server_cert(cert, &[], &name, &[], UnixTime::now());
        verified.map(drop).map_err(|error| {
            let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error else {
                panic!("no explanation: {error}")
            };
            why.to_string()
        })
    }

    #[test]
    fn every_refusal_says_what_would_help() {
        let (ours, theirs) = (authority(), authority());
        let good = signed(&ours, |_| {});
        let trusting = verifier(Some(&ours), Vec::new());
        assert_eq!(verify(&trusting, &good, "knot1.internal"), Ok(()));

        let refused = |cert: &CertificateDer<'_>, name: &str| verify(&trusting, cert, name).unwrap_err();
        let misnamed = refused(&good, "knot2.internal");
        assert!(
            misnamed.contains("not for `knot2.internal` but for") && misnamed.contains("knot1.internal"),
            "{misnamed}"
        );
        let expired = signed(&ours, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
        assert!(refused(&expired, "knot1.internal").contains("has expired: renew it there"));
        let early = signed(&ours, |params| params.not_before = rcgen::date_time_ymd(2099, 1, 1));
        assert!(refused(&early, "knot1.internal").contains("not valid yet: is the clock"));
        let foreign = signed(&theirs, |_| {});
        let unknown = refused(&foreign, "knot1.internal");
        assert!(unknown.contains("`ca_file`") && unknown.contains(&fingerprint(&foreign)), "{unknown}");
        assert!(verify(&verifier(None, Vec::new()), &good, "knot1.internal").unwrap_err().contains("`ca_file`"));
    }

    #[test]
    fn a_pin_stands_for_one_certificate_whoever_signed_it() {
        let ours = authority();
        let (meant, other) = (signed(&ours, |_| {}), signed(&ours, |_| {}));
        let pinned = verifier(Some(&ours), vec![fingerprint(&meant)]);
        assert_eq!(verify(&pinned, &meant, "any.internal"), Ok(()));
        assert!(verify(&pinned, &other, "knot1.internal").unwrap_err().contains(&fingerprint(&other)));
    }
}
