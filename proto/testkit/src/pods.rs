//! As much of a Kubernetes API server as a pod needs that annotates itself: one call, over https, with a token.
//!
//! It stands in for the real one where there is no cluster. It knows the pods that it was told of, takes a merge patch
//! of their annotations, and refuses what the Role of such a pod does not allow.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{Authority, Folder};

const NAME: &str = "kubernetes.default.svc";
/// The namespace of its pods.
pub const NAMESPACE: &str = "ovenbird";
/// Largest body.
const BODY_MAX: usize = 64 * 1024;

type Annotations = BTreeMap<String, String>;

#[derive(Debug)]
struct State {
    token: Mutex<String>,
    pods: Mutex<BTreeMap<String, Annotations>>,
    refuses: AtomicBool,
}

/// A running endpoint; it ends when dropped.
#[derive(Debug)]
pub struct Pods {
    state: Arc<State>,
    serving: JoinHandle<()>,
    folder: Folder,
    url: String,
}

impl Pods {
    /// Listens on a free port, with a certificate and a token of its own.
    ///
    /// # Errors
    /// When it cannot listen, or a file cannot be written.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = Folder::new("pods")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("https://{}", listener.local_addr()?);
        let authority = Authority::new()?;
        let leaf = authority.server(&["127.0.0.1", NAME])?;
        authority.write(&leaf, folder.path(), "server")?;
        let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let state = Arc::new(State {
            token: Mutex::default(),
            pods: Mutex::default(),
            refuses: AtomicBool::new(false),
        });
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = tokio::spawn(serve(listener, acceptor, Arc::clone(&state)));
        let pods = Self { state, serving, folder, url };
        pods.replace_token("the first token")?;
        Ok(pods)
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file of its authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The file of the token that it takes.
    pub fn token(&self) -> PathBuf {
        self.folder.join("token")
    }

    /// Takes another token from now on, and puts it into the file, as Kubernetes does before one expires.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace_token(&self, token: &str) -> anyhow::Result<()> {
        let mut taken = lock(&self.state.token);
        std::fs::write(self.token(), format!("{token}\n"))?;
        token.clone_into(&mut taken);
        Ok(())
    }

    /// There is a pod of this name, without annotations.
    pub fn create(&self, name: &str) {
        lock(&self.state.pods).insert(name.to_owned(), Annotations::new());
    }

    /// There is none any more.
    pub fn delete(&self, name: &str) {
        lock(&self.state.pods).remove(name);
    }

    /// Refuses everything, or no longer, as a server does whose Role is missing.
    pub fn refuse(&self, refuse: bool) {
        self.state.refuses.store(refuse, Ordering::SeqCst);
    }

    /// An annotation of a pod.
    pub fn annotation(&self, pod: &str, key: &str) -> Option<String> {
        lock(&self.state.pods).get(pod)?.get(key).cloned()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(socket, acceptor.clone(), Arc::clone(&state)));
    }
}

/// What breaks off is the client's business.
async fn connection(socket: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    let Ok(socket) = acceptor.accept(socket).await else { return };
    let answer = service_fn(move |request| answer(request, Arc::clone(&state)));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (status, text) = match patched(request, &state).await {
        Ok(pod) => (StatusCode::OK, pod.to_string()),
        Err(status) => (status, format!("{{\"kind\":\"Status\",\"code\":{}}}", status.as_u16())),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    Ok(response)
}

async fn patched(request: Request<Incoming>, state: &State) -> Result<Value, StatusCode> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let expected = format!("Bearer {}", lock(&state.token));
    if header(AUTHORIZATION) != Some(&expected) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let path = request.uri().path().to_owned();
    let name = path.strip_prefix(&format!("/api/v1/namespaces/{NAMESPACE}/pods/"));
    let name = name.filter(|name| !name.contains('/')).ok_or(StatusCode::FORBIDDEN)?;
    if request.method() != Method::PATCH || state.refuses.load(Ordering::SeqCst) {
        return Err(StatusCode::FORBIDDEN);
    }
    if header(CONTENT_TYPE) != Some("application/merge-patch+json") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
    let patch: Value = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let changed = patch["metadata"]["annotations"].as_object().ok_or(StatusCode::FORBIDDEN)?;
    let mut pods = lock(&state.pods);
    let annotations = pods.get_mut(name).ok_or(StatusCode::NOT_FOUND)?;
    for (key, value) in changed {
        let value = value.as_str().ok_or(StatusCode::BAD_REQUEST)?;
        annotations.insert(key.clone(), value.to_owned());
    }
    Ok(serde_json::json!({ "metadata": { "name": name, "annotations": annotations } }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
