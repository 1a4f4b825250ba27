//! Who may do what on NATS: the accounts, what each of our processes may publish and hear, and what a
//! customer may hear. The one place where these lists stand; [`server`] makes the server's configuration of
//! them.
//!
//! ```text
//!  SYS      revoker ───────── finds and closes customers' connections
//!  AUTH     callout ───────── is asked by the server who a client without nkey is
//!  APP      api, bridge, runner: every subject and stream
//!    │ logs.*, events.build.*
//!    ▼ (import)
//!  READERS  customers: subscribe, publish nothing
//! ```
//!
//! A list is as narrow as its process allows: a runner that was taken over can neither make jobs nor read what
//! others ask of JetStream. Inside of APP a crafted reply subject goes further than a list says, because the server
//! and the bridge answer to it; that is why customers have an account of their own, and no right to publish.

pub mod server;

use std::time::Duration;

use crate::{
    desk::HEAR,
    id::BuildId,
    nats::{CONTROL_QUEUE, DESK_QUEUE, LEDGER_DURABLE, Names},
};

/// Where the server asks who a client is.
pub const CALLOUT_SUBJECT: &str = "$SYS.REQ.USER.AUTH";
/// Queue group of those that answer.
pub const CALLOUT_QUEUE: &str = "callout";
/// The server refuses a client when it has no answer after this long.
pub const CALLOUT_TIMEOUT: Duration = Duration::from_secs(2);
/// The answer to a request may be published for this long: a finish waits at the desk for the ledger.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An account. Nothing passes from one to another but what READERS imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// The server's own account.
    System,
    /// Whoever answers the server's questions: they hold the clients' keys in clear.
    Auth,
    /// Our processes.
    App,
    /// Customers.
    Readers,
}

impl Account {
    /// Its name in the server's configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "SYS",
            Self::Auth => "AUTH",
            Self::App => "APP",
            Self::Readers => "READERS",
        }
    }
}

/// Who has an nkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The REST API.
    Api,
    /// The bridges.
    Bridge,
    /// The runners.
    Runner,
    /// The part of the api that the server asks who a client is.
    Callout,
    /// The part of the api that closes the connections of keys that ended.
    Revoker,
    /// An operator's tools and the benches, where there are any: everything in APP.
    Tools,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Api, Self::Bridge, Self::Runner, Self::Callout, Self::Revoker, Self::Tools];

    /// Its word in file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Bridge => "bridge",
            Self::Runner => "runner",
            Self::Callout => "callout",
            Self::Revoker => "revoker",
            Self::Tools => "tools",
        }
    }

    /// Where it is.
    pub const fn account(self) -> Account {
        match self {
            Self::Api | Self::Bridge | Self::Runner | Self::Tools => Account::App,
            Self::Callout => Account::Auth,
            Self::Revoker => Account::System,
        }
    }

    /// What the subjects on which it gets answers begin with: nobody of another role hears them.
    pub const fn inbox_prefix(self) -> &'static str {
        match self {
            Self::Api => "_INBOX_api",
            Self::Bridge => "_INBOX_bridge",
            Self::Runner => "_INBOX_runner",
            Self::Callout => "_INBOX_callout",
            Self::Revoker => "_INBOX_revoker",
            Self::Tools => "_INBOX_tools",
        }
    }

    /// What it may do.
    pub fn permissions(self, names: &Names) -> Permissions {
        let mut permissions = match self {
            Self::Api => api(names),
            Self::Bridge => bridge(names),
            Self::Runner => runner(names),
            Self::Callout => Permissions {
                subscribe: vec![queue(CALLOUT_SUBJECT, CALLOUT_QUEUE)],
                answer_within: Some(CALLOUT_TIMEOUT),
                ..Permissions::default()
            },
            Self::Revoker => Permissions {
                publish: texts(["$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.SERVER.*.KICK"]),
                subscribe: ["CONNECT", "DISCONNECT"].map(customers).to_vec(),
                ..Permissions::default()
            },
            Self::Tools => {
                let everything = || texts([">"]);
                return Permissions {
                    publish: everything(),
                    subscribe: everything(),
                    ..Permissions::default()
                };
            }
        };
        permissions.subscribe.push(format!("{}.>", self.inbox_prefix()));
        permissions
    }
}

