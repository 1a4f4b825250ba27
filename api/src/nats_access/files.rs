//! What an installation's NATS needs: a seed for each of our processes, and the part of the server's configuration
//! that names them. Seeds that are there are kept, so that a new version of the lists is written by the same command.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nkeys::KeyPair;
use ovenbird_contract::{
    nats::Names,
    nats_access::{
        Role,
        server::{self, User},
    },
};
use ovenbird_kit::{Secret, secret};

/// The server's part: `include` names it in the server's own configuration.
pub const SERVER_CONFIG: &str = "access.conf";
const ISSUER: &str = "issuer";

/// The files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or a file.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A seed that is there.
    #[error("a seed that is there cannot be read")]
    Read(#[from] secret::Error),
    /// A file that holds no seed, or one of another kind.
    #[error("{} holds no usable seed", path.display())]
    Seed {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: nkeys::error::Error,
    },
}

/// Where the seed of a role is.
pub fn seed(dir: &Path, role: Role) -> PathBuf {
    dir.join(format!("{}.nk", role.as_str()))
}

/// Where the seed of whoever signs is.
pub fn issuer(dir: &Path) -> PathBuf {
    dir.join(format!("{ISSUER}.nk"))
}

/// Writes `<role>.nk` for each role, `issuer.nk` and [`SERVER_CONFIG`] to `dir`. `tools` adds a user that may do
/// everything with builds, for an operator's tools.
///
/// # Errors
/// Names the file; what was written before stays, and is kept the next time.
pub fn write(dir: &Path, names: &Names, tools: bool) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::Write { path: dir.into(), source })?;
    let issuer = public(&issuer(dir), KeyPair::new_account)?;
    let roles = Role::ALL.into_iter().filter(|role| tools || *role != Role::Tools);
    let users = roles.map(|role| {
        let nkey = public(&seed(dir, role), KeyPair::new_user)?;
        Ok(User { role, nkey })
    });
    let users = users.collect::<Result<Vec<_>, Error>>()?;
    let path = dir.join(SERVER_CONFIG);
    fs::write(&path, server::config(names, &issuer, &users))
        .map_err(|source| Error::Write { path, source })
}

/// The public key of the seed in `path`, which is made when it is not there.
fn public(path: &Path, make: fn() -> KeyPair) -> Result<String, Error> {
    let unusable = |source| Error::Seed { path: path.into(), source };
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let pair = match opened {
        Ok(mut file) => {
            let pair = make();
            let seed = pair.seed().map_err(unusable)?;
            writeln!(file, "{seed}")
                .map_err(|source| Error::Write { path: path.into(), source })?;
            pair
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            KeyPair::from_seed(Secret::read(path)?.expose()).map_err(unusable)?
        }
        Err(source) => return Err(Error::Write { path: path.into(), source }),
    };
    Ok(pair.public_key())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ovenbird_testkit::Folder;

    use super::*;

    #[test]
    fn seeds_are_their_owners_alone_stay_as_they_are_and_stand_nowhere_else() {
        let folder = Folder::new("nats-access").unwrap();
        let dir = folder.join("nats");
        write(&dir, &Names::default(), false).unwrap();
        let config = fs::read_to_string(dir.join(SERVER_CONFIG)).unwrap();
        assert!(!seed(&dir, Role::Tools).exists());
        let mut seeds = vec![issuer(&dir)];
        seeds.extend(Role::ALL[..5].iter().map(|role| seed(&dir, *role)));
        for path in &seeds {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            let text = fs::read_to_string(path).unwrap();
            assert!(!config.contains(text.trim()));
            assert!(config.contains(&KeyPair::from_seed(text.trim()).unwrap().public_key()));
        }
        write(&dir, &Names::default(), false).unwrap();
        assert_eq!(fs::read_to_string(dir.join(SERVER_CONFIG)).unwrap(), config);
        fs::write(issuer(&dir), "hunter2").unwrap();
        let error = write(&dir, &Names::default(), true).unwrap_err();
        assert!(
            error.to_string().contains("issuer.nk") && !format!("{error:?}").contains("hunter2")
        );
    }
}
