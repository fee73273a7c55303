use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Certificates of authorities that a bus trusts, in the form of PEM (RFC 7468).
///
/// They replace the authorities that a connection trusts otherwise: who names its own wants no other.
#[derive(Clone, PartialEq, Eq)]
pub struct RootCertificates(Arc<[u8]>);

/// What every certificate begins with.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

impl RootCertificates {
    /// The contents of a file in PEM, with one certificate or several.
    #[must_use]
    pub fn from_pem(pem: impl Into<Vec<u8>>) -> Self {
        Self(pem.into().into())
    }

    pub(super) fn pem(&self) -> &[u8] {
        &self.0
    }

    /// Refuses what holds no certificate, with which no server would be trusted.
    pub(super) fn validate(&self, label: &str) -> Result<()> {
        if self.0.windows(BEGIN.len()).any(|part| part == BEGIN) {
            return Ok(());
        }
        Err(unreadable(label))
    }
}

/// Bytes that are no certificates. Without the reason: nobody knows what was in the file.
pub(super) fn unreadable(label: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("{label} has root certificates that are not certificates in PEM"),
    )
}

impl fmt::Debug for RootCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootCertificates({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_certificate_is_refused() {
        let own = RootCertificates::from_pem("-----BEGIN CERTIFICATE-----\n…");
        own.validate("bus").unwrap();
        for wrong in ["", "-----BEGIN PRIVATE KEY-----\nsecret"] {
            let error = RootCertificates::from_pem(wrong)
                .validate("bus")
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("secret"));
        }
    }
}
