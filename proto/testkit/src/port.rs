//! Loopback TCP ports, and other numbers, that are ours for as long as we want them.
//!
//! Ports come from below the kernel's range for outgoing connections, so that no client takes one while its
//! server restarts. Between our own processes an abstract socket named after the number is the reservation:
//! the kernel frees it with its owner, and no file stays behind.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use rand::Rng;

const PORTS: Range<u16> = 20_000..32_000;
const ATTEMPTS_MAX: usize = 200;

/// A number that no other process of ours on this machine has at the same time.
#[derive(Debug)]
pub struct Reserved {
    number: u16,
    _reservation: UnixListener,
}

impl Reserved {
    /// Reserves a random number of `range` among those of `kind` that also pass `usable`.
    ///
    /// # Errors
    /// When 200 of them were all taken.
    pub fn one_of(kind: &str, range: Range<u16>, usable: impl Fn(u16) -> bool) -> io::Result<Self> {
        let mut random = rand::rng();
        for _ in 0..ATTEMPTS_MAX {
            let number = random.random_range(range.clone());
            let name = SocketAddr::from_abstract_name(format!("ovenbird-{kind}-{number}"))?;
            let Ok(reservation) = UnixListener::bind_addr(&name) else { continue };
            if usable(number) {
                return Ok(Self { number, _reservation: reservation });
            }
        }
        let message = format!("no free {kind} among {ATTEMPTS_MAX} tried");
        Err(io::Error::new(io::ErrorKind::AddrInUse, message))
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A reserved loopback port; the reservation ends with the handle.
#[derive(Debug)]
pub struct Port(Reserved);

impl Port {
    /// Reserves a port that nobody listens on.
    ///
    /// # Errors
    /// When 200 random ports were all taken.
    pub fn reserve() -> io::Result<Self> {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        Reserved::one_of("port", PORTS, free).map(Self)
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.0.number()
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number().fmt(f)
    }
}
