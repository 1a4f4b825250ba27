//! The world outside of one agent's host: a network namespace to which the packets of the agent's sandboxes are
//! routed, and nobody else's.
//!
//! ```text
//!  sandboxes ─ 10.x.y.0/20 ─► host ─ rule: from there, table t ─► ovbt-n ──veth── out0 in ovbt-n-world
//!                                                          100.127.p.1/30         100.127.p.2, and all of NETS
//! ```
//!
//! Routes by the sender leave the machine's own as they are: its metadata service answers everybody else, and several
//! worlds stand beside each other. All of it is gone when the value is dropped, also when the test fails.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use ovenbird_host::net::Namespace;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::support::{Host, PATIENCE};

pub(crate) const PUBLIC: &str = "203.0.113.7";
pub(crate) const METADATA: &str = "169.254.169.254";
/// A name server in a private range.
pub(crate) const RESOLVER: &str = "10.99.0.53";
/// One address of each private range.
pub(crate) const PRIVATE: [&str; 6] =
    ["10.99.0.7", "100.64.0.7", "172.20.0.7", "192.0.0.7", "192.168.99.7", "198.18.0.7"];
/// Where the world is.
const NETS: [&str; 9] = [
    "203.0.113.0/24",
    "198.51.100.0/25",
    "169.254.169.254/32",
    "10.99.0.0/24",
    "100.64.0.0/24",
    "172.20.0.0/24",
    "192.0.0.0/24",
    "192.168.99.0/24",
    "198.18.0.0/24",
];
const TCP: [u16; 6] = [22, 53, 80, 443, 5432, 8080];
const UDP: [(&str, u16); 6] = [
    (PUBLIC, 53),
    (PUBLIC, 123),
    (PUBLIC, 443),
    ("198.51.100.9", 123),
    (RESOLVER, 53),
    (METADATA, 53),
];

/// See the module. Every server answers the line `where` with the address and port that were asked, `send N` with N
/// bytes, and `take` with the number of bytes that follow it.
pub(crate) struct World {
    names: Names,
    heard: Arc<Mutex<Vec<String>>>,
    _servers: JoinSet<()>,
}

/// What the kernel has of a world.
#[derive(Clone, Copy)]
struct Names {
    number: u16,
}

impl Names {
    fn namespace(self) -> String {
        format!("ovbt-{}-world", self.number)
    }

    fn link(self) -> String {
        format!("ovbt-{}", self.number)
    }

    /// Of its table of routes and of the rule that leads there: far from what other programs use.
    fn table(self) -> u16 {
        28_000 + self.number
    }

    fn end(self, last: u8) -> String {
        format!("100.127.{}.{last}", self.number % 256)
    }

    /// Of the host, as the internet would see it.
    fn host(self) -> Ipv4Addr {
        let last = 160 + self.number % 80;
        Ipv4Addr::new(198, 51, 100, u8::try_from(last).unwrap())
    }

    fn ip6(self, last: u8) -> String {
        format!("2001:db8:{:x}::{last}", self.number)
    }

    fn set_up(self, subnet: &str) {
        let (namespace, link, table) = (self.namespace(), self.link(), self.table());
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add {link} type veth peer name out0 netns {namespace}"));
        ip(&format!("addr add {}/30 dev {link}", self.end(1)));
        ip(&format!("addr add {}/32 dev {link}", self.host()));
        ip(&format!("link set {link} up"));
        let inside = |arguments: &str| ip(&format!("-n {namespace} {arguments}"));
        inside("link set lo up");
        inside(&format!("addr add {}/30 dev out0", self.end(2)));
        inside("link set out0 up");
        inside(&format!("route add default via {}", self.end(1)));
        for net in NETS {
            inside(&format!("route add local {net} dev lo table local"));
            ip(&format!("route add {net} via {} table {table}", self.end(2)));
        }
        ip(&format!("rule add pref {table} from {subnet} lookup {table}"));
        if has_ip6() {
            ip(&format!("addr add {}/64 dev {link} nodad", self.ip6(1)));
            inside(&format!("addr add {}/64 dev out0 nodad", self.ip6(7)));
        }
    }

