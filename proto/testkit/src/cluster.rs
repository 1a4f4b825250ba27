//! Private NATS servers that are one cluster, as in production.

use std::{path::Path, sync::Arc};

use futures::future::{join_all, try_join_all};

use crate::{
    Nats, Port,
    nats::{Member, Options},
};

/// A running cluster; of one server, it is that server.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Nats>,
}

impl Cluster {
    /// Starts `size` servers, `nats-1` to `nats-<size>`, with their stores in folders of these names in `dir`, and waits
    /// until JetStream is ready on all of them. A single one has its store in `dir/nats`.
    ///
    /// # Errors
    /// When a server is not ready in time; the message ends with its log.
    pub async fn start(dir: &Path, size: usize, options: Options) -> anyhow::Result<Self> {
        if size <= 1 {
            return Ok(Self { servers: vec![Nats::start_with(&dir.join("nats"), options).await?] });
        }
        let ports = (0..size).map(|_| Ok(Arc::new(Port::reserve()?)));
        let ports = ports.collect::<anyhow::Result<Vec<_>>>()?;
        let routes: Vec<u16> = ports.iter().map(|port| port.number()).collect();
        // At the same time: none is ready without a majority.
        let starts = ports.into_iter().zip(1..).map(|(port, number)| {
            let name = format!("nats-{number}");
            let (folder, routes) = (dir.join(&name), routes.clone());
            let options =
                Options { member: Some(Member { name, port, routes }), ..options.clone() };
            async move { Nats::start_with(&folder, options).await }
        });
        Ok(Self { servers: try_join_all(starts).await? })
    }

    /// The URLs of all servers, with commas between them.
    pub fn url(&self) -> String {
        self.servers.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// One server's URL, for whoever needs no other.
    pub fn first(&self) -> &Nats {
        &self.servers[0]
    }

    /// The servers.
    pub fn servers(&mut self) -> &mut [Nats] {
        &mut self.servers
    }

    /// The server of this name.
    pub fn server(&mut self, name: &str) -> Option<&mut Nats> {
        self.servers.iter_mut().find(|server| server.name() == Some(name))
    }

    /// Ends all in order.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let stops = self.servers.iter_mut().map(Nats::stop);
        join_all(stops).await.into_iter().collect()
    }

    /// Kills all.
    pub fn kill9(&mut self) {
        self.servers.iter_mut().for_each(Nats::kill9);
    }

    /// Starts again those that have ended, on the same ports and stores.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let ended = self
            .servers
            .iter_mut()
            .filter_map(|server| server.process().ended().is_some().then(|| server.restart()));
        try_join_all(ended).await.map(drop)
    }
}