/// What a user may publish and hear; nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects that it may publish to.
    pub publish: Vec<String>,
    /// Subjects of these that it may not.
    pub publish_denied: Vec<String>,
    /// Subjects that it may subscribe to; a queue group stands after a space.
    pub subscribe: Vec<String>,
    /// It may answer each request once, for this long, wherever the answer goes.
    pub answer_within: Option<Duration>,
}

/// What a customer may subscribe to: the logs and events of these builds; `None` for all builds.
pub fn reader_subjects(names: &Names, builds: Option<&[BuildId]>) -> Vec<String> {
    match builds {
        None => names.read_by_customers().to_vec(),
        Some(builds) => {
            builds.iter().flat_map(|build| [names.logs(build), names.events(build)]).collect()
        }
    }
}

/// The server tells here which customers come and go: `CONNECT`, `DISCONNECT`.
pub fn customers(event: &str) -> String {
    format!("$SYS.ACCOUNT.{}.{event}", Account::Readers.as_str())
}

fn api(names: &Names) -> Permissions {
    let (contexts, bucket) = contexts(names);
    let mut publish = vec![names.control_all(), js("INFO")];
    let mut publish_denied = Vec::new();
    for (stream, subjects) in [
        (names.logs_stream().name, names.logs_all()),
        (names.events_stream().name, names.events_all()),
    ] {
        // A reader of one log: a consumer that ends by itself. With its name in the subject, because a request
        // that names it inside could name, and so rewrite, the ledger's.
        publish.push(js(&format!("CONSUMER.CREATE.{stream}.*.{subjects}")));
        publish.push(js(&format!("CONSUMER.MSG.NEXT.{stream}.*")));
        publish.push(js(&format!("CONSUMER.DELETE.{stream}.*")));
        publish.push(js(&format!("STREAM.MSG.GET.{stream}")));
        for (verb, rest) in [("CREATE", ".>"), ("MSG.NEXT", ""), ("DELETE", "")] {
            publish_denied.push(js(&format!("CONSUMER.{verb}.{stream}.{LEDGER_DURABLE}{rest}")));
        }
    }
    // How many runners wait there.
    for lane in names.runners_consumers() {
        publish.push(js(&format!("CONSUMER.INFO.{}.{}", lane.stream, lane.durable)));
    }
    publish.push(js(&format!("STREAM.INFO.{contexts}")));
    publish.push(js(&format!("DIRECT.GET.{contexts}.$O.{bucket}.M.*")));
    publish.push(js(&format!("STREAM.PURGE.{contexts}")));
    publish.push(format!("$O.{bucket}.C.*"));
    publish.push(format!("$O.{bucket}.M.*"));
    // The events are those of the dashboard.
    let subscribe = vec![names.logs_all(), names.events_all()];
    Permissions { publish, publish_denied, subscribe, answer_within: None }
}

