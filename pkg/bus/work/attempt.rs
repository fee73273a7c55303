use std::any::Any;
use std::error::Error as StdError;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;

use crate::bus::EventHandler;
use crate::event::Event;

/// Has a handler handle an event, unless `broken_off` completes first: then `None`, and the handler's
/// future has been dropped at the `await` it was in. A panic is an error.
pub(in crate::bus) async fn attempt(
    handler: &Arc<dyn EventHandler>,
    event: Event,
    broken_off: impl Future<Output = ()>,
) -> Option<Result<(), String>> {
    let handler = Arc::clone(handler);
    // The call itself may panic as well as the polling, hence a future of our own around both.
    let mut handling = Box::pin(async move { handler.handle(event).await });
    let result = tokio::select! {
        biased;
        () = broken_off => None,
        result = AssertUnwindSafe(&mut handling).catch_unwind() => Some(result),
    };
    // Values that the handler's future holds may panic when they are dropped.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(handling)));
    match (result, dropped) {
        (None, _) => None,
        (Some(Ok(Ok(()))), Ok(())) => Some(Ok(())),
        (Some(Ok(Err(error))), Ok(())) => Some(Err(with_causes(&*error))),
        (Some(Err(panic)), _) | (_, Err(panic)) => Some(Err(panic_message(panic))),
    }
}

/// An error's message with those of its causes.
pub(in crate::bus) fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Many errors repeat their cause in their own message.
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("handler panicked: {message}")
}
