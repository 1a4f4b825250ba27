//! Seeds and keys: who runs the processes can read what the documented commands leave, and nobody else; and what Compose
//! is given goes neither into git nor into an image. The commands are run as they are written, in folders of their own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ovenbird_dev::tree;
use serde_json::Value;
use tempfile::TempDir;

use super::read;

const STRANGER: &str = "61235";

/// A folder that everybody may look into, as `/etc` is.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A file as tools write keys.
fn write_key(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "key").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs a line of documentation where `ovenbird-…` are the programs of this tree.
fn shell(line: &str, at: &Path) -> Output {
    let programs = tree::binary("");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-ec", line]).current_dir(at).env("PATH", path).output().unwrap()
}

fn done(line: &str, at: &Path) {
    let output = shell(line, at);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether a process of these ids may read a file that it is handed, wherever that lies.
fn reads(file: &Path, user: &str, groups: &str) -> bool {
    let mut cat = Command::new("setpriv");
    cat.args(["--reuid", user, "--regid", user, "--groups", groups, "--bounding-set", "-all"]);
    cat.arg("cat").arg(file).output().unwrap().status.success()
}

/// What the Compose file binds of the folder `secrets`: service, its image's target, path.
fn handed_on() -> Vec<(String, Option<String>, PathBuf)> {
    let compose: Value = serde_saphyr::from_str(&read("compose.yaml")).unwrap();
    let mut all = Vec::new();
    for (name, service) in compose["services"].as_object().unwrap() {
        let target = service["build"]["target"].as_str().map(str::to_owned);
        let volumes = service["volumes"].as_array().into_iter().flatten();
        let bound = volumes.filter_map(|it| it.as_str()?.split(':').next()?.strip_prefix("./"));
        let secrets = service["secrets"].as_array().into_iter().flatten();
        let files = secrets.map(|it| &compose["secrets"][it.as_str().unwrap()]["file"]);
        let files = files.map(|file| file.as_str().unwrap().strip_prefix("./").unwrap());
        let paths: Vec<&str> = bound.chain(files).collect();
        all.extend(paths.into_iter().map(|path| (name.clone(), target.clone(), path.into())));
    }
    all
}

#[test]
fn what_compose_is_given_is_neither_in_git_nor_in_an_image() {
    let git = fs::read_to_string(tree::root().join(".gitignore")).unwrap();
    let mut given: Vec<PathBuf> = handed_on().into_iter().map(|(.., path)| path).collect();
    assert!(given.len() > 10, "{given:?}");
    given.push(".env".into());
    for (of, text) in [("git", git), ("docker", read("Dockerfile.dockerignore"))] {
        let ignored: Vec<PathBuf> =
            text.lines().filter_map(|line| line.strip_prefix('/')).map(PathBuf::from).collect();
        for path in &given {
            let path = Path::new(".deploy").join(path);
            let is_ignored = path.ancestors().any(|it| ignored.iter().any(|line| line == it));
            assert!(is_ignored, "{} is not ignored by {of}", path.display());
        }
    }
}

#[test]
fn processes_in_containers_can_read_what_compose_hands_on_and_nobody_else_can() {
    let folder = folder();
    let keys =
        ["api", "bridge", "runner", "agent"].map(|of| folder.path().join("secrets/tls").join(of));
    for of in &keys {
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            write_key(&of.join(file));
        }
    }
    let text = read("compose.yaml");
    let commands: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .filter(|line| ["ovenbird-", "chown ", "chmod "].iter().any(|it| line.starts_with(it)))
        .collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in &commands {
        done(command, folder.path());
    }
    let users: Vec<String> = {
        let dockerfile = read("Dockerfile");
        let users = dockerfile.lines().filter_map(|line| line.strip_prefix("USER "));
        users.map(|user| user.split(':').next().unwrap().to_owned()).collect()
    };
    assert_eq!(users.len(), 3);
    let mut seeds = 0;
    for (service, target, path) in handed_on() {
        let path = folder.path().join(path);
        let files = if path.is_dir() {
            ["ca.crt", "tls.crt", "tls.key"].map(|file| path.join(file)).to_vec()
        } else {
            vec![path]
        };
        for file in files {
            assert!(file.is_file(), "{}", file.display());
            // The agent and NATS are root in their containers.
            if target.as_deref().is_some_and(|target| target != "agent") {
                let read = reads(&file, &users[0], &users[0]);
                assert!(read, "{service} cannot read {}", file.display());
            }
            if file.extension().is_some_and(|it| it == "nk" || it == "key") {
                assert!(!reads(&file, STRANGER, STRANGER), "{}", file.display());
                seeds += 1;
            }
        }
    }
    assert!(seeds > 8, "{seeds}");
    // As after an upgrade.
    for command in &commands {
        done(command, folder.path());
    }
}

#[test]
fn units_can_read_what_the_documented_commands_leave_and_nobody_else_can() {
    let folder = folder();
    let etc = folder.path().join("etc");
    let (ours, units) = (etc.join("ovenbird"), etc.join("systemd/system"));
    fs::create_dir_all(&units).unwrap();
    for file in ["api.toml", "tls/api/tls.key"] {
        write_key(&ours.join(file));
    }
    fs::set_permissions(ours.join("tls"), fs::Permissions::from_mode(0o700)).unwrap();
    let readme = fs::read_to_string(tree::root().join("README.md")).unwrap();
    let here = |line: &str| line.replace("/etc/", &format!("{}/", etc.display()));
    let seeds = readme.lines().find(|line| line.starts_with("ovenbird-api nats-access ")).unwrap();
    done(&here(seeds), &tree::root());

    let begin = readme.find("install -D -m 0644 .deploy/systemd/ovenbird.conf").unwrap();
    let block = readme[begin..].split("```").next().unwrap();
    let mut group = String::new();
    for line in block.lines() {
        // This folder has its own groups, and the systemd of this machine is not to hear of it.
        let line = here(line)
            .replace(
                "systemd-sysusers",
                &format!("systemd-sysusers --root={}", folder.path().display()),
            )
            .replace("systemctl daemon-reload", "true")
            .replace("root:ovenbird", &format!("root:{group}"));
        done(&line, &tree::root());
        let groups = fs::read_to_string(etc.join("group")).unwrap();
        let line = groups.lines().find(|line| line.starts_with("ovenbird:")).unwrap();
        line.split(':').nth(2).unwrap().clone_into(&mut group);
    }
    for unit in ["ovenbird-api.service", "ovenbird-bridge.service", "ovenbird-runner@.service"] {
        let text = fs::read_to_string(units.join(unit)).unwrap();
        assert!(text.contains("\nDynamicUser=yes\nSupplementaryGroups=ovenbird\n"), "{unit}");
    }
    let files = ["api.toml", "tls/api/tls.key", "nats/api.nk", "nats/bridge.nk", "nats/runner.nk"];
    for file in files.map(|file| ours.join(file)) {
        assert!(reads(&file, STRANGER, &group), "{}", file.display());
        assert!(!reads(&file, STRANGER, STRANGER), "{}", file.display());
    }
}
