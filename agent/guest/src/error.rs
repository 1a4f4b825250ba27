//! Everything a call can be refused with, and its gRPC status: a closed set, see the .proto file.

use std::io;

use tonic::{Code, Status};

use crate::console::Chain;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{field} {problem}")]
    Argument { field: &'static str, problem: &'static str },
    #[error("no exec {0:?}")]
    NoExec(String),
    #[error("exec {0:?} has ended")]
    ExecEnded(String),
    #[error("offset {offset} was freed: the output begins at {base}")]
    Freed { offset: u64, base: u64 },
    #[error("offset {offset} is beyond the output, which ends at {end}")]
    Beyond { offset: u64, end: u64 },
    #[error("{max} commands are running: no more at once")]
    TooManyExecs { max: usize },
    #[error("{path} is a folder: name a file in it")]
    Folder { path: String },
    #[error("{path} is not a regular file")]
    NotRegular { path: String },
    #[error("{path} is there already and is {is}, which {what} cannot replace")]
    InTheWay { path: String, is: &'static str, what: &'static str },
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
    #[error("{path} has {size} bytes, {max} were allowed")]
    TooLong { path: String, size: u64, max: u64 },
    #[error("no room for {path}: make some on its file system")]
    Full { path: String, source: io::Error },
    #[error("{path} is on a file system that is read-only: choose another place")]
    ReadOnly { path: String, source: io::Error },
    #[error("{path}")]
    File { path: String, source: io::Error },
    #[error(transparent)]
    User(#[from] crate::users::Error),
    #[error("the upload broke off")]
    Upload(#[source] Status),
    #[error("{action} failed")]
    System { action: &'static str, source: io::Error },
}

impl Error {
    pub(crate) fn argument(field: &'static str, problem: &'static str) -> Self {
        Self::Argument { field, problem }
    }

    pub(crate) fn file(path: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::Full { path, source }
                }
                io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path, source },
                _ => Self::File { path, source },
            }
        }
    }

    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }

    fn code(&self) -> Code {
        match self {
            Self::Argument { .. } | Self::Archive(_) => Code::InvalidArgument,
            Self::NoExec(_) => Code::NotFound,
            Self::ExecEnded(_)
            | Self::Folder { .. }
            | Self::InTheWay { .. }
            | Self::NotRegular { .. }
            | Self::ReadOnly { .. }
            | Self::User(_) => Code::FailedPrecondition,
            Self::Freed { .. } | Self::Beyond { .. } | Self::TooLong { .. } => Code::OutOfRange,
            Self::TooManyExecs { .. } | Self::Full { .. } => Code::ResourceExhausted,
            Self::Upload(status) => status.code(),
            Self::File { source, .. } | Self::System { source, .. } => io_code(source),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), Chain(&error).to_string())
    }
}

fn io_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::OutOfMemory => Code::ResourceExhausted,
        io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::DirectoryNotEmpty
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::ExecutableFileBusy
        | io::ErrorKind::ResourceBusy => Code::FailedPrecondition,
        io::ErrorKind::InvalidFilename => Code::InvalidArgument,
        _ => match error.raw_os_error() {
            Some(libc::ELOOP) => Code::FailedPrecondition,
            Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN) => Code::ResourceExhausted,
            _ => Code::Internal,
        },
    }
}
