//! Errors as gRPC status codes: one exhaustive match per source.
//!
//! What a guest says is passed on only where its protocol allows the code, and never at length: it is not trusted.

use std::io;

use ovenbird_host::storage;
use ovenbird_kit::telemetry;
use tonic::{Code, Status};

use crate::{sandbox::Error, template};

/// As much of a guest's message as is passed on, in characters.
const GUEST_MESSAGE_MAX: usize = 2048;
/// Bytes of a message on its way. Clients take 16 KiB of headers, and end the connection when there are more.
const ENCODED_MAX: usize = 8192;

/// The status of a sandbox's error. What is the host's fault is logged here, with its chain.
pub(super) fn of(error: &Error) -> Status {
    let code = code(error);
    if code == Code::Internal {
        tracing::error!(error = telemetry::chain(error), "call failed");
    }
    // A guest's reason is what its caller can act on; a host's own reasons stay in the log.
    let text = match error {
        Error::Guest { .. } | Error::LinkLost { .. } => telemetry::chain(error),
        _ => error.to_string(),
    };
    Status::new(code, fitting(text.chars()))
}

/// As much of a message as fits into the header that it travels in.
fn fitting(text: impl Iterator<Item = char>) -> String {
    let mut left = ENCODED_MAX;
    text.take_while(|char| {
        // Whatever is not plain takes three bytes for each of its own.
        let plain = char.is_ascii_graphic() || *char == ' ';
        let length = if plain { 1 } else { 3 * char.len_utf8() };
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    })
    .collect()
}

fn code(error: &Error) -> Code {
    match error {
        Error::Unknown(_) | Error::NoCheckpoint { .. } => Code::NotFound,
        Error::Exists(_) => Code::AlreadyExists,
        Error::Invalid(_) => Code::InvalidArgument,
        Error::NoRoom(_) | Error::Checkpoints { .. } => Code::ResourceExhausted,
        Error::WrongState { .. }
        | Error::Mismatch { .. }
        | Error::NotPaused { .. }
        | Error::Elsewhere { .. } => Code::FailedPrecondition,
        Error::Cancelled(_) => Code::Aborted,
        Error::Closing | Error::NotReady { .. } | Error::Guest { .. } | Error::LinkLost { .. } => {
            Code::Unavailable
        }
        Error::Template(error) => of_template(error),
        Error::Volume(error) => of_volume(error),
        Error::Directory { .. } | Error::Machine(_) if is_full(error) => Code::ResourceExhausted,
        // The template was deleted while the sandbox was being made from it.
        Error::Directory { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Code::NotFound
        }
        Error::Directory { .. }
        | Error::Leftovers { .. }
        | Error::StillOn(_)
        | Error::Network(_)
        | Error::Cgroup(_)
        | Error::Machine(_)
        | Error::Panicked => Code::Internal,
    }
}

/// Whether the kernel had no room for something, which is in data_dir.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        })
}

fn of_template(error: &template::Error) -> Code {
    match error {
        template::Error::Unknown(_) => Code::NotFound,
        template::Error::Taken(_) => Code::AlreadyExists,
        template::Error::Manifest { .. } => Code::FailedPrecondition,
        template::Error::Io { .. } if is_full(error) => Code::ResourceExhausted,
        template::Error::Io { .. } => Code::Internal,
    }
}

fn of_volume(error: &storage::Error) -> Code {
    match error {
        storage::Error::NoOrigin(_) | storage::Error::NoCheckpoint { .. } => Code::NotFound,
        storage::Error::CheckpointName(_) => Code::InvalidArgument,
        storage::Error::Full(_) | storage::Error::Overflowed(_) => Code::ResourceExhausted,
        storage::Error::NoReflink(_)
        | storage::Error::NoDmSnapshot(_)
        | storage::Error::Io { .. } => Code::Internal,
    }
}

/// The status of a guest's answer.
pub(super) fn of_guest(status: &Status) -> Status {
    let code = match status.code() {
        code @ (Code::InvalidArgument
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::DeadlineExceeded) => code,
        // PERMISSION_DENIED would say that this caller may not call.
        Code::Unimplemented | Code::PermissionDenied => Code::FailedPrecondition,
        Code::Internal => Code::Internal,
        _ => return Status::unavailable("the connection to the guest was lost"),
    };
    Status::new(code, fitting(status.message().chars().take(GUEST_MESSAGE_MAX)))
}

#[cfg(test)]
mod tests {
    use ovenbird_host::vm;

    use super::*;
    use crate::name::{SandboxId, TemplateName};

    #[test]
    fn contract_names_the_code_of_each_refusal() {
        let id = || SandboxId::new("a").unwrap();
        let name = || TemplateName::new("a").unwrap();
        let codes = [
            (Error::Unknown(id()), Code::NotFound),
            (Error::Exists(id()), Code::AlreadyExists),
            (template::Error::Unknown(name()).into(), Code::NotFound),
            (template::Error::Taken(name()).into(), Code::AlreadyExists),
            (Error::Mismatch { name: name(), reason: "x".into() }, Code::FailedPrecondition),
            (Error::Closing, Code::Unavailable),
        ];
        for (error, code) in codes {
            assert_eq!(of(&error).code(), code, "{error}");
        }
        // Clients wait for the next agent when they read these words.
        assert_eq!(of(&Error::Closing).message(), "this host agent is shutting down");
    }

    #[test]
    fn full_data_dir_is_resource_exhausted_whatever_finds_it_full() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let source = || io::Error::from(kind);
            let id = SandboxId::new("a").unwrap();
            let (name, action) = (|| "a".to_owned(), "made");
            let errors: [Error; 3] = [
                Error::Directory { id, action, source: source() },
                template::Error::Io { name: name(), action, source: source() }.into(),
                vm::Error::Io { name: name(), action, source: source() }.into(),
            ];
            for error in errors {
                assert_eq!(of(&error).code(), Code::ResourceExhausted, "{error:?}");
            }
        }
    }

    #[test]
    fn guest_cannot_choose_a_code_outside_of_its_protocol() {
        assert_eq!(of_guest(&Status::unauthenticated("x")).code(), Code::Unavailable);
        assert_eq!(of_guest(&Status::not_found("x")).message(), "x");
        let long = of_guest(&Status::internal("x".repeat(100_000)));
        assert_eq!(long.message().len(), GUEST_MESSAGE_MAX);
        let wide = of_guest(&Status::internal("\u{1f426}\n".repeat(100_000)));
        let bytes: usize = wide.message().chars().map(|char| 3 * char.len_utf8()).sum();
        assert!((ENCODED_MAX - 12..=ENCODED_MAX).contains(&bytes), "{bytes}");
    }
}
