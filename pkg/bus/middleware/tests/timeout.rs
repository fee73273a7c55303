use std::time::Duration;

use super::super::*;
use crate::bus::samples::event;
use crate::bus::{EventHandler, EventHandlerExt};
use crate::error::{Error, ErrorKind};

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_fails_and_is_dropped() {
    let handler = |event: Event| async move {
        tokio::time::sleep(Duration::from_secs(event.version().get())).await;
    };
    let handler = handler.with(Timeout::after(Duration::from_millis(1_500)));
    handler.handle(event("Quick", 1)).await.unwrap();
    let begin = tokio::time::Instant::now();
    let error = handler.handle(event("Slow", 3)).await.unwrap_err();
    let error = error.downcast::<Error>().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("within 1.5s"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
}
