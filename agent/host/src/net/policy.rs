//! What one sandbox may reach, and how fast. Pure: what becomes of it in the kernel is in `rules` and `shaping`.
//!
//! | comes first | is |
//! |---|---|
//! | an entry of `deny` | refused |
//! | port 53 of a name server of this host | let through |
//! | this host, other sandboxes, link-local (metadata), multicast, reserved | refused |
//! | an entry of `allow` that lies in a private range | let through |
//! | private ranges | refused |
//! | an entry of `allow` | let through |
//! | ports 53 (TCP and UDP), 80 and 443 (TCP) | let through |
//! | anything else | refused |

use serde::{Deserialize, Serialize};

use super::Target;

/// Entries of one list.
pub const ENTRIES_MAX: usize = 64;
/// The slowest and the fastest limit, in kbit/s: below, not even DNS works.
pub const BANDWIDTH_KBIT: std::ops::RangeInclusive<u32> = 64..=10_000_000;

/// See the module. The default is what a sandbox gets whose creator says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Is let through besides the usual.
    pub allow: Vec<Target>,
    /// Is refused, whatever else lets it through.
    pub deny: Vec<Target>,
    /// The limit in each direction, in kbit/s; 0: none.
    pub bandwidth_kbit: u32,
}

/// A policy that this host does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too long a list.
    #[error("the {0} list has more than {ENTRIES_MAX} entries")]
    TooMany(&'static str),
    /// It asks for what no list opens.
    #[error("{0} lies in a range that is never reachable, so it cannot be allowed")]
    Never(Target),
    /// It asks for what this host's operator does not open.
    #[error("{0} lies in a private range, and this host opens none (egress_private is off)")]
    Private(Target),
    /// A limit out of bounds.
    #[error("a bandwidth of {0} kbit/s is not possible: from 64 to 10000000")]
    Bandwidth(u32),
}

impl Policy {
    /// Whether this host takes it. `private`: whether entries may open private ranges here.
    ///
    /// # Errors
    /// Names the entry.
    pub fn check(&self, private: bool) -> Result<(), Refused> {
        for (list, entries) in [("allow", &self.allow), ("deny", &self.deny)] {
            if entries.len() > ENTRIES_MAX {
                return Err(Refused::TooMany(list));
            }
        }
        if let Some(target) = self.allow.iter().find(|target| target.is_never()) {
            return Err(Refused::Never(*target));
        }
        if let Some(target) = self.allow.iter().find(|target| !private && target.is_private()) {
            return Err(Refused::Private(*target));
        }
        match self.bandwidth_kbit {
            0 => Ok(()),
            kbit if BANDWIDTH_KBIT.contains(&kbit) => Ok(()),
            kbit => Err(Refused::Bandwidth(kbit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(entries: &[&str]) -> Policy {
        let allow = entries.iter().map(|entry| entry.parse().unwrap()).collect();
        Policy { allow, ..Policy::default() }
    }

    #[test]
    fn private_ranges_open_only_where_the_operator_says_so_and_the_host_never() {
        let private = allow(&["203.0.113.7:22", "10.1.2.3:5432/tcp"]);
        assert!(private.check(false).unwrap_err().to_string().contains("10.1.2.3:5432/tcp"));
        private.check(true).unwrap();
        for never in ["169.254.169.254:80/tcp", "127.0.0.1"] {
            let error = allow(&[never]).check(true).unwrap_err();
            assert!(error.to_string().contains(never), "{error}");
        }
        allow(&["0.0.0.0/0:22/tcp"]).check(false).unwrap();
        let deny = Policy { deny: private.allow, ..Policy::default() };
        deny.check(false).unwrap();
    }

    #[test]
    fn lists_and_limits_have_bounds() {
        allow(&["8.8.8.8"; ENTRIES_MAX]).check(false).unwrap();
        assert!(allow(&["8.8.8.8"; ENTRIES_MAX + 1]).check(false).is_err());
        for (kbit, fits) in
            [(0, true), (63, false), (64, true), (10_000_000, true), (u32::MAX, false)]
        {
            let policy = Policy { bandwidth_kbit: kbit, ..Policy::default() };
            assert_eq!(policy.check(false).is_ok(), fits, "{kbit}");
        }
    }

    #[test]
    fn journalled_policy_reads_back_and_may_lack_what_is_new() {
        let policy = Policy { bandwidth_kbit: 1000, ..allow(&["203.0.113.0/24:22/tcp"]) };
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), Policy::default());
    }
}
