//! Certificates, pins and TLS settings.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    CertificateError as RustlsCertificateError, ClientConfig, DigitallySignedStruct, Error,
    RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs::cipher_suite as aws_lc_suites,
        ring::cipher_suite as ring_suites, verify_tls13_signature,
    },
    server::ParsedCertificate,
    version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject,
};
use zeroize::Zeroizing;

/// What a browser that speaks WebSocket over TLS offers.
const ALPN: &[u8] = b"http/1.1";

/// How a dialled server proves who it is below the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all: plain TCP.
    Plain,
    /// By a certificate of the Web PKI for the endpoint's host, as with a CDN in front.
    WebPki,
    /// By its public key, whatever its certificate says.
    Pin(SpkiPin),
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpkiPin(pub [u8; 32]);

impl SpkiPin {
    /// The pin of a server by the PEM text of its certificate, the first if there are several.
    ///
    /// # Errors
    /// When there is no certificate, or it is unreadable.
    pub fn of_pem(chain: &[u8]) -> Result<Self, CertificateError> {
        let certificate =
            CertificateDer::from_pem_slice(chain).map_err(|_| CertificateError::Chain)?;
        Self::of(&certificate).map_err(|_| CertificateError::Chain)
    }

    fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let spki = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let mut pin = [0; 32];
        pin.copy_from_slice(digest(&SHA256, &spki).as_ref());
        Ok(Self(pin))
    }
}

/// Makes a new private key for a self-signed server certificate, as PKCS#8 in DER.
#[must_use]
pub fn generate_key() -> Zeroizing<Vec<u8>> {
    let key = rcgen::KeyPair::generate().expect("the operating system gives randomness");
    Zeroizing::new(key.serialize_der())
}

/// A server's certificate chain with its private key, which belong together.
pub struct ServerCertificate {
    config: Arc<ServerConfig>,
    pin: SpkiPin,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl ServerCertificate {
    /// Reads a certificate chain, the server's own first, and its private key from PEM text.
    ///
    /// # Errors
    /// When either holds none of what it should, the chain begins with an unreadable certificate, or
    /// the key belongs to another one.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::Key)?;
        Self::new(chain, key)
    }

    /// Signs a certificate for these names or addresses with its own key, given as
    /// [`generate_key`] makes it. The pin depends on the key alone.
    ///
    /// # Errors
    /// When the key is not of that form or a name is not one.
    pub fn self_signed(key: &[u8], names: Vec<String>) -> Result<Self, CertificateError> {
        let key_der = PrivatePkcs8KeyDer::from(key.to_vec());
        let pair = rcgen::KeyPair::try_from(&key_der).map_err(|_| CertificateError::Key)?;
        let certificate = rcgen::CertificateParams::new(names)
            .and_then(|params| params.self_signed(&pair))
            .map_err(|_| CertificateError::Name)?;
        Self::new(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key_der))
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let first = chain.first().ok_or(CertificateError::Chain)?;
        let pin = SpkiPin::of(first).map_err(|_| CertificateError::Chain)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 suites")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|_| CertificateError::Mismatch)?;
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { config: Arc::new(config), pin })
    }

    /// What a client pins to know this server.
    #[must_use]
    pub fn pin(&self) -> SpkiPin {
        self.pin
    }

    pub(crate) fn into_config(self) -> Arc<ServerConfig> {
        self.config
    }
}

/// Why a server certificate cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The chain holds no readable certificate.
    #[error("no readable certificate in the chain: give PEM, the server's certificate first")]
    Chain,
    /// The key is not one.
    #[error("no readable private key: give an unencrypted PKCS#8, SEC1 or PKCS#1 key")]
    Key,
    /// A name for a self-signed certificate is neither a DNS name nor an address.
    #[error("a certificate cannot be made for such a name")]
    Name,
    /// The key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// TLS settings for a dialled connection, `None` for plain TCP.
pub(crate) fn client_config(tls: Tls) -> Option<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites");
    let mut config = match tls {
        Tls::Plain => return None,
        Tls::WebPki => {
            let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Tls::Pin(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier::new(pin)))
            .with_no_client_auth(),
    };
    config.enable_early_data = false;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Some(Arc::new(config))
}

/// Suites in the order in which browsers offer them, from the library that is quickest on this processor.
fn provider() -> Arc<CryptoProvider> {
    let has_ring = ciphers::has_aes_for_avx2_at_most();
    let (aes_128, aes_256) = if has_ring {
        (ring_suites::TLS13_AES_128_GCM_SHA256, ring_suites::TLS13_AES_256_GCM_SHA384)
    } else {
        (aws_lc_suites::TLS13_AES_128_GCM_SHA256, aws_lc_suites::TLS13_AES_256_GCM_SHA384)
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![aes_128, aes_256, aws_lc_suites::TLS13_CHACHA20_POLY1305_SHA256],
        ..rustls::crypto::aws_lc_rs::default_provider()
    })
}

/// Accepts exactly the certificates whose public key has the pinned hash.
#[derive(Debug)]
struct PinVerifier {
    pin: SpkiPin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinVerifier {
    fn new(pin: SpkiPin) -> Self {
        Self { pin, algorithms: provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if SpkiPin::of(end_entity)? == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(RustlsCertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
