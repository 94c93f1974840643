//! Certificates and private keys out of PEM text (RFC 7468), for servers and clients alike. The caller reads the files.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// All certificates, in their order; at least one.
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("there is no certificate in it (PEM is expected)".to_owned()),
        Ok(all) => Ok(all),
        Err(err) => Err(err.to_string()),
    }
}

/// The first private key.
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|err| match err {
        rustls_pki_types::pem::Error::NoItemsFound => {
            "there is no private key in it (PEM without a passphrase is expected)".to_owned()
        }
        err => err.to_string(),
    })
}
