//! What COPY takes: of files, directories and patterns, in every form of archive.

use ovenbird_context::{Contents, NoSelection, Selection, Stop, names_directory, pack};

use crate::archives::{Said, Tar, Zip, file, gz, unpacked};

fn contents() -> Contents {
    let tar = Tar::new()
        .directory("src")
        .file("src/main.c", b"main")
        .file("src/util.c", b"util")
        .file("src/deep/er.h", b"er")
        .file("README", b"readme")
        .file("odd [1] ä.txt", b"odd")
        .link("latest", "src/main.c")
        .file("build/out.o", b"o")
        .file("build/keep.o", b"k")
        .file(".ovenbirdignore", b"# made by the compiler\n*.o\n!build/keep.o\n/secret\n")
        .file("secret/key", b"s");
    Contents::of(&file(&tar.bytes()), &Stop::default()).unwrap()
}

fn names(selection: Selection, contents_of: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    pack(&file(contents_of), &selection, &Stop::default(), &mut out).unwrap();
    let mut names: Vec<_> = unpacked(&out).into_iter().map(|(path, ..)| path).collect();
    names.sort();
    names
}

#[test]
fn of_a_directory_its_content_is_taken_and_of_a_file_the_file() {
    let contents = contents();
    let file = contents.select("README").unwrap();
    assert!(file.is_one && file.matches == 1);
    let link = contents.select("./latest").unwrap();
    assert!(link.is_one);
    let bytes = Tar::new().directory("src").file("src/a", b"").file("src/b/c", b"").bytes();
    let small = Contents::of(&crate::archives::file(&bytes), &Stop::default()).unwrap();
    for source in ["src", "src/", "./src//", "x/../src", "/src"] {
        let selected = small.select(source).unwrap();
        assert!(!selected.is_one);
        assert_eq!(names(selected, &bytes), ["a", "b/c"], "{source}");
    }
    for source in [".", "", "/", "src/.."] {
        assert_eq!(names(small.select(source).unwrap(), &bytes), ["src", "src/a", "src/b/c"]);
    }
}

#[test]
fn pattern_takes_what_it_matches_and_a_name_that_looks_like_one_is_a_name() {
    let contents = contents();
    let matches = |source: &str| contents.select(source).map(|selected| selected.matches);
    assert_eq!(matches("src/*.c"), Ok(2));
    assert_eq!(matches("*.c"), Err(NoSelection::Nothing("*.c".into())), "no deeper than it says");
    assert_eq!(matches("**/*.[ch]"), Ok(3));
    assert_eq!(matches("src/????.c"), Ok(2));
    assert_eq!(matches("odd [1] ä.txt"), Ok(1));
    assert_eq!(matches("odd*"), Ok(1));
    assert!(contents.select("READ*").unwrap().is_one);
    // The uppermost goes along, and what is below it once.
    assert_eq!(matches("src/**"), Ok(3));
    assert!(matches!(matches("a["), Err(NoSelection::BadPattern(..))));
}

#[test]
fn what_is_left_out_cannot_be_copied_and_says_so() {
    let contents = contents();
    let ignored = |source: &str| Err(NoSelection::Ignored(source.into()));
    for source in ["build/out.o", "secret/key", "secret", "secret/*"] {
        assert_eq!(contents.select(source), ignored(source));
    }
    assert!(contents.select("build/*.o").unwrap().is_one, "all but one");
    assert!(contents.select("build/keep.o").is_ok());
    let all = format!("{:?}", contents.select(".").unwrap());
    assert!(
        !all.contains("secret/key") && !all.contains("out.o") && all.contains("keep.o"),
        "{all}"
    );
}

#[test]
fn nothing_comes_back_below_a_directory_that_is_left_out() {
    let rules = b"secrets/\n!*.txt\nnode_modules\n!node_modules/keep\n/a-b\n";
    let tar = Tar::new()
        .file("secrets/pw.txt", b"hunter2")
        .file("node_modules/keep", b"")
        .file("a/secrets/x/y.txt", b"")
        // In the order of their bytes this stands between a directory and what is in it.
        .file("a-b/c", b"")
        .file("a/b.txt", b"")
        .file(".ovenbirdignore", rules)
        .bytes();
    let contents = Contents::of(&file(&tar), &Stop::default()).unwrap();
    let all = names(contents.select(".").unwrap(), &tar);
    assert_eq!(all, [".ovenbirdignore", "a/b.txt"]);
    for source in ["secrets", "secrets/pw.txt", "node_modules", "node_modules/keep", "**/y.txt"] {
        assert_eq!(contents.select(source), Err(NoSelection::Ignored(source.into())));
    }
}

