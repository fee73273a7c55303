//! Sagas that events start, and events that are signals.

use std::sync::Arc;

use super::definition::validate_id;
use super::options::SagaOptions;
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, json};
use crate::history::{LogSubscription, LogSubscriptionHandle};

/// Follows the log for the definition's events, if it has any.
pub(super) fn subscribe(
    shared: &Arc<Shared>,
    options: &SagaOptions,
) -> Result<Option<LogSubscriptionHandle>> {
    if !shared.definition.has_events() {
        return Ok(None);
    }
    let handler = {
        let shared = Arc::clone(shared);
        move |event: Event| {
            let shared = Arc::clone(&shared);
            async move { shared.take_in(&event).await }
        }
    };
    let subscription = LogSubscription::new()
        .with_lease_ttl(options.lease_ttl)
        .with_drain_timeout(options.drain_timeout);
    let storage = &shared.storage;
    storage
        .subscribe(&shared.lease(), subscription, handler)
        .map(Some)
}

impl Shared {
    /// Starts and signals what the definition makes of an event. Repeatable: the log repeats itself.
    async fn take_in(&self, event: &Event) -> Result<()> {
        for (event_type, rule) in &self.definition.starts {
            if event.event_type() != &**event_type {
                continue;
            }
            let Some((id, data)) = rule(event) else {
                continue;
            };
            let started = match data {
                Ok(data) => self.start(&id, data, Some(event.id().to_string())).await,
                Err(error) => Err(error),
            };
            self.pass_over(event, started.map(|_| ()))?;
        }
        for (event_type, rule) in &self.definition.signals {
            if event.event_type() != &**event_type {
                continue;
            }
            let Some(id) = rule(event) else {
                continue;
            };
            let signalled = self.signal_by(event, &id).await;
            self.pass_over(event, signalled)?;
        }
        Ok(())
    }

    async fn signal_by(&self, event: &Event, id: &str) -> Result<()> {
        validate_id(&self.definition.name, id)?;
        let payload = json::to_bson(event.data())?;
        let cause = event.id().to_string();
        let signal = (cause.as_str(), event.event_type());
        match self.signal(id, signal, payload, Some(cause.clone())).await {
            Ok(_) => Ok(()),
            // Of somebody else's.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What concerns this event alone must not hold up all that follow it; everything else is tried again.
    fn pass_over(&self, event: &Event, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else {
            return Ok(());
        };
        let own = matches!(
            error.kind(),
            ErrorKind::AlreadyRegistered
                | ErrorKind::InvalidName
                | ErrorKind::Serialization
                | ErrorKind::TooLarge
        );
        if !own {
            return Err(
                Error::new(error.kind(), format!("event {}", event.id())).with_source(error)
            );
        }
        if error.kind() != ErrorKind::AlreadyRegistered {
            let saga = &self.definition.name;
            tracing::error!(%saga, event = %event.id(), %error, "an event is passed over");
        }
        Ok(())
    }
}
