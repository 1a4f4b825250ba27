//! Talks netlink: one request and its acknowledgement, or several that hold together or not at all.
//!
//! The messages themselves are encoded by `netlink_bindings`; what each is for is in `links` and `nft`. The kernel
//! answers while it is asked, so all of this blocks for microseconds; a bound is set all the same.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use netlink_bindings::{
    builtin::{NlmsgerrAttrs, Nlmsghdr},
    consts::{NLM_F_ACK, NLM_F_REQUEST},
    traits::{NetlinkRequest, Protocol},
};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};

/// For an answer that the kernel gives at once.
const PATIENCE_SECONDS: i64 = 10;
/// As the kernel recommends; an answer that says more is cut.
const ANSWER_MAX: usize = 16 * 1024;
/// Of an acknowledgement: its number, and the header of what it acknowledges.
const ACK_LEN: usize = 4 + Nlmsghdr::len();

/// The kernel refused a request.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}{hint}")]
pub struct Error {
    action: &'static str,
    hint: String,
    #[source]
    source: io::Error,
}

impl Error {
    pub(super) fn new(action: &'static str, source: io::Error) -> Self {
        Self { action, hint: String::new(), source }
    }

    /// Whether what was to be removed or looked at is not there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
    }
}

/// Which part of the kernel is spoken to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    /// Links, addresses, routes, queues.
    Route,
    /// nf_tables.
    Netfilter,
}

/// A socket of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the calling thread's namespace.
    pub(super) fn open(family: Family) -> Result<Self, Error> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
            explain_errors(&socket)?;
            setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE_SECONDS, 0))?;
            Ok(socket)
        };
        let socket = open()
            .map_err(|error: nix::Error| Error::new("open a netlink socket", error.into()))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes one request and waits until it is done. `action` completes "cannot …".
    pub(super) fn request(
        &mut self,
        action: &'static str,
        request: &impl NetlinkRequest,
    ) -> Result<(), Error> {
        let mut messages = Messages::default();
        messages.push(action, request);
        self.send(&messages)
    }

    /// Makes several requests at once. The last one is acknowledged, and each that fails.
    pub(super) fn send(&mut self, messages: &Messages) -> Result<(), Error> {
        let Some(acknowledged) = messages.acknowledged else { return Ok(()) };
        let first = self.sequence.wrapping_add(1);
        self.sequence = first.wrapping_add(u32::try_from(messages.list.len()).unwrap_or(u32::MAX));
        let bytes = messages.frame(first);
        let action = messages.list[acknowledged].action;
        let failed = |error: nix::Error| Error::new(action, error.into());
        let sent = send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(failed)?;
        if sent != bytes.len() {
            return Err(Error::new(action, io::ErrorKind::WriteZero.into()));
        }
        let mut buffer = vec![0; ANSWER_MAX];
        loop {
            let read = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(read) => read,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(failed(error)),
            };
            for answer in Answers(&buffer[..read]) {
                // Of an earlier request that failed before its end.
                let Some(index) = answer.place_behind(first, messages.list.len()) else { continue };
                if answer.errno != 0 {
                    let source = io::Error::from_raw_os_error(answer.errno);
                    let hint = answer.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                    return Err(Error { action: messages.list[index].action, hint, source });
                }
                if index == acknowledged {
                    return Ok(());
                }
            }
        }
    }
}

/// Has errors come with a sentence of the kernel's, for which nix has no option.
fn explain_errors(socket: &OwnedFd) -> nix::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    #[allow(unsafe_code)]
    // SAFETY: the descriptor is open, and the option is read from a number of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            (&raw const on).cast(),
            length,
        )
    };
    nix::Error::result(result).map(drop)
}

/// Requests on their way to the kernel in one piece.
#[derive(Debug, Default)]
pub(super) struct Messages {
    list: Vec<Message>,
    acknowledged: Option<usize>,
}

#[derive(Debug)]
struct Message {
    action: &'static str,
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Messages {
    /// Adds a request, which is acknowledged unless another one follows.
    pub(super) fn push(&mut self, action: &'static str, request: &impl NetlinkRequest) {
        self.acknowledged = Some(self.list.len());
        self.push_silent(action, request);
    }

    /// Adds a request that is never acknowledged: the brackets of a transaction.
    pub(super) fn push_silent(&mut self, action: &'static str, request: &impl NetlinkRequest) {
        let Protocol::Raw { request_type, .. } = request.protocol() else {
            unreachable!("no generic netlink is spoken here");
        };
        self.list.push(Message {
            action,
            kind: request_type,
            flags: request.flags(),
            payload: request.payload().to_vec(),
        });
    }

    fn frame(&self, first: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, message) in self.list.iter().enumerate() {
            let length = Nlmsghdr::len() + message.payload.len();
            let ack = if Some(index) == self.acknowledged { NLM_F_ACK } else { 0 };
            let header = Nlmsghdr {
                len: u32::try_from(length).unwrap_or(u32::MAX),
                r#type: message.kind,
                flags: message.flags | short(NLM_F_REQUEST) | short(ack),
                seq: first.wrapping_add(u32::try_from(index).unwrap_or(u32::MAX)),
                pid: 0,
            };
            bytes.extend_from_slice(header.as_slice());
            bytes.extend_from_slice(&message.payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

fn short(flags: impl TryInto<u16>) -> u16 {
    flags.try_into().unwrap_or_default()
}

/// An acknowledgement or an error.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    sequence: u32,
    errno: i32,
    hint: Option<String>,
}

impl Answer {
    fn place_behind(&self, first: u32, count: usize) -> Option<usize> {
        let place = usize::try_from(self.sequence.wrapping_sub(first)).ok()?;
        (place < count).then_some(place)
    }

    fn read(message: &[u8], header: &Nlmsghdr) -> Option<Self> {
        let body = message.get(Nlmsghdr::len()..)?;
        let errno = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?).checked_neg()?;
        let mut attributes = body.get(ACK_LEN..).unwrap_or_default();
        // An error repeats the whole request first, unless it is told not to.
        if header.flags & short(libc::NLM_F_CAPPED) == 0 && errno != 0 {
            let request = Nlmsghdr::new_from_slice(body.get(4..ACK_LEN)?)?;
            let length = usize::try_from(request.len).ok()?.next_multiple_of(4);
            attributes = body.get(4 + length..).unwrap_or_default();
        }
        let has_attributes = header.flags & short(libc::NLM_F_ACK_TLVS) != 0;
        let hint = has_attributes
            .then(|| NlmsgerrAttrs::new(attributes).get_msg().ok())
            .flatten()
            .map(|hint| hint.to_string_lossy().into_owned());
        Some(Self { sequence: header.seq, errno, hint })
    }
}

/// The acknowledgements and errors of one datagram; data is passed over.
struct Answers<'a>(&'a [u8]);

impl Iterator for Answers<'_> {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        loop {
            let header = Nlmsghdr::new_from_slice(self.0.get(..Nlmsghdr::len())?)?;
            let length = usize::try_from(header.len).ok().filter(|len| *len >= Nlmsghdr::len())?;
            let message = self.0.get(..length)?;
            self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
            if i32::from(header.r#type) == libc::NLMSG_ERROR {
                return Answer::read(message, &header);
            }
        }
    }
}
