//! The part of a nats-server's configuration that says who may do what. It holds public keys only, and goes
//! into the server's own file by `include`; where the server listens, TLS and its store are said there.

use serde_json::{Value, json};

use super::{Account, CALLOUT_TIMEOUT, Permissions, Role};
use crate::nats::Names;

/// Customers' connections at the same time.
const CONNECTIONS_MAX: u32 = 10_000;
/// Subscriptions of one customer's connection.
const SUBSCRIPTIONS_MAX: u32 = 2_048;
/// A customer publishes nothing: what it sends need not be read to its end.
const PAYLOAD_MAX: u32 = 1_024;

/// One of our processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What it is.
    pub role: Role,
    /// Its public nkey, `U…`.
    pub nkey: String,
}

/// The accounts and their users, as text. `issuer` is the public nkey, `A…`, of whoever signs the answers to the
/// server's questions. Several users of one role are allowed: an nkey is changed by adding the new one first.
pub fn config(names: &Names, issuer: &str, users: &[User]) -> String {
    let users_of = |account: Account| -> Vec<Value> {
        users
            .iter()
            .filter(|user| user.role.account() == account)
            .map(|user| user_entry(user, names))
            .collect()
    };
    let shared = names.read_by_customers();
    let app = Account::App.as_str();
    let accounts = json!({
        Account::System.as_str(): { "users": users_of(Account::System) },
        Account::Auth.as_str(): { "users": users_of(Account::Auth) },
        app: {
            "jetstream": "enabled",
            "users": users_of(Account::App),
            "exports": shared.each_ref().map(|subject| {
                json!({ "stream": subject, "accounts": [Account::Readers.as_str()] })
            }),
        },
        Account::Readers.as_str(): {
            "imports": shared.each_ref().map(|subject| {
                json!({ "stream": { "account": app, "subject": subject } })
            }),
            "limits": {
                "max_connections": CONNECTIONS_MAX,
                "max_subscriptions": SUBSCRIPTIONS_MAX,
                "max_payload": PAYLOAD_MAX,
            },
        },
    });
    let nkeys: Vec<&str> = users.iter().map(|user| user.nkey.as_str()).collect();
    let authorization = json!({
        "timeout": CALLOUT_TIMEOUT.as_secs(),
        "auth_callout": {
            "issuer": issuer,
            "account": Account::Auth.as_str(),
            // Those who are not asked for: a callout that is down must not keep our own processes out.
            "auth_users": nkeys,
        },
    });
    format!(
        "# Written by `ovenbird-api nats-access`. Public keys only.\naccounts: {accounts:#}\n\
         system_account: {:?}\nauthorization: {authorization:#}\n",
        Account::System.as_str()
    )
}

fn user_entry(user: &User, names: &Names) -> Value {
    let Permissions { publish, publish_denied, subscribe, answer_within } =
        user.role.permissions(names);
    let mut permissions = json!({
        "publish": { "allow": publish, "deny": publish_denied },
        "subscribe": { "allow": subscribe },
    });
    if let Some(within) = answer_within {
        permissions["allow_responses"] =
            json!({ "max": 1, "expires": format!("{}s", within.as_secs()) });
    }
    json!({
        "nkey": user.nkey,
        "allowed_connection_types": ["STANDARD"],
        "permissions": permissions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_the_reviewed_one() {
        let users = [Role::Runner, Role::Callout, Role::Revoker]
            .map(|role| User { role, nkey: format!("U{}", role.as_str().to_uppercase()) });
        insta::assert_snapshot!(config(&Names::default(), "AISSUER", &users));
    }
}
