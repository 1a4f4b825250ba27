//! A host agent that is a script of faults: guests that do not become ready, streams that break, commands
//! that never end. It has no sandbox in it; a command's script says what it is to do:
//!
//! `print N` writes N lines; `loud N` writes N lines and ends with 3; `exit N` ends with N; `hang` never ends; `break`
//! loses the connection once in the middle of its output; `pass N` is a healthcheck that passes at its N-th attempt;
//! `gate` writes and ends when the test says so, and has forgotten what was acknowledged; `twice` fails at the first
//! try and is a gate at the second; `poweroff` turns its machine off. A fence that was passed by a higher attempt
//! refuses the lower one, and a command that is known is not started again.

mod service;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use futures::{StreamExt as _, stream};
use ovenbird_hostagent::v1::{
    attach_exec_response::Event, host_agent_service_server::HostAgentServiceServer, *,
};
use ovenbird_kit::tls::Files;
use ovenbird_testkit::{Authority, Folder};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use self::service::Streamed;

/// The script, and what was asked.
#[derive(Clone, Default)]
pub(crate) struct Agent {
    pub(crate) seen: Arc<Mutex<Seen>>,
    alive: Arc<watch::Sender<usize>>,
    gate: Arc<watch::Sender<Gate>>,
    /// Templates are not written while it is true.
    pub(crate) writes_wait: Arc<watch::Sender<bool>>,
    /// No connection lives while it is true.
    cut: Arc<watch::Sender<bool>>,
    /// No more of an archive than its first message is taken while it is true.
    pub(crate) unpacks_wait: Arc<watch::Sender<bool>>,
}

/// Paths, each with its content.
type Entries = Vec<(String, Vec<u8>)>;

/// What `gate` has written, and how it ended.
#[derive(Debug, Clone, Default)]
struct Gate {
    output: Vec<u8>,
    exit_code: Option<i32>,
    /// Whoever listens hears no more, and nothing of an end.
    broken: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Creations that are still to fail.
    pub(crate) not_ready: u32,
    /// Creations that are still to be refused, as by an agent that is about to end.
    pub(crate) closing: u32,
    /// Sandboxes are made, and nobody is told.
    pub(crate) hang_creates: bool,
    /// Destructions that are still to be begun and never to end.
    pub(crate) hang_destroys: u32,
    /// Destructions that were begun.
    pub(crate) destroys: usize,
    /// Connections that were tried while none lived.
    pub(crate) knocks: usize,
    /// Destructions that are still to be refused, as while a sandbox is being saved.
    pub(crate) undestroyed: u32,
    /// Templates are never written to the end.
    pub(crate) hang_saves: bool,
    /// The sandbox is not running any more, as when its agent was killed while it was saved.
    pub(crate) asleep: bool,
    /// It stays so.
    pub(crate) state_is_lost: bool,
    /// Saves that were begun.
    pub(crate) saves: u32,
    pub(crate) created: Vec<String>,
    pub(crate) destroyed: Vec<String>,
    pub(crate) started: Vec<StartExecRequest>,
    pub(crate) attached: Vec<(String, u64)>,
    pub(crate) acked: Vec<(String, u64)>,
    pub(crate) written: Vec<(String, &'static str)>,
    /// What was unpacked: where, as whose, and each path with its content. Without the last one as long as it goes on.
    pub(crate) unpacked: Vec<(String, Unpack, Entries)>,
    /// Archives whose unpacking was begun.
    pub(crate) unpackings: usize,
    /// Calls of UnpackStream that are still to be refused, with this.
    pub(crate) unpack_refusals: Vec<Status>,
    /// Templates whose writing was begun.
    pub(crate) writing: HashSet<String>,
    pub(crate) deleted: Vec<String>,
    pub(crate) fences: HashSet<(String, u32)>,
    pub(crate) refused: Vec<&'static str>,
    /// The sandbox and all that it knew went away.
    pub(crate) gone: bool,
    away: bool,
    broken: HashSet<String>,
}

impl Seen {
    /// One that was made again after its destruction is left, too.
    fn left(&self) -> Vec<String> {
        let times = |all: &[String], id: &String| all.iter().filter(|known| *known == id).count();
        let left = |id: &&String| times(&self.created, id) > times(&self.destroyed, id);
        self.created.iter().filter(left).cloned().collect()
    }
}

impl Agent {
    /// `gate` writes a line.
    pub(crate) fn gate_writes(&self, line: &str) {
        self.gate.send_modify(|gate| gate.output.extend(format!("{line}\n").into_bytes()));
    }

    /// The host answers nobody any more.
    pub(crate) fn goes_away(&self) {
        self.seen.lock().unwrap().away = true;
        self.gate.send_modify(|gate| gate.broken = true);
    }

    /// Whoever follows `gate` hears no more, and the same when it attaches again; until it is mended.
    pub(crate) fn gate_breaks(&self, broken: bool) {
        self.gate.send_modify(|gate| gate.broken = broken);
    }