#[test]
fn rules_are_held_against_each_path_once_and_can_be_stopped() {
    // Deep paths, and patterns that are slow: each of the paths' parents once more would be minutes.
    let rules = (0..900).map(|n| format!("*a*{n}*b*c*d*e*f*g\n")).collect::<String>();
    let mut tar = Tar::new().file(".ovenbirdignore", rules.as_bytes());
    for n in 0..240 {
        tar = tar.long(&format!("{n}/{}x", "a/".repeat(250)), b"");
    }
    let archive = file(&tar.bytes());
    let begun = std::time::Instant::now();
    let contents = Contents::of(&archive, &Stop::default()).unwrap();
    assert_eq!(contents.entries, 241);
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    let stop = Stop::default();
    stop.stop();
    assert!(matches!(Contents::of(&archive, &stop), Err(ovenbird_context::Error::Read(_))));
}

#[test]
fn archive_is_read_no_further_than_to_the_last_of_what_is_copied() {
    let tar = Tar::new().directory("d").file("d/a", b"a").directory("d").file("e", b"e").bytes();
    let whole = Contents::of(&file(&tar), &Stop::default()).unwrap();
    let selection = whole.select("d").unwrap();
    assert_eq!((selection.matches, whole.matches("*")), (1, Ok(2)));
    // Without what comes after the file; the directory that comes once more is not part of its own content.
    let mut out = Vec::new();
    let half = file(&tar[..3 * 512]);
    pack(&half, &selection, &Stop::default(), &mut out).unwrap();
    assert_eq!(unpacked(&out), [("a".to_owned(), 0o640, "a".to_owned())]);
}

#[test]
fn what_is_not_there_or_outside_is_named() {
    let contents = contents();
    assert_eq!(contents.select("nothing"), Err(NoSelection::Nothing("nothing".into())));
    assert_eq!(contents.select("../x"), Err(NoSelection::Outside("../x".into())));
    // Nothing is copied through a link.
    assert!(contents.select("latest/x").is_err());
}

#[test]
fn every_form_gives_the_same_tar_with_modes_and_names_of_any_length() {
    let long = format!("a b/{}/ünï ☂", "n".repeat(200));
    let tar = Tar::new()
        .file("run.sh", b"#!/bin/sh")
        .link("l", "run.sh")
        .directory("empty")
        .long(&long, b"long")
        .bytes();
    let zip = Zip::default()
        .entry(&Said { name: "run.sh", content: b"#!/bin/sh", mode: 0o100_640, ..Said::default() })
        .entry(&Said { name: "l", content: b"run.sh", mode: 0o120_640, ..Said::default() })
        .entry(&Said { name: "empty/", mode: 0o040_640, ..Said::default() })
        .entry(&Said {
            name: &long,
            content: b"long",
            mode: 0o100_640,
            deflate: true,
            ..Said::default()
        })
        .bytes();
    let expected = [
        ("run.sh".to_owned(), 0o640, "#!/bin/sh".to_owned()),
        ("l".to_owned(), 0o640, "-> run.sh".to_owned()),
        ("empty".to_owned(), 0o640, String::new()),
        (long, 0o640, "long".to_owned()),
    ];
    for bytes in [gz(&tar), tar, zip] {
        let archive = file(&bytes);
        let contents = Contents::of(&archive, &Stop::default()).unwrap();
        assert_eq!((contents.entries, contents.bytes), (4, 13));
        let mut out = Vec::new();
        let packed =
            pack(&archive, &contents.select(".").unwrap(), &Stop::default(), &mut out).unwrap();
        assert_eq!((packed.files, packed.directories, packed.links, packed.bytes), (2, 1, 1, 13));
        assert_eq!(unpacked(&out), expected);
    }
}

#[test]
fn archive_of_git_and_an_empty_one_are_in_order() {
    let global = b"52 comment=0123456789012345678901234567890123456789\n";
    let mut header = tar::Header::new_ustar();
    header.set_path("pax_global_header").unwrap();
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_size(global.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(global);
    bytes.resize(1024, 0);
    bytes.extend(Tar::new().file("a", b"x").bytes());
    assert_eq!(Contents::of(&file(&bytes), &Stop::default()).unwrap().entries, 1);
    assert_eq!(Contents::of(&file(&[0; 10240]), &Stop::default()).unwrap().entries, 0);
    assert_eq!(Contents::of(&file(&Zip::default().bytes()), &Stop::default()).unwrap().entries, 0);
}

#[test]
fn destination_that_can_only_be_a_directory_is_known() {
    for destination in ["/a/", ".", "./", "..", "a/.", "/"] {
        assert!(names_directory(destination), "{destination}");
    }
    for destination in ["/a", "a.b", "..a"] {
        assert!(!names_directory(destination), "{destination}");
    }
}
