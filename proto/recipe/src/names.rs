//! Which names the language takes: variables, users, owners, secrets, paths.

use crate::{
    limits::{PATH_BYTES_MAX, SECRET_NAME_MAX, USER_NAME_MAX},
    plan::Owner,
};

/// Whether `name` is one that `USER` takes: `[a-z_][a-z0-9_-]{0,31}`, as `useradd` has it.
///
/// A name with variables can only be checked after they are expanded.
pub fn user_name_is_valid(name: &str) -> bool {
    name.len() <= USER_NAME_MAX
        && name.starts_with(|c: char| c == '_' || c.is_ascii_lowercase())
        && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
}

/// Whether `path` stays within the context's root: relative, and no `..` leads out of it.
///
/// A path with variables must be checked again after they are expanded.
pub fn context_path_is_valid(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    !path.starts_with('/') && path_is_valid(path)
}

pub(crate) fn path_is_valid(path: &str) -> bool {
    !path.is_empty() && path.len() <= PATH_BYTES_MAX
}

pub(crate) fn variable_is_valid(name: &str) -> bool {
    name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

pub(crate) fn secret_is_valid(name: &str) -> bool {
    name.len() <= SECRET_NAME_MAX && variable_is_valid(name)
}

/// `user` or `user:group`, each a name or a number.
pub(crate) fn owner(text: &str) -> Option<Owner> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let valid = [Some(user), group].into_iter().flatten().all(|name| {
        user_name_is_valid(name) || number(name).is_some_and(|id| id.to_string() == name)
    });
    valid.then(|| Owner { user: user.to_owned(), group: group.map(str::to_owned) })
}

/// A user's or group's number; the last one means "no change" to Linux.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_are_those_useradd_makes() {
        for name in ["root", "_apt", "www-data", "u1", &"a".repeat(32)] {
            assert!(user_name_is_valid(name), "{name}");
        }
        for name in ["", "1a", "-a", "Root", "a.b", "a:b", "ä", &"a".repeat(33)] {
            assert!(!user_name_is_valid(name), "{name}");
        }
    }

    #[test]
    fn context_path_cannot_lead_out_of_the_context() {
        for path in [".", "a", "./a/../b", "a/..", "a//b/"] {
            assert!(context_path_is_valid(path), "{path}");
        }
        for path in ["", "/a", "..", "a/../..", "a/../../b"] {
            assert!(!context_path_is_valid(path), "{path}");
        }
    }

    #[test]
    fn owner_is_a_name_or_number_with_or_without_group() {
        for text in ["app", "app:www-data", "0:0", "1000", "4294967294"] {
            assert!(owner(text).is_some(), "{text}");
        }
        for text in ["", ":", "app:", ":app", "a:b:c", "+5", "007", "4294967295", "$U"] {
            assert_eq!(owner(text), None, "{text}");
        }
    }
}
