//! Archives in a directory of the machine that builds this.

use std::os::unix::fs::{MetadataExt, symlink};

use futures::stream;
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

/// Its own user: only root may give files away.
fn meta(path: &Path, as_file: bool) -> WriteFileMeta {
    let folder = tempfile::tempdir().unwrap();
    let me = fs::metadata(folder.path()).unwrap();
    WriteFileMeta {
        path: path.to_str().unwrap().into(),
        user: me.uid().to_string(),
        unpack: Some(UnpackMeta { group: me.gid().to_string(), as_file }),
        ..WriteFileMeta::default()
    }
}

struct Entries(Builder<Vec<u8>>);

impl Entries {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, name: &str, mode: u32, content: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, content.as_bytes()).unwrap();
        self
    }

    fn file(self, name: &str, mode: u32, content: &str) -> Self {
        self.add(EntryType::Regular, name, mode, content)
    }

    fn directory(self, name: &str, mode: u32) -> Self {
        self.add(EntryType::Directory, name, mode, "")
    }

    fn link(mut self, name: &str, to: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.0.append_link(&mut header, name, to).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// The messages of an upload that ends as `end` says.
async fn send(
    meta: WriteFileMeta,
    bytes: &[u8],
    end: Option<Result<WriteFileRequest, Status>>,
) -> Result<UnpackResponse, Error> {
    let chunk = |bytes: &[u8]| Content::Chunk(Bytes::copy_from_slice(bytes));
    let contents = [Content::Meta(meta)].into_iter().chain(bytes.chunks(700).map(chunk));
    let messages = contents.map(|content| Ok(WriteFileRequest { content: Some(content) }));
    unpack(stream::iter(messages.chain(end).collect::<Vec<_>>())).await
}

async fn whole(meta: WriteFileMeta, bytes: &[u8]) -> Result<UnpackResponse, Error> {
    send(meta, bytes, None).await
}

fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & MODE
}

