use crate::error::{BoxError, Error};
use crate::storage::UpdateError;

/// The error of a command whose aggregate is not known at compile time: the rejection is the aggregate's or
/// handler's own error, boxed.
///
/// ```
/// # use nodestorage::UpdateError;
/// # use nodestorage::command::CommandError;
/// # #[derive(Debug, thiserror::Error)] #[error("insufficient funds")] struct InsufficientFunds;
/// # fn example(error: CommandError) {
/// if let UpdateError::Rejected(reason) = &error
///     && reason.is::<InsufficientFunds>()
/// {
///     println!("rejected: {reason}");
/// }
/// # }
/// ```
pub type CommandError = UpdateError<BoxError>;

/// What an error that has passed the middleware is, for a caller who knows the aggregate.
pub(super) fn typed<E: std::error::Error + Send + Sync + 'static>(
    error: BoxError,
) -> UpdateError<E> {
    let error = match error.downcast::<Error>() {
        Ok(error) => return UpdateError::Storage(*error),
        Err(error) => error,
    };
    match error.downcast::<E>() {
        Ok(error) => UpdateError::Rejected(*error),
        // A middleware's own error.
        Err(error) => UpdateError::Storage(refused(error)),
    }
}

/// A refusal by code around the aggregate.
fn refused(error: BoxError) -> Error {
    Error::new(
        crate::error::ErrorKind::Refused,
        format!("command refused: {error}"),
    )
    .with_source(error)
}