    /// Removes whatever there is, also that of a test that was killed.
    fn remove(self) {
        let table = self.table();
        for arguments in [
            format!("rule del pref {table} lookup {table}"),
            format!("route flush table {table}"),
            format!("link del {}", self.link()),
            format!("netns del {}", self.namespace()),
        ] {
            // Most of it is not there, most of the time.
            let _ = Command::new("ip").args(arguments.split(' ')).output();
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

pub(crate) fn has_ip6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

impl Drop for World {
    fn drop(&mut self) {
        self.names.remove();
    }
}

impl World {
    /// Puts a world around the host of an agent.
    pub(crate) fn around(host: &Host) -> Self {
        let names = Names { number: host.number() };
        names.remove();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        // From here on its end is removed whatever happens.
        let mut world = Self { names, heard, _servers: JoinSet::new() };
        names.set_up(&host.subnet());
        world.serve();
        world
    }

    pub(crate) fn namespace(&self) -> Namespace {
        Namespace::at(Path::new("/run/netns").join(self.names.namespace()))
    }

    /// An address of the host that is no private one.
    pub(crate) fn host_address(&self) -> Ipv4Addr {
        self.names.host()
    }

    /// A server of the world that has only IPv6.
    pub(crate) fn ip6(&self) -> SocketAddr {
        SocketAddr::new(self.names.ip6(7).parse().unwrap(), 80)
    }

    /// What was sent by UDP until now.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// What a server of the world says to the host itself, past all routes and rules for sandboxes.
    pub(crate) async fn says(&self, address: SocketAddrV4) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind_device(Some(self.names.link().as_bytes())).unwrap();
        let connected = tokio::time::timeout(PATIENCE, socket.connect(address.into())).await;
        ask(connected.unwrap().unwrap_or_else(|error| panic!("{address}: {error}"))).await
    }

    fn serve(&mut self) {
        let bound = self.namespace().enter(|| -> io::Result<_> {
            let mut tcp = Vec::new();
            for port in TCP {
                tcp.push(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?);
            }
            if has_ip6() {
                tcp.push(TcpListener::bind(self.ip6())?);
            }
            let udp: io::Result<Vec<_>> = UDP.into_iter().map(UdpSocket::bind).collect();
            Ok((tcp, udp?))
        });
        let (tcp, udp) = bound.unwrap();
        for listener in tcp {
            listener.set_nonblocking(true).unwrap();
            self._servers.spawn(accept(tokio::net::TcpListener::from_std(listener).unwrap()));
        }
        for socket in udp {
            socket.set_nonblocking(true).unwrap();
            let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
            self._servers.spawn(hear(socket, self.heard.clone()));
        }
    }
}

/// Asks where one has come to.
pub(crate) async fn ask(mut stream: TcpStream) -> String {
    let mut said = String::new();
    let asked = async {
        stream.write_all(b"where\n").await?;
        stream.read_to_string(&mut said).await
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap();
    said.trim().to_owned()
}

async fn accept(listener: tokio::net::TcpListener) {
    let mut served = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A client that goes away in the middle is no fault of this server.
        served.spawn(async move { drop(serve(stream).await) });
    }
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let address = stream.local_addr()?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
        ("send", bytes) => {
            let bytes = vec![b'x'; bytes.parse().map_err(io::Error::other)?];
            stream.write_all(&bytes).await?;
        }
        ("take", bytes) => {
            let mut taken = vec![0; bytes.parse().map_err(io::Error::other)?];
            stream.read_exact(&mut taken).await?;
            stream.write_all(format!("{bytes}\n").as_bytes()).await?;
        }
        _ => stream.write_all(format!("{address}\n").as_bytes()).await?,
    }
    stream.shutdown().await
}

async fn hear(socket: tokio::net::UdpSocket, heard: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 512];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        heard.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        let address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let _ = socket.send_to(address.as_bytes(), from).await;
    }
}

/// The longest time that is given to what should never come.
pub(crate) const SHORT: Duration = Duration::from_secs(2);
