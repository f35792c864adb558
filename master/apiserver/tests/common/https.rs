//! An HTTPS server on loopback, as webhooks and aggregated API servers are.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub struct Https {
    pub port: u16,
    /// The CA of its certificate, as a `caBundle`.
    pub bundle: String,
    /// How many connections there were so far.
    pub handshakes: Arc<AtomicUsize>,
}

impl Https {
    /// Starts one whose certificate is for `name`.
    pub async fn start<A>(name: &str, answer: A) -> Self
    where
        A: Fn(&Parts, &Bytes) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    {
        let (config, bundle) = certified(name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let handshakes = Arc::<AtomicUsize>::default();
        tokio::spawn(serve(listener, (TlsAcceptor::from(Arc::new(config)), Arc::clone(&handshakes)), answer));
        Https { port, bundle, handshakes }
    }
}

/// TLS with a certificate for `name`, and the CA of it as a `caBundle`.
pub fn certified(name: &str) -> (rustls::ServerConfig, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (config, STANDARD.encode(ca_certificate.pem()))
}

async fn serve<A>(listener: TcpListener, (acceptor, handshakes): (TlsAcceptor, Arc<AtomicUsize>), answer: A)
where
    A: Fn(&Parts, &Bytes) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, answer, handshakes) = (acceptor.clone(), answer.clone(), Arc::clone(&handshakes));
        tokio::spawn(async move {
            // A client that does not believe the certificate goes away.
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            handshakes.fetch_add(1, Ordering::SeqCst);
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    Ok::<_, Infallible>(answer(&head, &body))
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}
