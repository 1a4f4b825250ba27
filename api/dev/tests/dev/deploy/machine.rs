//! The units of systemd, as `systemd-analyze` reads them.

use std::{path::PathBuf, process::Command};

use ovenbird_dev::tree;

use super::deploy;

fn units_of_ours() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(deploy("systemd")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|it| it == "service")).collect()
}

#[test]
fn systemd_understands_every_unit() {
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for path in units_of_ours() {
        let text = std::fs::read_to_string(&path).unwrap();
        // The programs are not installed here; that they are programs of ours is seen by their names.
        let mut adapted = String::new();
        for line in text.lines() {
            let adapted_line = match line.split_once("=/usr/bin/ovenbird-") {
                Some((key, rest)) => {
                    let process = rest.split(' ').next().unwrap();
                    assert!(["api", "bridge", "runner", "agent"].contains(&process), "{line}");
                    format!("{key}=/usr/bin/true {rest}")
                }
                None => line.to_owned(),
            };
            adapted.push_str(&adapted_line);
            adapted.push('\n');
        }
        let unit = folder.path().join(path.file_name().unwrap());
        std::fs::write(&unit, adapted).unwrap();
        units.push(unit);
    }
    assert_eq!(units.len(), 4);
    let verify = |units: &[PathBuf]| {
        let mut analyze = Command::new("systemd-analyze");
        let output = analyze.args(["verify", "--man=no"]).args(units).output();
        output.expect("systemd-analyze, which `cargo dev setup` installs")
    };
    let output = verify(&units);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("ovenbird-")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");

    let broken = folder.path().join("ovenbird-broken.service");
    std::fs::write(&broken, "[Service]\nExecStart=/usr/bin/true\nKillMod=process\n").unwrap();
    let output = verify(&[broken]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("KillMod"), "it finds nothing");
}

#[test]
fn programs_know_the_arguments_that_the_units_give_them() {
    let understands = |program: &str, arguments: &[&str]| {
        // Whatever stands before it is read first.
        let output = Command::new(tree::binary(program)).args(arguments).arg("--help").output();
        output.unwrap().status.success()
    };
    let mut started = 0;
    for unit in units_of_ours() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let commands = text.lines().filter_map(|line| line.strip_prefix("ExecStart"));
        for command in commands.filter_map(|rest| rest.split_once('=')).map(|(_, command)| command)
        {
            let words: Vec<&str> = command.split(' ').collect();
            let program = words[0].strip_prefix("/usr/bin/").unwrap();
            assert!(understands(program, &words[1..]), "{}: {command}", unit.display());
            started += 1;
        }
    }
    assert_eq!(started, 5);
    assert!(!understands("ovenbird-api", &["serve", "--confg", "/etc/ovenbird/api.toml"]));
}
