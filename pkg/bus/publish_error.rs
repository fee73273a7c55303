use crate::error::Error;

/// Why a batch was not published to its end, and how far it got.
#[derive(Debug, thiserror::Error)]
#[error("{error} ({confirmed} events of the batch confirmed before)")]
pub struct PublishError {
    confirmed: usize,
    poison: bool,
    #[source]
    error: Error,
}

impl PublishError {
    /// The bus cannot take events at the moment, or never again (`Closed`).
    #[must_use]
    pub fn unavailable(confirmed: usize, error: Error) -> Self {
        Self {
            confirmed,
            poison: false,
            error,
        }
    }

    /// The event after the confirmed ones can never be published: too large, no form on the wire.
    #[must_use]
    pub fn poison(confirmed: usize, error: Error) -> Self {
        Self {
            confirmed,
            poison: true,
            error,
        }
    }

    /// How many events, from the first, are confirmed. Later ones may have been published as well.
    #[must_use]
    pub fn confirmed(&self) -> usize {
        self.confirmed
    }

    /// Whether the fault lies with the event after the confirmed ones rather than with the bus.
    #[must_use]
    pub fn is_poison(&self) -> bool {
        self.poison
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        error.error
    }
}
