//! What the host says on the kernel command line.
//!
//! | parameter | meaning |
//! |---|---|
//! | `ovenbird.token=` | 32 hexadecimal digits, required: see `ovenbird_guest_protocol::hello` |
//! | `ovenbird.hostname=` | the host name, `sandbox` when missing |
//! | `ovenbird.dns=` | name servers with commas between, for an image without /etc/resolv.conf |

use std::net::IpAddr;

use ovenbird_guest_protocol::{Token, hello::BadToken};

/// The parameters of this program; the kernel's own are passed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Args {
    pub(super) token: Token,
    pub(super) hostname: String,
    pub(super) dns: Vec<IpAddr>,
}

/// Why the command line cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the kernel command line has no ovenbird.token=")]
    NoToken,
    #[error("ovenbird.token= on the kernel command line")]
    Token(#[from] BadToken),
    #[error("ovenbird.dns= on the kernel command line: {0:?} is no address")]
    Dns(String),
}

impl Args {
    pub(super) fn parse(line: &str) -> Result<Self, Error> {
        let value = |key: &str| {
            line.split_ascii_whitespace()
                .filter_map(|word| word.strip_prefix("ovenbird."))
                .filter_map(|word| word.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        let token = Token::from_hex(value("token").ok_or(Error::NoToken)?)?;
        let dns = value("dns")
            .unwrap_or("1.1.1.1,8.8.8.8")
            .split(',')
            .map(|server| server.parse().map_err(|_| Error::Dns(server.to_owned())))
            .collect::<Result<_, _>>()?;
        let hostname = value("hostname").filter(|name| !name.is_empty()).unwrap_or("sandbox");
        Ok(Self { token, hostname: hostname.to_owned(), dns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "ovenbird.token=000102030405060708090a0b0c0d0e0f";

    #[test]
    fn parameters_are_found_among_those_of_the_kernel() {
        let line =
            format!("console=ttyS0 quiet {TOKEN} ovenbird.dns=9.9.9.9,::1 ovenbird.hostname=a\n");
        let args = Args::parse(&line).unwrap();
        assert_eq!(args.token.to_hex(), "000102030405060708090a0b0c0d0e0f");
        assert_eq!(args.hostname, "a");
        assert_eq!(args.dns, ["9.9.9.9".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }

    #[test]
    fn everything_but_the_token_has_a_default() {
        let args = Args::parse(TOKEN).unwrap();
        assert_eq!(args.hostname, "sandbox");
        assert_eq!(args.dns.len(), 2);
    }

    #[test]
    fn missing_or_broken_token_is_said() {
        assert_eq!(Args::parse("quiet"), Err(Error::NoToken));
        assert_eq!(Args::parse("ovenbird.token=12"), Err(Error::Token(BadToken)));
        let line = format!("{TOKEN} ovenbird.dns=here");
        assert_eq!(Args::parse(&line), Err(Error::Dns("here".into())));
    }
}
