//! Reading a chain that may still wait for approval, which `CertificateChain::verify` refuses.

use identity::{
    Certificate, CertificateChain, DelegationError, InviteGrant, NetworkId, Scope, SignatureError,
    Validity,
};

/// What a chain says, with every signature on the way checked.
///
/// Limits, time and revocations are the business of `CertificateChain::verify`.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    pub(crate) certificate: Certificate,
    pub(crate) grant: Option<InviteGrant>,
    /// The validity in force: the renewal's, or the certificate's.
    pub(crate) validity: Validity,
}

#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum ClaimsError {
    #[error(transparent)]
    Delegation(#[from] DelegationError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

pub(crate) fn claims(chain: &CertificateChain, network: NetworkId) -> Result<Claims, ClaimsError> {
    let issuer = chain.delegation.verify_scope(network, Scope::Issue)?.key;
    let grant = match &chain.grant {
        Some(grant) => Some(grant.verify(network, issuer)?),
        None => None,
    };
    let signer = grant.as_ref().map_or(issuer, |grant| grant.key);
    let certificate = chain.certificate.verify(network, signer)?;
    let validity = match &chain.renewal {
        Some(proven) => {
            let renewer = proven.delegation.verify_scope(network, Scope::Renew)?.key;
            proven.renewal.verify(network, renewer)?.validity
        }
        None => certificate.validity,
    };
    Ok(Claims { certificate, grant, validity })
}
