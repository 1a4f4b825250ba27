//! What is refused, with the entry's name and a code.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use ovenbird_context::{Code, Contents, Error, Refused, Stop, limits};
use tar::EntryType;

use crate::archives::{Said, Tar, Zip, file, gz};

fn refused(bytes: &[u8]) -> Refused {
    match Contents::of(&file(bytes), &Stop::default()) {
        Err(Error::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

/// The code and the entry, as a tar and as a tar.gz.
fn tar_is_refused(tar: Tar, code: Code, entry: &str) {
    let bytes = tar.bytes();
    for bytes in [gz(&bytes), bytes] {
        let refused = refused(&bytes);
        assert_eq!((refused.code, refused.entry.as_deref()), (code, Some(entry)), "{refused}");
    }
}

#[test]
fn path_that_leads_out_is_refused() {
    tar_is_refused(Tar::new().file("/etc/passwd", b"x"), Code::BadPath, "/etc/passwd");
    tar_is_refused(Tar::new().file("a/../../b", b"x"), Code::BadPath, "a/../../b");
    tar_is_refused(Tar::new().directory(".."), Code::BadPath, "..");
    for name in ["/etc/passwd", "../x", "a\\..\\b"] {
        let refused = refused(&Zip::default().entry(&Said { name, ..Said::default() }).bytes());
        assert_eq!((refused.code, refused.entry.as_deref()), (Code::BadPath, Some(name)));
    }
}

#[test]
fn link_that_leads_out_is_refused_and_so_is_what_leads_through_one() {
    tar_is_refused(Tar::new().link("etc", "/etc"), Code::LinkOutside, "etc");
    tar_is_refused(Tar::new().link("a/up", "../../x"), Code::LinkOutside, "a/up");
    tar_is_refused(
        Tar::new().directory("d").link("l", "d").file("l/x", b"x"),
        Code::ThroughLink,
        "l/x",
    );
    let said = Said { name: "etc", content: b"/etc", mode: 0o120_777, ..Said::default() };
    let refused = refused(&Zip::default().entry(&said).bytes());
    assert_eq!((refused.code, refused.entry.as_deref()), (Code::LinkOutside, Some("etc")));
}

#[test]
fn what_is_neither_file_directory_nor_link_is_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
        tar_is_refused(Tar::new().kind("dev/x", kind), Code::UnsupportedEntry, "dev/x");
    }
    let hard = Tar::new().file("a", b"x").kind("b", EntryType::Link).bytes();
    let refused_hard = refused(&hard);
    assert_eq!(refused_hard.code, Code::UnsupportedEntry);
    assert!(refused_hard.message.contains("--hard-dereference"), "{refused_hard}");
    for (mode, flags) in
        [(0o020_666, 0), (0o010_666, 0), (0o060_666, 0), (0o140_666, 0), (0o100_644, 1)]
    {
        let said = Said { name: "x", mode, flags, ..Said::default() };
        let refused = refused(&Zip::default().entry(&said).bytes());
        assert_eq!((refused.code, refused.entry.as_deref()), (Code::UnsupportedEntry, Some("x")));
    }
}

#[test]
fn entry_that_is_there_twice_is_refused() {
    tar_is_refused(Tar::new().file("a", b"1").file("./a", b"2"), Code::DuplicateEntry, "a");
    let said = Said { name: "a", content: b"1", ..Said::default() };
    let refused = refused(&Zip::default().entry(&said).entry(&said).bytes());
    assert_eq!((refused.code, refused.entry.as_deref()), (Code::DuplicateEntry, Some("a")));
}

#[test]
fn a_million_entries_are_refused_at_the_first_one_too_many() {
    let mut header = tar::Header::new_ustar();
    let mut bytes = Vec::new();
    // No more than so many are read.
    for entry in 0..=limits::ENTRIES_MAX {
        header.set_path(format!("{}/{}", entry / 1000, entry % 1000)).unwrap();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        bytes.extend(header.as_bytes());
    }
    let archive = file(&bytes);
    archive.set_len(1_000_000 * 512).unwrap();
    let Err(Error::Refused(refused)) = Contents::of(&archive, &Stop::default()) else {
        panic!("not refused")
    };
    let expected = format!("{}/{}", limits::ENTRIES_MAX / 1000, 0);
    assert_eq!((refused.code, refused.entry), (Code::TooManyEntries, Some(expected)));
}

#[test]
fn archive_that_becomes_a_thousand_times_larger_is_refused_before_it_is_unpacked() {
    // 256 MiB of zeros are 260 KB.
    let size = 256 << 20;
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.write_all(&[0; 1024]).unwrap();
    let bytes = encoder.finish().unwrap();
    assert!(size / bytes.len() as u64 > 900);
    let bomb = refused(&bytes);
    assert_eq!((bomb.code, bomb.entry.as_deref()), (Code::CompressedTooMuch, Some("zeros")));
    let said = Said { size: Some(1 << 30), deflate: true, ..Said::default() };
    assert_eq!(refused(&Zip::default().entry(&said).bytes()).code, Code::CompressedTooMuch);
    // Files whose names, in gzip, are gigabytes of nothing.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    for _ in 0..8 {
        encoder.write_all(&zeros).unwrap();
    }
    let refused = refused(&encoder.finish().unwrap());
    assert_eq!(refused.code, Code::BrokenArchive);
    assert!(refused.message.contains("longer than any name"), "{refused}");
}

