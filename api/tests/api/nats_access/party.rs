//! A client of NATS, and what the server says to it.

use std::time::{Duration, Instant};

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerError};
use ovenbird_contract::nats_access::Role;
use tokio::sync::mpsc;

use crate::world::{SOON, World};

pub(super) struct Party {
    pub(super) client: Client,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Party {
    async fn connect(options: ConnectOptions, url: String) -> Result<Self, ConnectError> {
        let (said, events) = mpsc::unbounded_channel();
        let options = options.event_callback(move |event| {
            let said = said.clone();
            // Nobody listens any more when the test is over.
            async move { drop(said.send(event)) }
        });
        Ok(Self { client: options.connect(url).await?, events })
    }

    /// A process of ours.
    pub(super) async fn role(world: &World, role: Role) -> Self {
        Self::connect(world.role(role), world.nats.url()).await.unwrap()
    }

    /// Whoever holds the key `token`.
    pub(super) async fn customer(world: &World, token: &str) -> Result<Self, ConnectError> {
        Self::connect(ConnectOptions::with_token(token.into()), world.nats.url()).await
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let heard = async {
            loop {
                let event = self.events.recv().await.expect("the client lives");
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    /// The server's next refusal of something that this client did.
    pub(super) async fn refusal(&mut self) -> String {
        let refused = |event: &Event| matches!(event, Event::ServerError(_));
        match self.until("refusal", refused).await {
            Event::ServerError(ServerError::Other(text)) => text,
            other => panic!("{other}"),
        }
    }

    /// Waits until the connection is closed; says how long that took since `begun`.
    pub(super) async fn closed(&mut self, begun: Instant) -> Duration {
        self.until("end of the connection", |event| matches!(event, Event::Disconnected)).await;
        begun.elapsed()
    }

    /// Waits until it is connected once more.
    pub(super) async fn connected(&mut self) {
        self.until("connection", |event| matches!(event, Event::Connected)).await;
    }

    /// The server must refuse a publish, with or without a reply subject.
    pub(super) async fn must_not_publish(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        payload: &str,
    ) {
        let payload = payload.to_owned().into();
        match reply {
            None => self.client.publish(subject.to_owned(), payload).await.unwrap(),
            Some(reply) => {
                let (subject, reply) = (subject.to_owned(), reply.to_owned());
                self.client.publish_with_reply(subject, reply, payload).await.unwrap();
            }
        }
        let text = self.refusal().await;
        let expected = format!("Permissions Violation for Publish to \"{subject}\"");
        assert!(text.contains(&expected), "{subject}: {text}");
    }

    /// The server must refuse a subscription.
    pub(super) async fn must_not_subscribe(&mut self, subject: &str) {
        let subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        println!("{subject}");
        let text = self.refusal().await;
        let expected = format!("Permissions Violation for Subscription to \"{subject}\"");
        assert!(text.contains(&expected), "{subject}: {text}");
        drop(subscription);
    }

    /// Returns when the server has done everything that this client asked so far: it answers in order, and a
    /// customer's publish by a refusal.
    pub(super) async fn caught_up(&mut self) {
        self.must_not_publish("nobody.may", None, "").await;
    }
}

/// The server must not let `token` in.
pub(super) async fn is_refused(world: &World, token: &str) {
    match Party::customer(world, token).await {
        Ok(_) => panic!("{token:?} is let in"),
        Err(error) => assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}"),
    }
}
