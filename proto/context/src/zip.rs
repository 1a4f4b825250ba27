//! Zip archives: what their directory says, held against what is there.

use std::{
    fs::File,
    io::{self, Read},
};

use flate2::read::DeflateDecoder;
use rawzip::{
    CompressionMethod, CreatorSystem, ErrorKind, RECOMMENDED_BUFFER_SIZE, ZipArchive,
    ZipFileHeaderRecord, ZipVerifier,
    time::{UtcDateTime, ZipDateTimeKind},
};

use crate::{
    entry::{self, Entry, Kind},
    error::{Code, Error, Refused, broken},
    limits::PATH_BYTES_MAX,
    stop::Stop,
    walk::Visit,
};

const MODE: u32 = 0o7777;
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// Visits every entry.
pub(crate) fn walk(file: &File, stop: &Stop, visit: &mut Visit<'_>) -> Result<(), Error> {
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let copy = file.try_clone().map_err(Error::Read)?;
    let archive = ZipArchive::from_file(copy, &mut buffer).map_err(|error| reading(error, None))?;
    let said = archive.entries_hint();
    let mut count = 0;
    let mut last: Option<String> = None;
    let mut entries = archive.entries(&mut buffer);
    while let Some(record) =
        entries.next_entry().map_err(|error| reading(error, last.as_deref()))?
    {
        stop.look().map_err(Error::Read)?;
        count += 1;
        let (mut entry, method) = of(&record)?;
        let found = archive.get_entry(record.wayfinder());
        let found = found.map_err(|error| reading(error, Some(&entry.path)))?;
        let content: Box<dyn Read> = match method {
            CompressionMethod::STORE => Box::new(found.reader()),
            _ => Box::new(DeflateDecoder::new(found.reader())),
        };
        let mut content =
            Content { inner: found.verifying_reader(content), name: entry.path.clone() };
        if let Kind::Link { to } = &mut entry.kind {
            let mut target = Vec::new();
            let mut within = (&mut content).take(PATH_BYTES_MAX as u64 + 1);
            within
                .read_to_end(&mut target)
                .map_err(|error| Error::reading(error, Some(&entry.path)))?;
            *to = entry::target(&entry.path, &target)?;
        }
        let gone_on = match entry.kind {
            Kind::File => visit(&entry, &mut stop.of(&mut content))?,
            Kind::Directory | Kind::Link { .. } => visit(&entry, &mut io::empty())?,
        };
        if gone_on.is_break() {
            return Ok(());
        }
        last = Some(entry.path);
    }
    // Older tools count no further than 16 bits.
    if count != said && count & 0xffff != said {
        let message = format!("says that it has {said} entries, and has {count}");
        return Err(Refused::archive(Code::BrokenArchive, message).into());
    }
    Ok(())
}

/// A content that is what the directory says of it: no longer, no shorter, and with its checksum.
struct Content<D> {
    inner: ZipVerifier<D>,
    name: String,
}

impl<D: Read> Read for Content<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            if is_the_disks(&error) {
                return error;
            }
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rawzip::Error>());
            let refused = match inner.map(rawzip::Error::kind) {
                Some(ErrorKind::InvalidSize { expected, actual }) => {
                    let message =
                        format!("has {actual} bytes or more, and the archive says {expected}");
                    Refused::entry(Code::WrongSize, &self.name, message)
                }
                _ => broken(&error.to_string(), Some(&self.name)),
            };
            io::Error::other(refused)
        })
    }
}

fn of(record: &ZipFileHeaderRecord<'_>) -> Result<(Entry, CompressionMethod), Error> {
    let name = record.file_path();
    let name: &[u8] = name.as_bytes();
    let path = entry::path(name)?;
    // Written by tools that mean a slash.
    if path.contains('\\') {
        let message = "has a backslash in its path: make the archive with slashes";
        return Err(Refused::entry(Code::BadPath, &path, message).into());
    }
    let unsupported =
        |message: &str| -> Error { Refused::entry(Code::UnsupportedEntry, &path, message).into() };
    if record.flags().is_encrypted() {
        return Err(unsupported("is encrypted"));
    }
    let method = record.compression_method();
    if ![CompressionMethod::STORE, CompressionMethod::DEFLATE].contains(&method) {
        return Err(unsupported("is compressed otherwise than by deflate"));
    }
    let system = record.version_made_by().creator_system();
    let is_unix = system == CreatorSystem::UNIX || system == CreatorSystem::MACOS;
    let mode = record.mode().value();
    let is_directory = record.is_dir() || is_unix && mode & TYPE == DIRECTORY;
    let kind = match mode & TYPE {
        _ if is_directory => Kind::Directory,
        LINK if is_unix => Kind::Link { to: String::new() },
        REGULAR | 0 | DIRECTORY => Kind::File,
        _ if !is_unix => Kind::File,
        _ => return Err(unsupported("is a device, FIFO or socket: leave it out")),
    };
    // Who says nothing of it, or is no Unix, means what is usual.
    let mode = match mode & MODE {
        mode if is_unix && mode != 0 => mode,
        _ if is_directory => 0o755,
        _ => 0o644,
    };
    let modified = match record.last_modified() {
        ZipDateTimeKind::Utc(time) => time.to_unix(),
        // Of an unknown place on earth: as good as any.
        ZipDateTimeKind::Local(time) => UtcDateTime::from_components(
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            0,
        )
        .map_or(0, |time| time.to_unix()),
    };
    let size = if kind == Kind::File { record.uncompressed_size_hint() } else { 0 };
    let modified = u64::try_from(modified).unwrap_or(0);
    Ok((Entry { path, kind, mode, modified, size }, method))
}

fn reading(error: rawzip::Error, last: Option<&str>) -> Error {
    let said = error.to_string();
    match error.into_kind() {
        ErrorKind::IO(error) if is_the_disks(&error) => Error::Read(error),
        _ => broken(&said, last).into(),
    }
}

/// An archive may name a place that no file has: then the kernel's refusal is the archive's fault.
fn is_the_disks(error: &io::Error) -> bool {
    error.raw_os_error().is_some() && error.kind() != io::ErrorKind::InvalidInput
}
