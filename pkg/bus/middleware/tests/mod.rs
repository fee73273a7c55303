mod timeout;
mod tracing;
mod upcast;

use std::sync::{Arc, Mutex};

use super::*;
use crate::bus::samples::event;

/// Notes when it begins and ends.
struct Note(&'static str, Arc<Mutex<Vec<String>>>);

impl Note {
    fn down(&self, what: &str) {
        let mut lines = self.1.lock().unwrap();
        lines.push(format!("{what} {}", self.0));
    }
}

#[async_trait]
impl Middleware for Note {
    async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
        self.down("enter");
        let result = next.run(event).await;
        self.down("leave");
        result
    }
}

#[tokio::test]
async fn the_last_one_attached_is_the_outermost() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let note = |name| Note(name, Arc::clone(&lines));
    let inside = Arc::clone(&lines);
    let handler = move |event: Event| {
        inside.lock().unwrap().push(event.event_type().to_owned());
        async { Err::<(), _>("no") }
    };
    // Shared ones are middleware as well.
    let handler = handler.with(note("inner")).with(Arc::new(note("outer")));
    let error = handler.handle(event("Handled", 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "no");
    let expected = [
        "enter outer",
        "enter inner",
        "Handled",
        "leave inner",
        "leave outer",
    ];
    assert_eq!(*lines.lock().unwrap(), expected);
}
