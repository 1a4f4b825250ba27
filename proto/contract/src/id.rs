//! Typed ids: a prefix and a UUIDv7 in base32 (TypeID), so that an id says what it names and sorts by
//! the time it was made. Postgres keeps the bare `uuid`; every other place the text.

use type_safe_id::{StaticType, TypeSafeId};

macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident, $kind:ident, $prefix:literal;)+) => {$(
        #[doc = concat!("The kind behind [`", stringify!($id), "`].")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $kind;
        impl StaticType for $kind {
            const TYPE: &'static str = $prefix;
        }
        $(#[$doc])*
        pub type $id = TypeSafeId<$kind>;
    )+};
}

ids! {
    /// A build: `bld_…`.
    BuildId, Build, "bld";
    /// One version of a template: `tpl_…`. Also its name on the hosts, so that versions never collide.
    TemplateId, Template, "tpl";
    /// A sandbox: `sbx_…`.
    SandboxId, Sandbox, "sbx";
    /// A host: `hst_…`.
    HostId, Host, "hst";
    /// An API key: `key_…`. Not the secret.
    KeyId, Key, "key";
    /// One runner process: `run_…`, new at each start.
    RunnerId, Runner, "run";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_of_another_kind_is_refused() {
        let build = BuildId::new();
        assert_eq!(build.to_string().parse::<BuildId>().expect("own text parses"), build);
        assert!(build.to_string().parse::<TemplateId>().is_err());
    }

    #[test]
    fn uuid_and_text_name_the_same_id() {
        let build = BuildId::new();
        assert_eq!(BuildId::from_uuid(build.uuid()), build);
    }
}
