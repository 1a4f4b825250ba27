//! The shell scripts behind `WORKDIR` and `USER`, run in the guest as root by its `/bin/sh`.
//!
//! What the recipe says reaches them as positional parameters only, never as text of the script.

use ovenbird_agent_client::Command;

/// Makes the directory `$1`. What is missing of the path is made by root and then given to the user `$2`, so
/// that later steps can write there; what exists keeps its owner.
const DIRECTORY: &str = r#"
set -eu
if [ -d "$1" ]; then exit 0; fi
top=$1
while parent=$(dirname -- "$top"); [ ! -d "$parent" ]; do top=$parent; done
mkdir -p -- "$1"
if [ -n "$2" ]; then chown -R -- "$2:" "$top"; fi
"#;

/// Makes the user `$1` with a home directory and a group of the same name; one that exists stays as it is.
/// With `$2` = sudo the user may become root by sudo without a password, where sudo is installed.
const USER: &str = r#"
set -eu
if ! id -u "$1" >/dev/null 2>&1; then
    shell=/bin/sh
    if [ -x /bin/bash ]; then shell=/bin/bash; fi
    if command -v useradd >/dev/null 2>&1; then
        if grep -q "^$1:" /etc/group; then
            useradd -m -s "$shell" -g "$1" "$1"
        else
            useradd -m -s "$shell" -U "$1"
        fi
    elif adduser --help 2>&1 | grep -qi busybox; then
        adduser -D -s "$shell" "$1"
    elif command -v adduser >/dev/null 2>&1; then
        adduser --disabled-password --gecos '' --shell "$shell" "$1"
    else
        echo "the image has neither useradd nor adduser" >&2
        exit 1
    fi
fi
if [ "$2" = sudo ]; then
    if command -v sudo >/dev/null 2>&1; then
        mkdir -p /etc/sudoers.d
        printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$1" > "/etc/sudoers.d/ovenbird-$1"
        chmod 0440 "/etc/sudoers.d/ovenbird-$1"
    else
        echo "sudo is not installed, so --sudo has no effect" >&2
    fi
fi
"#;

/// Makes `path` for `user`.
pub(super) fn directory(path: &str, user: Option<&str>) -> Command {
    script(DIRECTORY, [path, user.unwrap_or_default()])
}

/// Makes the user `name`.
pub(super) fn user(name: &str, sudo: bool) -> Command {
    script(USER, [name, if sudo { "sudo" } else { "" }])
}

fn script(text: &str, parameters: [&str; 2]) -> Command {
    let mut command = Command::shell(text);
    command.args.push("sh".into());
    command.args.extend(parameters.map(str::to_owned));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &Command) -> std::process::Output {
        std::process::Command::new(&command.cmd).args(&command.args).output().unwrap()
    }

    #[test]
    fn directory_with_any_name_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("-a $(id) 'b'/\"c\"");
        let command = directory(path.to_str().unwrap(), None);
        for _ in 0..2 {
            let output = run(&command);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(path.is_dir());
    }

    #[test]
    fn user_that_exists_is_left_alone() {
        let output = run(&user("root", false));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
