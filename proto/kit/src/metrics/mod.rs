//! Metrics for Prometheus: `GET /metrics` in its text format, and `GET /healthz` for whoever starts the process.
//!
//! What is measured is the process's own business: it registers its metrics and hands the registry over. There are
//! neither certificates nor passwords here, so the address has to be one that only those can reach who may read it.
//! Connections, their headers and their time are bounded; each serves one request.

mod process;

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use process::Process;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 8;
/// For one connection, from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a connection that could not be taken, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// The format that the library writes.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `stop` is cancelled, and the requests that are open then.
pub async fn serve(listener: TcpListener, registry: Registry, stop: CancellationToken) {
    let registry = Arc::new(registry);
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    let accept = async {
        loop {
            let place = free.clone().acquire_owned().await.expect("it is never closed");
            let connection = match listener.accept().await {
                Ok((connection, _)) => connection,
                Err(error) => {
                    tracing::debug!(%error, "a connection for metrics could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (registry, stop) = (registry.clone(), stop.clone());
            // Ends after its one request, or its time.
            tasks.spawn(async move {
                let _place = place;
                let _ = timeout(PATIENCE, one(connection, registry, stop)).await;
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop.cancelled() => {}
    }
    tasks.close();
    tasks.wait().await;
}

async fn one(connection: TcpStream, registry: Arc<Registry>, stop: CancellationToken) {
    let answer = service_fn(move |request: Request<Incoming>| answer(request, registry.clone()));
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .keep_alive(false)
            .serve_connection(TokioIo::new(connection), answer)
    );
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = stop.cancelled() => {
            // At once, unless it is being answered.
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a request for metrics broke off");
    }
}

async fn answer(
    request: Request<Incoming>,
    registry: Arc<Registry>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz") {
        return Ok(plain(StatusCode::NOT_FOUND, "there are /metrics and /healthz here\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        refused.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("it is a header's value"));
        return Ok(refused);
    }
    if path == "/healthz" {
        return Ok(plain(StatusCode::OK, "ok\n"));
    }
    // Collectors may look at files.
    let written = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        text::encode(&mut text, &registry).map(|()| text)
    });
    Ok(match written.await {
        Ok(Ok(text)) => {
            let mut response = Response::new(Full::from(text));
            let format = FORMAT.parse().expect("it is a header's value");
            response.headers_mut().insert(CONTENT_TYPE, format);
            response
        }
        _ => {
            tracing::error!("metrics could not be written");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written\n")
        }
    })
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_and_health_are_served_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("things", "What is counted", counter.clone());
        registry.register_collector(Box::new(Process));
        counter.inc_by(7);
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, registry, stop.clone()));
        let get = |path| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let metrics = ask(address, &get("/metrics")).await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(metrics.contains(FORMAT) && metrics.contains("\nthings_total 7\n"), "{metrics}");
        for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes "] {
            let value = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            assert!(value.parse::<f64>().unwrap() > 0.0, "{metrics}");
        }
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(ask(address, &get("/healthz")).await.ends_with("\r\n\r\nok\n"));
        assert!(ask(address, &get("/")).await.starts_with("HTTP/1.1 404 "));
        let post = "POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        assert!(ask(address, post).await.starts_with("HTTP/1.1 405 "));
        // Somebody who says nothing holds nobody up, and not the end either.
        let _silent = TcpStream::connect(address).await.unwrap();
        assert!(ask(address, &get("/healthz")).await.contains("200 OK"));
        stop.cancel();
        timeout(PATIENCE * 3, served).await.unwrap().unwrap();
    }
}
