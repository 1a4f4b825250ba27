//! Loopback TCP ports that are ours for as long as we want them.
//!
//! Ports come from below the kernel's range for outgoing connections, so that no client takes one while its
//! server restarts. Between our own processes an abstract socket named after the port is the reservation: the
//! kernel frees it with its owner, and no file stays behind.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use rand::Rng;

const RANGE: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS_MAX: usize = 200;

/// A reserved loopback port; the reservation ends with the handle.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UnixListener,
}

impl Port {
    /// Reserves a port that nobody listens on.
    ///
    /// # Errors
    /// When 200 random ports were all taken.
    pub fn reserve() -> io::Result<Self> {
        let mut random = rand::rng();
        for _ in 0..ATTEMPTS_MAX {
            let number = random.random_range(RANGE);
            let name = SocketAddr::from_abstract_name(format!("ovenbird-port-{number}"))?;
            let Ok(reservation) = UnixListener::bind_addr(&name) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _reservation: reservation });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free loopback port among 200 tried"))
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number.fmt(f)
    }
}
