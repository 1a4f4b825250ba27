//! Paths in a sandbox: absolute, and without a way up, so that nobody has to know what one means.

use crate::app::Problem;

const PATH_MAX: usize = 4095;

/// Refuses what is no plain absolute path.
pub(super) fn check(field: &str, path: &str) -> Result<(), Problem> {
    let problem = |message| Err(Problem::new(field, "bad_path", message));
    match path {
        _ if !path.starts_with('/') => problem("must be absolute: begin it with /"),
        _ if path.contains('\0') => problem("must not contain NUL"),
        _ if path.len() > PATH_MAX => problem("must have 4095 bytes at most"),
        _ if path.split('/').any(|part| part == "..") => problem("must not contain .."),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_pass() {
        for good in ["/", "/a", "/a/b/", "/a//b", "/...", "/..a/b..", "/a b\n", "/\u{e4}"] {
            assert_eq!(check("path", good), Ok(()), "{good:?}");
        }
        let long = format!("/{}", "a".repeat(PATH_MAX));
        for bad in ["", "a", "./a", "..", "/..", "/a/../b", "/a/..", "../a", "/a\0b", &long] {
            let problem = check("path", bad).unwrap_err();
            assert_eq!((&*problem.field, &*problem.code), ("path", "bad_path"), "{bad:?}");
        }
    }
}