#[tokio::test]
async fn files_directories_and_links_are_made_with_mode_and_time_below_what_is_missing() {
    let root = root();
    let into = root.path().join("srv/app");
    let long = format!("a b/{}/ünï ☂", "n".repeat(200));
    let bytes = Entries::new()
        .directory("bin", 0o750)
        .file("bin/run", 0o4711, "run")
        .link("latest", "bin/run")
        .file(&long, 0o600, "long")
        .bytes();
    for _ in 0..2 {
        let done = whole(meta(&into, false), &bytes).await.unwrap();
        assert_eq!((done.entries, done.bytes), (4, 7));
        assert_eq!(mode(&into.join("bin")), 0o750);
        assert_eq!(mode(&into.join("bin/run")), 0o4711);
        assert_eq!(fs::metadata(into.join("bin/run")).unwrap().mtime(), 1_700_000_000);
        assert_eq!(fs::read_to_string(into.join("latest")).unwrap(), "run");
        assert_eq!(fs::read_to_string(into.join(&long)).unwrap(), "long");
        assert_eq!((mode(&into), mode(into.parent().unwrap())), (0o755, 0o755));
        // Nothing half is left, however often it is done.
        assert_eq!(fs::read_dir(into.join("bin")).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn directory_that_comes_after_its_content_has_its_own_mode() {
    let root = root();
    fs::create_dir(root.path().join("b")).unwrap();
    fs::set_permissions(root.path().join("b"), Permissions::from_mode(0o711)).unwrap();
    let late = Entries::new().file("a/key", 0o600, "k").directory("a", 0o700);
    let bytes = late.file("b/c", 0o600, "c").directory("b", 0o700).bytes();
    whole(meta(root.path(), false), &bytes).await.unwrap();
    assert_eq!(mode(&root.path().join("a")), 0o700);
    assert_eq!(mode(&root.path().join("b")), 0o711, "it was there before");
}

#[tokio::test]
async fn directory_that_is_there_stays_as_it_is_also_behind_a_link() {
    let root = root();
    fs::create_dir(root.path().join("usr")).unwrap();
    fs::create_dir(root.path().join("usr/lib")).unwrap();
    fs::set_permissions(root.path().join("usr/lib"), Permissions::from_mode(0o711)).unwrap();
    symlink("usr/lib", root.path().join("lib")).unwrap();
    fs::write(root.path().join("lib/there"), "there").unwrap();
    let bytes = Entries::new().directory("lib", 0o700).file("lib/new", 0o644, "new").bytes();
    whole(meta(root.path(), false), &bytes).await.unwrap();
    assert_eq!(mode(&root.path().join("usr/lib")), 0o711);
    assert_eq!(fs::read_to_string(root.path().join("usr/lib/new")).unwrap(), "new");
    assert_eq!(fs::read_to_string(root.path().join("usr/lib/there")).unwrap(), "there");
    assert!(root.path().join("lib").is_symlink());
}

#[tokio::test]
async fn one_file_gets_the_name_that_was_asked_for_or_goes_into_the_directory() {
    let root = root();
    let bytes = Entries::new().file("app.conf", 0o640, "conf").bytes();
    let named = root.path().join("etc/my.conf");
    whole(meta(&named, true), &bytes).await.unwrap();
    whole(meta(&named, true), &bytes).await.unwrap();
    assert_eq!((fs::read_to_string(&named).unwrap().as_str(), mode(&named)), ("conf", 0o640));
    whole(meta(&root.path().join("etc"), true), &bytes).await.unwrap();
    assert!(root.path().join("etc/app.conf").is_file());
    let slash = PathBuf::from(format!("{}/new/", root.path().display()));
    whole(meta(&slash, true), &bytes).await.unwrap();
    assert!(root.path().join("new/app.conf").is_file());
    let two = Entries::new().file("a", 0o644, "a").file("b", 0o644, "b").bytes();
    let refused = whole(meta(&root.path().join("x"), true), &two).await.unwrap_err();
    assert!(refused.to_string().contains("more than the one file"), "{refused}");
}

#[tokio::test]
async fn link_is_replaced_and_not_followed_and_a_directory_is_in_the_way_of_a_file() {
    let root = root();
    fs::write(root.path().join("precious"), "precious").unwrap();
    symlink("precious", root.path().join("a")).unwrap();
    let bytes = Entries::new().file("a", 0o644, "mine").bytes();
    whole(meta(root.path(), false), &bytes).await.unwrap();
    assert_eq!(fs::read_to_string(root.path().join("precious")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "mine");
    fs::create_dir(root.path().join("d")).unwrap();
    for bytes in [
        Entries::new().file("d", 0o644, "").bytes(),
        Entries::new().link("d", "a").bytes(),
        Entries::new().directory("a", 0o755).bytes(),
        Entries::new().file("a/b", 0o644, "").bytes(),
    ] {
        let refused = whole(meta(root.path(), false), &bytes).await.unwrap_err();
        assert!(matches!(refused, Error::InTheWay { .. }), "{refused}");
        assert_eq!(Status::from(refused).code(), tonic::Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn archive_that_breaks_off_leaves_whole_files_only() {
    let root = root();
    let large = "x".repeat(100_000);
    let bytes = Entries::new().file("a", 0o644, "a").file("b", 0o644, &large).bytes();
    let cut = Some(Err(Status::aborted("the caller broke off")));
    let broken = send(meta(root.path(), false), &bytes[..50_000], cut).await.unwrap_err();
    assert!(matches!(broken, Error::Upload(_)), "{broken}");
    // All of it, and no word that it was all.
    let no_chunk = Some(Ok(WriteFileRequest { content: None }));
    send(meta(root.path(), false), &bytes, no_chunk).await.unwrap_err();
    let short = whole(meta(root.path(), false), &bytes[..50_000]).await.unwrap_err();
    assert!(matches!(short, Error::Archive(_)), "{short}");
    let names: Vec<_> =
        fs::read_dir(root.path()).unwrap().flatten().map(|it| it.file_name()).collect();
    assert!(names.iter().all(|name| name == "a" || name == "b"), "{names:?}");
}

#[tokio::test]
async fn owner_that_is_unknown_is_refused_before_anything_is_made() {
    let root = root();
    let into = root.path().join("new");
    let unknown = WriteFileMeta { user: "no-such-user".into(), ..meta(&into, false) };
    let refused = whole(unknown, &Entries::new().file("a", 0o644, "a").bytes()).await.unwrap_err();
    assert!(refused.to_string().contains("no user \"no-such-user\""), "{refused}");
    assert!(!into.exists());
}
