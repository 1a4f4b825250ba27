//! The file behind the fences: a line of JSON for each rise, the last one counts. Which lines still matter is not known
//! here.
//!
//! Nothing is synced: it has to outlive the agent, not the host.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// One rise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) build_id: String,
    pub(super) attempt: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct FenceFile {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Whether a line is missing, or cut.
    is_behind: bool,
}

impl FenceFile {
    /// Opens or makes it, and reads it. A line that was cut is left out.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Line>)> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let lines = text.split(|byte| *byte == b'\n');
        let read: Vec<Line> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let file = options().append(true).open(path)?;
        Ok((Self { path: path.to_owned(), file, lines: read.len(), is_behind: false }, read))
    }

    /// How many lines there are.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Whether a line could not be added: all have to be put in the place of what there is.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Adds a line.
    pub(super) fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.lines += 1;
        let written = self.file.write_all(&text);
        self.is_behind |= written.is_err();
        written
    }

    /// Puts these lines in the place of all.
    pub(super) fn replace(&mut self, lines: impl Iterator<Item = Line>) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let (mut text, mut count) = (Vec::new(), 0);
        for line in lines {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            count += 1;
        }
        let mut file = options().write(true).truncate(true).open(&new)?;
        file.write_all(&text)?;
        fs::rename(&new, &self.path)?;
        // Another line for what has been renamed away would be lost.
        self.is_behind = true;
        (self.file, self.lines) = (options().append(true).open(&self.path)?, count);
        self.is_behind = false;
        Ok(())
    }
}

/// Root's alone.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

#[cfg(test)]
impl FenceFile {
    /// As on a full disk.
    pub(super) fn refuse_lines(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(build_id: &str, attempt: u32) -> Line {
        Line { build_id: build_id.into(), attempt }
    }

    #[test]
    fn lines_are_read_in_their_order_and_a_cut_one_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fences");
        let (mut file, read) = FenceFile::open(&path).unwrap();
        assert!(read.is_empty());
        file.append(&line("a", 1)).unwrap();
        file.append(&line("b", 2)).unwrap();
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"build_id\":\"c\",\"att");
        fs::write(&path, text).unwrap();
        let (mut file, read) = FenceFile::open(&path).unwrap();
        assert_eq!(read, [line("a", 1), line("b", 2)]);
        file.replace(read.into_iter().skip(1)).unwrap();
        file.append(&line("d", 4)).unwrap();
        let (file, read) = FenceFile::open(&path).unwrap();
        assert_eq!((file.lines(), read), (2, vec![line("b", 2), line("d", 4)]));
    }
}
