//! Archives as tests make them.

use std::{
    fs::File,
    io::{Read as _, Write as _},
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

/// A file that holds `bytes`.
pub(crate) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub(crate) fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive, entry by entry; names as they are, whatever they are.
pub(crate) struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(name: &str, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o640);
        header.set_mtime(1_700_000_000);
        header.set_uid(4711);
        header.set_gid(4711);
        if kind == EntryType::GNUSparse {
            header.as_gnu_mut().unwrap().set_real_size(size);
        }
        header.set_cksum();
        header
    }

    pub(crate) fn file(mut self, name: &str, content: &[u8]) -> Self {
        let header = Self::header(name, EntryType::Regular, content.len() as u64);
        self.0.append(&header, content).unwrap();
        self
    }

    /// With a name of any length.
    pub(crate) fn long(mut self, name: &str, content: &[u8]) -> Self {
        let mut header = Self::header("", EntryType::Regular, content.len() as u64);
        self.0.append_data(&mut header, name, content).unwrap();
        self
    }

    /// A header that says what one likes of its size, and a content of its own.
    pub(crate) fn says(mut self, name: &str, kind: EntryType, size: u64, content: &[u8]) -> Self {
        self.0.append(&Self::header(name, kind, size), content).unwrap();
        self
    }

    pub(crate) fn kind(mut self, name: &str, kind: EntryType) -> Self {
        self.0.append(&Self::header(name, kind, 0), &b""[..]).unwrap();
        self
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.kind(name, EntryType::Directory)
    }

    pub(crate) fn link(mut self, name: &str, to: &str) -> Self {
        let mut header = Self::header(name, EntryType::Symlink, 0);
        header.as_old_mut().linkname[..to.len()].copy_from_slice(to.as_bytes());
        header.set_cksum();
        self.0.append(&header, &b""[..]).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// What a packed archive holds: path, mode, and content or target.
pub(crate) fn unpacked(packed: &[u8]) -> Vec<(String, u32, String)> {
    let mut archive = tar::Archive::new(packed);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mode = entry.header().mode().unwrap();
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
        let mut content = String::new();
        match entry.link_name().unwrap() {
            Some(to) => content = format!("-> {}", to.to_str().unwrap()),
            None => drop(entry.read_to_string(&mut content).unwrap()),
        }
        (path, mode, content)
    });
    entries.collect()
}

/// A zip archive whose directory says what one likes.
#[derive(Default)]
pub(crate) struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
}

/// What a zip says of an entry.
pub(crate) struct Said<'a> {
    pub(crate) name: &'a str,
    pub(crate) content: &'a [u8],
    /// Its size as said; its own when absent.
    pub(crate) size: Option<u32>,
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) flags: u16,
    pub(crate) deflate: bool,
}

impl Default for Said<'_> {
    fn default() -> Self {
        Self { name: "a", content: b"", size: None, mode: 0o100_644, flags: 0, deflate: false }
    }
}

impl Zip {
    pub(crate) fn entry(mut self, said: &Said<'_>) -> Self {
        let offset = u32::try_from(self.bytes.len()).unwrap();
        let packed = if said.deflate {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(said.content).unwrap();
            encoder.finish().unwrap()
        } else {
            said.content.to_vec()
        };
        let mut crc = flate2::Crc::new();
        crc.update(said.content);
        let size = said.size.unwrap_or(u32::try_from(said.content.len()).unwrap());
        let mut common = Vec::new();
        common.extend(20_u16.to_le_bytes());
        common.extend(said.flags.to_le_bytes());
        common.extend(if said.deflate { 8_u16 } else { 0 }.to_le_bytes());
        // Noon of 2023-11-14.
        common.extend(0x6000_u16.to_le_bytes());
        common.extend(0x576e_u16.to_le_bytes());
        common.extend(crc.sum().to_le_bytes());
        common.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        common.extend(size.to_le_bytes());
        common.extend(u16::try_from(said.name.len()).unwrap().to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(&common);
        self.bytes.extend(said.name.as_bytes());
        self.bytes.extend(packed);
        self.directory.extend(b"PK\x01\x02");
        // Made by Unix.
        self.directory.extend(0x0314_u16.to_le_bytes());
        self.directory.extend(&common);
        self.directory.extend([0; 6]);
        self.directory.extend((said.mode << 16).to_le_bytes());
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(said.name.as_bytes());
        self.entries += 1;
        self
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let (offset, size) = (self.bytes.len(), self.directory.len());
        self.bytes.extend(&self.directory);
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend(self.entries.to_le_bytes());
        self.bytes.extend(self.entries.to_le_bytes());
        self.bytes.extend(u32::try_from(size).unwrap().to_le_bytes());
        self.bytes.extend(u32::try_from(offset).unwrap().to_le_bytes());
        self.bytes.extend([0, 0]);
        self.bytes
    }
}
