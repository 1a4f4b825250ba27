//! All entries of an archive, whatever its form.

use std::{
    fs::File,
    io::{BufReader, Read},
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
};

use flate2::read::MultiGzDecoder;

use crate::{
    entry::Entry,
    error::{Code, Error, Refused},
    file::At,
    stop::Stop,
    tarball, zip,
};

/// Where the word `ustar` stands in a header.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
const HEAD: usize = 512;

/// What is done with each entry. Of a file's content as much is read as one likes; a break ends the walk there.
pub(crate) type Visit<'a> = dyn FnMut(&Entry, &mut dyn Read) -> Result<ControlFlow<()>, Error> + 'a;

/// Visits every entry, in the archive's order.
pub(crate) fn walk(file: &File, stop: &Stop, visit: &mut Visit<'_>) -> Result<(), Error> {
    let head = head(file)?;
    match &head[..] {
        [0x1f, 0x8b, ..] => {
            let unpacked = MultiGzDecoder::new(BufReader::new(At::start(file)));
            tarball::walk(unpacked, stop, visit)
        }
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => zip::walk(file, stop, visit),
        head if is_tar(head) => tarball::walk(BufReader::new(At::start(file)), stop, visit),
        _ => {
            let message = "is no tar, tar.gz or zip";
            Err(Refused::archive(Code::NotAnArchive, message).into())
        }
    }
}

fn head(file: &File) -> Result<Vec<u8>, Error> {
    let mut head = vec![0; HEAD];
    let mut filled = 0;
    while filled < HEAD {
        match file.read_at(&mut head[filled..], filled as u64).map_err(Error::Read)? {
            0 => break,
            read => filled += read,
        }
    }
    head.truncate(filled);
    Ok(head)
}

/// A header with the magic of POSIX or GNU, one of before them whose sum is right, or the end of an empty archive.
fn is_tar(head: &[u8]) -> bool {
    if head.len() < HEAD {
        return false;
    }
    if &head[TAR_MAGIC] == b"ustar" || head.iter().all(|&byte| byte == 0) {
        return true;
    }
    let field = 148..156;
    let sum = |(at, &byte): (usize, &u8)| u32::from(if field.contains(&at) { b' ' } else { byte });
    let text = String::from_utf8_lossy(&head[field.clone()]);
    let said = u32::from_str_radix(text.trim_matches(['\0', ' ']), 8);
    said == Ok(head.iter().enumerate().map(sum).sum())
}
