//! Answers the server's question who a client is. One task for each question, because a look-up that is slow must not
//! hold up the others; their number is bounded, and further questions wait in the subscription. A question that
//! cannot be decided is answered with a refusal: the client learns at once that it should come again.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Message};
use chrono::Utc;
use futures::StreamExt as _;
use nkeys::KeyPair;
use ovenbird_contract::{
    nats::Names,
    nats_access::{CALLOUT_QUEUE, CALLOUT_SUBJECT, CALLOUT_TIMEOUT, reader_subjects},
};
use ovenbird_kit::telemetry::chain;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    guests::{Guests, Refused},
    jwt::{self, Guest, Question},
};
use crate::{
    app::{App, Error, rate::Bucket},
    config::NatsAccess,
};

/// The server gives up a little later.
const DECIDE_WITHIN: Duration = CALLOUT_TIMEOUT.saturating_sub(Duration::from_millis(500));
/// Between two attempts to subscribe.
const RETRY: Duration = Duration::from_secs(1);

/// Answers the server's questions.
pub(super) struct Callout {
    client: Client,
    permits: Arc<Semaphore>,
    desk: Arc<Decider>,
}

struct Decider {
    issuer: KeyPair,
    names: Names,
    app: Arc<App>,
    guests: Arc<Guests>,
    settings: NatsAccess,
}

impl Callout {
    /// Answers over `client`, by tokens that `issuer` signs.
    pub(super) fn new(
        client: Client,
        issuer: KeyPair,
        names: Names,
        app: Arc<App>,
        guests: Arc<Guests>,
        settings: NatsAccess,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(settings.questions_max.max(1)));
        Self { client, permits, desk: Arc::new(Decider { issuer, names, app, guests, settings }) }
    }

    /// Runs until `stopping`; questions that were begun are answered.
    pub(super) async fn run(self, stopping: CancellationToken) {
        let mut tasks = JoinSet::new();
        while !stopping.is_cancelled() {
            let subscribed = self.client.queue_subscribe(CALLOUT_SUBJECT, CALLOUT_QUEUE.into());
            match subscribed.await {
                Ok(mut questions) => {
                    self.answer(&mut questions, &mut tasks, &stopping).await;
                    if let Err(error) = questions.unsubscribe().await {
                        tracing::debug!(%error, "the connection was gone already");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "customers cannot be let in; trying again");
                    let _ = tokio::time::timeout(RETRY, stopping.cancelled()).await;
                }
            }
        }
        // Each ends within its own time.
        while tasks.join_next().await.is_some() {}
        if let Err(error) = self.client.flush().await {
            tracing::debug!(%error, "last answers may be lost");
        }
    }

    async fn answer(
        &self,
        questions: &mut async_nats::Subscriber,
        tasks: &mut JoinSet<()>,
        stopping: &CancellationToken,
    ) {
        loop {
            while let Some(ended) = tasks.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a question was not answered");
                }
            }
            let next = async {
                let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
                Some((permit, questions.next().await?))
            };
            let Some(Some((permit, question))) = stopping.run_until_cancelled(next).await else {
                return;
            };
            let (desk, client) = (Arc::clone(&self.desk), self.client.clone());
            tasks.spawn(async move {
                desk.answer(&client, question).await;
                drop(permit);
            });
        }
    }
}

impl Decider {
    async fn answer(&self, client: &Client, message: Message) {
        let Some(reply) = message.reply else { return };
        let question = match Question::read(&message.payload) {
            Ok(question) => question,
            Err(error) => {
                return tracing::error!(error = chain(&error), "the server's question is not read");
            }
        };
        let decided = tokio::time::timeout(DECIDE_WITHIN, self.decide(&question)).await;
        let decided = decided.unwrap_or(Err("cannot be decided in time"));
        if let Err(why) = decided {
            tracing::info!(client.host = question.client_info.host, why, "a client is refused");
        }
        let answer = jwt::answer(&self.issuer, &question, decided.as_ref().map_err(|why| *why));
        match answer {
            Ok(token) => {
                if let Err(error) = client.publish(reply, token.into()).await {
                    tracing::info!(%error, "an answer was not sent; the client comes again");
                }
            }
            Err(error) => tracing::error!(error = chain(&error), "an answer cannot be made"),
        }
    }

    async fn decide(&self, question: &Question) -> Result<Guest, &'static str> {
        let Some(token) = &question.connect_opts.auth_token else { return Err("no key") };
        let address = question.client_info.host.parse().ok();
        let Ok(_permit) = self.app.strangers().look_up(address, token.expose()) else {
            return Err("its address has sent too many wrong keys; it may try again");
        };
        let reader = match self.app.reader(token.expose(), self.settings.builds_max).await {
            Ok(Some(reader)) => {
                self.app.strangers().was_valid(token.expose(), reader.key);
                reader
            }
            Ok(None) => {
                if let Some(address) = address {
                    self.app.rate_take(Bucket::Address(address)).await;
                }
                return Err("no such key");
            }
            Err(error) => return Err(undecided(&error)),
        };
        let connection = (question.server_id.id.clone(), question.client_info.id);
        self.guests.admit(reader.key, connection).map_err(|refused| match refused {
            Refused::TooMany => "the key has as many connections as it may have",
            Refused::Ended => "no such key",
        })?;
        let longest = Utc::now() + self.settings.session;
        Ok(Guest {
            key: reader.key,
            until: reader.expires_at.map_or(longest, |at| at.min(longest)),
            subjects: reader_subjects(&self.names, reader.builds.as_deref()),
        })
    }
}

fn undecided(error: &Error) -> &'static str {
    tracing::warn!(error = chain(error), "whether a client may come in is not known now");
    "cannot be decided now"
}