#[test]
fn what_is_no_file_has_no_content_that_nobody_counts() {
    for kind in [EntryType::Directory, EntryType::Symlink] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path("d").unwrap();
        header.set_link_name("x").unwrap();
        header.set_mode(0o777);
        // A bomb's are hundreds of gigabytes.
        header.set_size(4096);
        header.set_cksum();
        let refused = refused(&gz(&[header.as_bytes(), &[0; 4096][..]].concat()));
        assert_eq!((refused.code, refused.entry.as_deref()), (Code::WrongSize, Some("d")));
    }
}

/// A tar.gz of one and the same piece many times over, which costs little to make: members of gzip follow each other.
fn repeated(piece: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(piece).unwrap();
    encoder.finish().unwrap().repeat(times)
}

#[test]
fn headers_of_all_entries_together_have_a_bound() {
    // What git writes, of a gigabyte: refused after the first MiB.
    let global = Tar::new().says("g", EntryType::XGlobalHeader, 1 << 30, b"").bytes();
    let large = refused(&[gz(&global[..512]), repeated(&[0; 1 << 20], 4)].concat());
    assert_eq!(large.code, Code::BrokenArchive, "{large}");
    // Small ones, as many as one likes: 600 MiB of them are some hundred KB.
    let content = vec![0; (1 << 20) - 4096];
    let global = Tar::new().says("g", EntryType::XGlobalHeader, content.len() as u64, &content);
    let global = global.bytes();
    let many = refused(&repeated(&global[..512 + content.len()], 600));
    assert_eq!(many.code, Code::CompressedTooMuch, "{many}");
    assert!(many.message.contains("headers"), "{many}");
}

#[test]
fn targets_of_links_count_as_the_paths_do() {
    let mut tar = tar::Builder::new(Vec::new());
    let to = "t/".repeat(2000);
    for link in 0..4300 {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, format!("{link}"), &to).unwrap();
    }
    let refused = refused(&tar.into_inner().unwrap());
    assert_eq!(refused.code, Code::TooManyEntries);
    let nth: u32 = refused.entry.unwrap().parse().unwrap();
    assert!((4100..4200).contains(&nth), "16 MiB of them: {nth}");
}

#[test]
fn zip_that_lies_about_a_size_is_refused() {
    for (content, size) in [(&b"four"[..], 3), (b"four", 5), (b"", 1), (b"x", 0)] {
        for deflate in [false, true] {
            let said = Said { name: "x", content, size: Some(size), deflate, ..Said::default() };
            let refused = refused(&Zip::default().entry(&said).bytes());
            let expected = [Code::WrongSize, Code::BrokenArchive];
            assert!(expected.contains(&refused.code), "{size}: {refused}");
            assert_eq!(refused.entry.as_deref(), Some("x"));
        }
    }
}

#[test]
fn archive_that_is_none_or_half_is_refused() {
    for bytes in [&b""[..], b"hello", &[7; 4096], b"Rar!\x1a\x07\x00"] {
        assert_eq!(refused(bytes).code, Code::NotAnArchive);
    }
    let tar = Tar::new().file("a", &[1; 5000]).file("b", &[2; 5000]).bytes();
    for cut in [600, 3000, 6000] {
        assert!(
            [Code::WrongSize, Code::BrokenArchive].contains(&refused(&tar[..cut]).code),
            "{cut}"
        );
    }
    let packed = gz(&tar);
    assert_eq!(refused(&packed[..packed.len() / 2]).code, Code::BrokenArchive);
    let mut zip = Zip::default().entry(&Said { content: &[1; 500], ..Said::default() }).bytes();
    assert_eq!(refused(&zip[..zip.len() - 30]).code, Code::BrokenArchive);
    // A bit of the content.
    zip[100] ^= 1;
    let damaged = refused(&zip);
    assert_eq!((damaged.code, damaged.entry.as_deref()), (Code::BrokenArchive, Some("a")));
    // A header whose sum is wrong.
    let mut tar = Tar::new().file("a", b"x").file("b", b"x").bytes();
    tar[1024 + 20] ^= 1;
    let damaged = refused(&tar);
    assert_eq!((damaged.code, damaged.entry.as_deref()), (Code::BrokenArchive, Some("a")));
}

#[test]
fn zip_that_names_a_place_that_no_file_has_is_broken_and_not_the_disk() {
    let zip = Zip::default().entry(&Said { name: "x", ..Said::default() }).bytes();
    let directory = zip.len() - 22 - 47;
    assert_eq!(&zip[directory..directory + 4], b"PK\x01\x02");
    let mut crafted = zip[..directory].to_vec();
    let mut record = zip[directory..zip.len() - 22].to_vec();
    // The offset is in an extension, of 64 bits.
    record[30..32].copy_from_slice(&12_u16.to_le_bytes());
    record[42..46].copy_from_slice(&u32::MAX.to_le_bytes());
    record.extend([1, 0, 8, 0]);
    record.extend((1_u64 << 63).to_le_bytes());
    crafted.extend(&record);
    crafted.extend(&zip[zip.len() - 22..]);
    let end = crafted.len() - 22;
    crafted[end + 12..end + 16]
        .copy_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
    let refused = refused(&crafted);
    assert_eq!((refused.code, refused.entry.as_deref()), (Code::BrokenArchive, Some("x")));
}

#[test]
fn ignore_file_that_cannot_be_read_is_refused_with_its_line() {
    let refused = refused(&Tar::new().file(".ovenbirdignore", b"*.o\n{a\n").bytes());
    assert_eq!(refused.code, Code::BadIgnore);
    assert!(refused.message.contains("line 2"), "{refused}");
}
