//! Connections, alike for every relay.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_websockets::{ClientBuilder, Config, Limits, WebSocketStream};

/// More than a batch of frames, so that each is written at once.
const BUFFER: usize = 256 * 1024;

/// A byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) type Stream = WebSocketStream<Box<dyn Io>>;

/// What carries payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Tcp,
    Tls,
    Udp,
}

impl From<&str> for Way {
    fn from(text: &str) -> Self {
        match text {
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            "udp" => Self::Udp,
            other => panic!("nothing is carried by {other}"),
        }
    }
}

/// Where a relay is, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    way: Way,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    pub(crate) fn new(address: &str, way: Way) -> Self {
        let address = address.parse().expect("an address");
        Self { address, way, tls: (way == Way::Tls).then(|| Arc::new(any_certificate())) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// A TCP connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).await.expect("the relay listens");
        tcp.set_nodelay(true).expect("it is connected");
        tcp
    }

    /// A WebSocket at a path; `protocol` is what the request names as its subprotocol.
    pub(crate) async fn open(&self, path: &str, protocol: Option<&'static str>) -> Stream {
        let tcp = self.connect().await;
        let io: Box<dyn Io> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let connector = TlsConnector::from(Arc::clone(config));
                let mut tls = connector.connect(name, tcp).await.expect("the relay speaks TLS");
                tls.get_mut().1.set_buffer_limit(Some(BUFFER));
                Box::new(tls)
            }
        };
        let uri = format!("ws://localhost{path}").parse().expect("a good path");
        let mut builder = ClientBuilder::from_uri(uri)
            .config(Config::default().frame_size(BUFFER).flush_threshold(BUFFER))
            .limits(Limits::default().max_payload_len(Some(BUFFER)));
        if let Some(protocol) = protocol {
            let value = http::HeaderValue::from_static(protocol);
            let name = http::header::SEC_WEBSOCKET_PROTOCOL;
            builder = builder.add_header(name, value).expect("the library does not set it");
        }
        builder.connect_on(io).await.expect("the relay takes WebSockets").0
    }
}

fn any_certificate() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth()
}

/// Takes every certificate: both ends are ours.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
