//! A line to the API that breaks again and again: each connection is cut once it has carried so many bytes of answers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, copy},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Ends with its value.
pub(crate) struct CutLine {
    url: String,
    broken: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl CutLine {
    pub(crate) async fn start(api: &str, carried: u64) -> Self {
        let api = api.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let broken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&broken);
        let task = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (api, count) = (api.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    if carry(client, &api, carried).await.is_ok_and(|bytes| bytes == carried) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { url, broken, task }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// How many connections were cut since this was asked last.
    pub(crate) fn take_broken(&self) -> usize {
        self.broken.swap(0, Ordering::Relaxed)
    }
}

impl Drop for CutLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries both ways until a side ends or the measure is full; says how many bytes of answers that were.
async fn carry(mut client: TcpStream, api: &str, carried: u64) -> std::io::Result<u64> {
    let mut server = TcpStream::connect(api).await?;
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut answers = from_server.take(carried);
    tokio::select! {
        bytes = copy(&mut answers, &mut to_client) => bytes,
        ended = copy(&mut from_client, &mut to_server) => ended.map(|_| 0),
    }
}