fn bridge(names: &Names) -> Permissions {
    let (contexts, bucket) = contexts(names);
    let builds = names.builds_stream().name;
    let [logs, events] = [names.logs_stream().name, names.events_stream().name];
    let mut publish =
        vec![names.builds("*"), names.logs_all(), names.events_all(), names.desk(HEAR)];
    for stream in [&builds, &logs, &events, &contexts] {
        publish.extend(
            ["CREATE", "UPDATE", "INFO"].map(|verb| js(&format!("STREAM.{verb}.{stream}"))),
        );
    }
    // Contexts that nobody needs go.
    publish.push(js(&format!("DIRECT.GET.{contexts}.$O.{bucket}.>")));
    publish.push(js(&format!("STREAM.PURGE.{contexts}")));
    for consumer in names.runners_consumers().into_iter().chain(names.ledger_consumers()) {
        let name = format!("{}.{}", consumer.stream, consumer.durable);
        let filtered = consumer.subject.map(|subject| format!("{name}.{subject}"));
        publish.push(js(&format!("CONSUMER.CREATE.{}", filtered.as_deref().unwrap_or(&name))));
        publish.push(js(&format!("CONSUMER.INFO.{name}")));
    }
    // Whether a job is still there.
    publish.push(js(&format!("STREAM.MSG.GET.{builds}")));
    for stream in [&logs, &events] {
        publish.push(js(&format!("STREAM.MSG.GET.{stream}")));
        publish.push(js(&format!("CONSUMER.MSG.NEXT.{stream}.{LEDGER_DURABLE}")));
        publish.push(format!("$JS.ACK.{stream}.{LEDGER_DURABLE}.>"));
    }
    let subscribe = vec![
        queue(&names.desk("*"), DESK_QUEUE),
        queue(&names.control_all(), CONTROL_QUEUE),
        // The desk is a NATS service: tools may ask what it does.
        "$SRV.>".into(),
    ];
    let answer_within = Some(ANSWER_WITHIN);
    Permissions { publish, publish_denied: Vec::new(), subscribe, answer_within }
}

fn runner(names: &Names) -> Permissions {
    let (contexts, bucket) = contexts(names);
    let logs = names.logs_stream().name;
    let lanes = names.runners_consumers().map(|lane| format!("{}.{}", lane.stream, lane.durable));
    let mut publish: Vec<String> = lanes
        .iter()
        .flat_map(|lane| {
            ["INFO", "MSG.NEXT"]
                .map(|verb| js(&format!("CONSUMER.{verb}.{lane}")))
                .into_iter()
                .chain([format!("$JS.ACK.{lane}.>")])
        })
        .collect();
    publish.extend([
        names.logs_all(),
        names.events_all(),
        names.desk("*"),
        // Whether its own last line is in the log.
        js(&format!("STREAM.MSG.GET.{logs}")),
        js(&format!("STREAM.INFO.{contexts}")),
        js(&format!("DIRECT.GET.{contexts}.$O.{bucket}.M.*")),
        // Without the right to make it the client reads no byte, and says that all is well.
        js(&format!("CONSUMER.CREATE.{contexts}")),
        js(&format!("CONSUMER.DELETE.{contexts}.*")),
        format!("$JS.FC.{contexts}.>"),
    ]);
    let subscribe = vec![names.control_all()];
    Permissions { publish, publish_denied: Vec::new(), subscribe, answer_within: None }
}

/// The object store of COPY contexts: its stream and its bucket.
fn contexts(names: &Names) -> (String, String) {
    (names.contexts_stream().name, names.contexts_bucket())
}

fn js(call: &str) -> String {
    format!("$JS.API.{call}")
}

fn queue(subject: &str, group: &str) -> String {
    format!("{subject} {group}")
}

fn texts<const N: usize>(subjects: [&str; N]) -> Vec<String> {
    subjects.map(String::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_every_role_are_the_reviewed_ones() {
        let names = Names::default();
        let lists: Vec<_> = Role::ALL.map(|role| (role, role.permissions(&names))).to_vec();
        insta::assert_debug_snapshot!(lists);
    }

    #[test]
    fn customer_hears_all_builds_or_exactly_its_own() {
        let names = Names::default();
        assert_eq!(
            reader_subjects(&names, None),
            ["ovenbird.logs.*", "ovenbird.events.build.*"].map(String::from)
        );
        let build: BuildId = "bld_01h455vb4pex5vsknk084sn02q".parse().expect("valid");
        assert_eq!(
            reader_subjects(&names, Some(&[build])),
            [format!("ovenbird.logs.{build}"), format!("ovenbird.events.build.{build}")]
        );
    }
}
