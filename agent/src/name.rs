//! Names that callers give: of sandboxes and of templates. They become names of files.

use std::fmt;

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`: never hidden, never a path.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    first && text.len() <= 128 && bytes.all(known)
}

/// A text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 1 to 128 characters of A-Z a-z 0-9 . _ - and begin with a letter or digit")]
pub struct Invalid {
    what: &'static str,
}

/// Names a template, image or snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateName(String);

/// Names a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(String);

impl TemplateName {
    /// Checks a caller's text.
    ///
    /// # Errors
    /// When it is no name.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let what = "a template's name";
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(Invalid { what }) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SandboxId {
    /// Checks a caller's text.
    ///
    /// # Errors
    /// When it is no name.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let what = "a sandbox's id";
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(Invalid { what }) }
    }

    /// A new id, for a caller that gives none.
    pub fn generate() -> Self {
        Self(format!("sbx-{}", uuid::Uuid::now_v7().simple()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_paths() {
        for good in ["a", "minimal", "tpl_01jz", "A.b-c_d", &"x".repeat(128)] {
            assert!(TemplateName::new(good).is_ok(), "{good}");
        }
        let bad = ["", ".", "..", "../x", "a/b", "/a", ".a", "-a", "a\0", "a b", "ä"];
        for bad in bad.into_iter().chain([&*"x".repeat(129)]) {
            assert!(TemplateName::new(bad).is_err(), "{bad:?}");
            assert!(SandboxId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generated_ids_are_names() {
        assert!(SandboxId::new(SandboxId::generate().as_str()).is_ok());
    }
}
