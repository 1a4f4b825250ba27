//! Mutual TLS before gRPC, with an identity that can be exchanged while connections go on.
//!
//! tonic's own TLS takes its identity once. A certificate of some days would then end calls, or the agent, at each
//! renewal; here a new one counts for the next handshake.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ovenbird_kit::tls::Pem;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
    server::TlsStream,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Clients that are shaking hands at the same time; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;
/// A client that has not shaken hands after this long is let go.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Connections that wait for the server to take them.
const READY_MAX: usize = 16;
/// After a connection that could not be accepted, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An identity that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text is no PEM.
    #[error("{what} cannot be read as PEM")]
    Pem {
        /// The authority, the certificate or the key.
        what: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// An authority whose clients could not be told.
    #[error("the authority cannot be used")]
    Authority(#[from] VerifierBuilderError),
    /// Certificate and key do not belong together, or are of no known kind.
    #[error("certificate and key cannot be used together")]
    Identity(#[from] rustls::Error),
}

/// Shakes hands in the agent's name. Cheap to clone; all clones have the same identity.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Acceptor {
    /// With this identity at first.
    ///
    /// # Errors
    /// Says which part of it cannot be used.
    pub fn new(pem: &Pem) -> Result<Self, Error> {
        Ok(Self { config: Arc::new(RwLock::new(Arc::new(config(pem)?))) })
    }

    /// Exchanges the identity. Connections that are there go on.
    ///
    /// # Errors
    /// As [`Acceptor::new`]; the identity is what it was.
    pub fn exchange(&self, pem: &Pem) -> Result<(), Error> {
        let config = Arc::new(config(pem)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Accepts until `stop`, and hands on who has shaken hands.
    pub(super) fn incoming(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> (ReceiverStream<io::Result<TlsStream<TcpStream>>>, impl Future<Output = ()> + Send) {
        let (ready, streams) = mpsc::channel(READY_MAX);
        (ReceiverStream::new(streams), self.accept(listener, ready, stop))
    }

    async fn accept(
        self,
        listener: TcpListener,
        ready: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
        stop: CancellationToken,
    ) {
        let mut handshakes = JoinSet::new();
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = handshakes.join_next() => continue,
                accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => accepted,
            };
            let stream = match stream {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
            let ready = ready.clone();
            handshakes.spawn(async move {
                // A client that cannot, or does not in time, is its own affair, and hears of it by itself.
                let _ = stream.set_nodelay(true);
                let shaken = TlsAcceptor::from(config).accept(stream);
                match tokio::time::timeout(HANDSHAKE_TIME, shaken).await {
                    Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                    Ok(Err(error)) => tracing::debug!(%error, "a client did not shake hands"),
                    Err(_) => tracing::debug!("a client did not shake hands in time"),
                }
            });
        }
    }
}

fn config(pem: &Pem) -> Result<ServerConfig, Error> {
    let certificates = |text: &[u8], what| {
        CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| Error::Pem { what, source })
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&pem.ca, "the authority")?);
    let key = PrivateKeyDer::from_pem_slice(pem.key.expose())
        .map_err(|source| Error::Pem { what: "the key", source })?;
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&pem.cert, "the certificate")?, key)?;
    config.alpn_protocols.push(b"h2".to_vec());
    Ok(config)
}

#[cfg(test)]
mod tests {
    use ovenbird_kit::Secret;
    use ovenbird_testkit::Authority;

    use super::*;

    fn pem(authority: &Authority) -> Pem {
        let leaf = authority.server(&["host"]).unwrap();
        Pem {
            ca: authority.certificate().into(),
            cert: leaf.certificate.into(),
            key: Secret::new(leaf.key.into()),
        }
    }

    #[test]
    fn identity_that_cannot_be_used_is_refused_and_the_one_before_stays() {
        let authority = Authority::new().unwrap();
        let acceptor = Acceptor::new(&pem(&authority)).unwrap();
        let before = acceptor.config.read().unwrap().clone();
        let other = pem(&authority);
        for (bad, part) in [
            (Pem { key: other.key.clone(), ..pem(&authority) }, "certificate and key"),
            (Pem { key: Secret::new(b"none".to_vec()), ..pem(&authority) }, "the key"),
            (Pem { cert: Vec::new(), ..pem(&authority) }, "certificate and key"),
            (Pem { ca: Vec::new(), ..pem(&authority) }, "the authority"),
        ] {
            let error = acceptor.exchange(&bad).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(Arc::ptr_eq(&before, &acceptor.config.read().unwrap()));
        acceptor.exchange(&other).unwrap();
        assert!(!Arc::ptr_eq(&before, &acceptor.config.read().unwrap()));
    }
}
