//! The units of systemd, as `systemd-analyze` reads them.

use std::process::Command;

use super::deploy;

#[test]
fn systemd_understands_every_unit() {
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in std::fs::read_dir(deploy("systemd")).unwrap() {
        let path = entry.unwrap().path();
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
    let verify = |units: &[std::path::PathBuf]| {
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output()
    };
    let Ok(output) = verify(&units) else {
        eprintln!("systemd-analyze is not at hand: the units are not verified");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("ovenbird-")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");

    let broken = folder.path().join("ovenbird-broken.service");
    std::fs::write(&broken, "[Service]\nExecStart=/usr/bin/true\nKillMod=process\n").unwrap();
    let output = verify(&[broken]).unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("KillMod"), "it finds nothing");
}