    /// As while the host agent is started again: connections break, and no new one is taken.
    pub(crate) fn cut_off(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// `gate` ends.
    pub(crate) fn gate_ends(&self, exit_code: i32) {
        self.gate.send_modify(|gate| gate.exit_code = Some(exit_code));
    }

    /// Serves with mutual TLS; answers its address and a client's files.
    pub(crate) async fn start(&self, folder: &Folder) -> (String, Files, JoinHandle<()>) {
        let authority = Authority::new().unwrap();
        let server = authority.server(&["agent.test"]).unwrap();
        let client = authority.client("runner").unwrap();
        let files = authority.write(&client, &folder.join("tls"), "runner").unwrap();
        let files = Files { ca: files.ca, cert: files.cert, key: files.key };
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&server.certificate, &server.key))
            .client_ca_root(Certificate::from_pem(authority.certificate()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = HostAgentServiceServer::new(self.clone());
        let (cut, seen) = (Arc::clone(&self.cut), Arc::clone(&self.seen));
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = inner.local_addr().unwrap();
            tasks.spawn(async move {
                let serving = Server::builder().tls_config(tls).unwrap().add_service(service);
                serving.serve_with_incoming(TcpListenerStream::new(inner)).await.unwrap();
            });
            // Its connections would outlive the server: these break with this task.
            loop {
                let (mut outside, _) = listener.accept().await.unwrap();
                let mut cut = cut.subscribe();
                if *cut.borrow_and_update() {
                    seen.lock().unwrap().knocks += 1;
                    continue;
                }
                tasks.spawn(async move {
                    let mut inside = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut outside, &mut inside) => {}
                        _ = cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        (address, files, task)
    }

    /// Sandboxes that were made and not destroyed.
    pub(crate) fn left(&self) -> Vec<String> {
        self.seen.lock().unwrap().left()
    }

    /// Waits until `count` commands were started.
    pub(crate) async fn until_started(&self, count: usize) {
        let mut alive = self.alive.subscribe();
        let started = alive.wait_for(|started| *started >= count);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), started).await;
        waited.expect("commands are started").unwrap();
    }

    fn fence(&self, fence: Option<Fence>, call: &'static str) -> Result<(), Status> {
        let fence = fence.expect("every call is fenced");
        let mut seen = self.seen.lock().unwrap();
        let higher = |(build, attempt): &&(String, u32)| {
            *build == fence.build_id && *attempt > fence.attempt
        };
        if seen.fences.iter().find(higher).is_some() {
            seen.refused.push(call);
            return Err(Status::failed_precondition("attempt 2 has called since"));
        }
        seen.fences.insert((fence.build_id, fence.attempt));
        Ok(())
    }

    /// Writes a template to the end, also when nobody waits for it, and once.
    async fn write(
        &self,
        fence: Option<Fence>,
        name: &str,
        sandbox_id: String,
        kind: &'static str,
    ) -> Result<(), Status> {
        self.fence(fence, kind)?;
        self.here()?;
        let hangs = {
            let mut seen = self.seen.lock().unwrap();
            if seen.asleep {
                return Err(Status::failed_precondition("sandbox sbx is paused, not running"));
            }
            seen.saves += 1;
            seen.hang_saves
        };
        if hangs {
            return std::future::pending().await;
        }
        {
            let mut seen = self.seen.lock().unwrap();
            if seen.written.iter().any(|written| written.0 == name)
                || !seen.writing.insert(name.to_owned())
            {
                return Err(Status::already_exists("a template of this name exists already"));
            }
        }
        let (agent, name) = (self.clone(), name.to_owned());
        let writing = tokio::spawn(async move {
            let _ = agent.writes_wait.subscribe().wait_for(|wait| !wait).await;
            let mut seen = agent.seen.lock().unwrap();
            seen.written.push((name, kind));
            seen.destroyed.push(sandbox_id);
        });
        writing.await.map_err(|_| Status::internal("broken"))
    }

    fn here(&self) -> Result<(), Status> {
        let seen = self.seen.lock().unwrap();
        if seen.away {
            return Err(Status::unavailable("the host is away"));
        }
        match seen.gone {
            true => Err(Status::not_found("there is no such sandbox on this host")),
            false => Ok(()),
        }
    }

    /// What the gate writes from `offset` on, to its end.
    fn through_gate(&self, offset: u64) -> Streamed<AttachExecResponse> {
        let state = (self.gate.subscribe(), offset, false);
        let events = stream::unfold(state, |(mut gate, offset, over)| async move {
            if over {
                return None;
            }
            let from = usize::try_from(offset).unwrap();
            let news =
                |gate: &Gate| gate.output.len() > from || gate.exit_code.is_some() || gate.broken;
            let now = gate.wait_for(news).await.ok()?.clone();
            if now.broken {
                return None;
            }
            let end_offset = now.output.len() as u64;
            let (event, over) = match now.exit_code {
                Some(exit_code) if now.output.len() <= from => {
                    let end = ExecEnd { exit_code, end_offset, ..ExecEnd::default() };
                    (Event::End(end), true)
                }
                _ => {
                    let (stream, data) =
                        (ExecOutputStream::Stdout.into(), now.output[from..].to_vec());
                    (Event::Output(ExecOutput { offset, stream, data }), false)
                }
            };
            let answer = Ok(AttachExecResponse { event: Some(event) });
            Some((answer, (gate, end_offset, over)))
        });
        events.boxed()
    }

    /// Up to where a command's output was acknowledged.
    pub(crate) fn acked(&self, exec_id: &str) -> u64 {
        let seen = self.seen.lock().unwrap();
        let of = seen.acked.iter().filter(|(acked, _)| acked == exec_id);
        of.map(|(_, upto)| *upto).max().unwrap_or(0)
    }

    fn script(&self, exec_id: &str) -> String {
        let seen = self.seen.lock().unwrap();
        let started = seen.started.iter().find(|started| started.exec_id == exec_id);
        started.map(|started| started.args[1].clone()).unwrap_or_default()
    }
}
