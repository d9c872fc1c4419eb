//! What we read from a certificate.

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{
    crypto::sha256,
    id::{Did, Sha256},
    time::Timestamp,
};

/// Why a certificate can't be read.
#[derive(Debug, thiserror::Error)]
#[error("not a certificate that we can read: {0}")]
pub struct CertificateError(String);

/// The other end's certificate; its key was proved by the handshake, nothing else about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of the SubjectPublicKeyInfo: what statements pin.
    pub spki: Sha256,
    /// SHA-256 of the whole certificate: what tokens are bound to (RFC 8705 `x5t#S256`).
    pub thumbprint: Sha256,
    /// DIDs among the URI subject alternative names.
    pub dids: Vec<Did>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

impl PeerCertificate {
    /// Reads a DER certificate.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let wrong = |error: &dyn std::fmt::Display| CertificateError(error.to_string());
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| wrong(&error))?;
        if !rest.is_empty() {
            return Err(CertificateError("something follows it".into()));
        }
        let names = certificate.subject_alternative_name().map_err(|error| wrong(&error))?;
        let dids = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Did::parse(*uri).ok(),
                _ => None,
            })
            .collect();
        let millis = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        Ok(Self {
            spki: sha256(certificate.public_key().raw),
            thumbprint: sha256(der),
            dids,
            not_before: millis(certificate.validity().not_before.timestamp()),
            not_after: millis(certificate.validity().not_after.timestamp()),
        })
    }
}
