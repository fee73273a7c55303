//! How sagas are started and signalled: by hand, and by events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bson::Document;
use serde_json::json;

use super::sagas::{Attempts, LONG, Notes, run};
use crate::document::DocumentKey;
use crate::error::ErrorKind;
use crate::event::NewEvent;
use crate::saga::{Saga, SagaStatus, Sagas, SignalOutcome, StartOutcome, Step};
use crate::storage::{Storage, UpdateContext, UpdateOptions};
use crate::testing::support::{kind_of, log_of, open};
use crate::testing::{TestStore, eventually};

/// A saga is started once: starting it again with the same data finds it, and with other data is refused;
/// of many that start it at once one does.
pub async fn a_second_start_finds_the_first(store: &dyn TestStore) {
    let storage = open(store).await;
    let attempts = Attempts::default();
    let sagas = Sagas::new(&storage, Saga::new("s").step(attempts.step("a"))).unwrap();
    let notes = vec!["x".to_owned()];
    let starts = (0..8).map(|_| {
        let (sagas, notes) = (sagas.clone(), notes.clone());
        tokio::spawn(async move { sagas.start("1", notes).await.unwrap() })
    });
    let mut started = 0;
    for start in starts.collect::<Vec<_>>() {
        started += usize::from(start.await.unwrap() == StartOutcome::Started);
    }
    assert_eq!(started, 1);
    let runner = run(&sagas);
    sagas.wait("1", LONG).await.unwrap();
    // Also after its end.
    let again = sagas.start("1", notes).await.unwrap();
    assert_eq!(again, StartOutcome::Existing);
    let other = sagas.start("1", Notes::new()).await;
    assert_eq!(kind_of(other), ErrorKind::AlreadyRegistered);
    assert_eq!(attempts.seen(), ["s/1/a"]);
    assert!(sagas.status("2").await.unwrap().is_none());
    assert_eq!(kind_of(sagas.wait("2", LONG).await), ErrorKind::NotFound);
    runner.shutdown().await;
    storage.close().await;
}

/// A signal goes to one step, once: also when it comes before the step waits, several times under one id,
/// and while the step begins to wait.
pub async fn a_signal_reaches_one_step_once(store: &dyn TestStore) {
    const SAGAS: usize = 12;
    let storage = open(store).await;
    let wait = |name: &'static str| {
        Step::wait_for(name, "Word", |notes: &mut Notes, word: String| {
            notes.push(word);
            Ok(())
        })
    };
    let attempts = Attempts::default();
    let saga = Saga::new("s").step(attempts.step("a")).step(wait("first"));
    let sagas = Sagas::new(&storage, saga.step(wait("second"))).unwrap();
    let missing = sagas.signal("none", "Word", "x").await;
    assert_eq!(kind_of(missing), ErrorKind::NotFound);
    let runner = run(&sagas);
    let mut tasks = Vec::new();
    for n in 0..SAGAS {
        let sagas = sagas.clone();
        tasks.push(tokio::spawn(async move {
            let id = n.to_string();
            sagas.start(&id, Notes::new()).await.unwrap();
            let signal = |signal_id: &'static str, word: &'static str| {
                let (sagas, id) = (sagas.clone(), id.clone());
                async move {
                    let signalled = sagas.signal_once(&id, signal_id, "Word", word);
                    signalled.await.unwrap()
                }
            };
            let one = tokio::join!(signal("1", "x"), signal("1", "x"), signal("1", "x"));
            let repeated = [one.0, one.1, one.2].map(|it| it == SignalOutcome::Repeated);
            assert_eq!(repeated.iter().filter(|it| **it).count(), 2, "{one:?}");
            let other = sagas.signal(&id, "Word", "y").await.unwrap();
            assert_ne!(other, SignalOutcome::Repeated);
            let ended = sagas.wait(&id, LONG).await.unwrap();
            assert_eq!(ended.status(), SagaStatus::Completed);
            assert_eq!(ended.data().unwrap(), ["x", "y"]);
            let late = sagas.signal(&id, "Word", "z").await.unwrap();
            assert_eq!(late, SignalOutcome::TooLate);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    runner.shutdown().await;
    storage.close().await;
}

async fn emit(storage: &Storage, id: &str, event_type: &'static str, data: serde_json::Value) {
    let emit = |found: Option<Document>, context: &mut UpdateContext| {
        context.emit(NewEvent::new(event_type, data.clone()).unwrap());
        found.unwrap_or_default()
    };
    let options = UpdateOptions::new();
    storage
        .update_with("orders", id, options, emit)
        .await
        .unwrap();
}

/// Events start sagas and are signals for them: those that are in the log already, and those to come; each
/// once, although the log repeats itself.
pub async fn events_start_and_signal_sagas(store: &dyn TestStore) {
    let storage = open(store).await;
    let attempts = Attempts::default();
    let started = Arc::new(AtomicU32::new(0));
    let saga = || {
        let started = Arc::clone(&started);
        let paid = Step::wait_for("paid", "OrderPaid", |notes: &mut Notes, sum: i64| {
            notes.push(format!("paid {sum}"));
            Ok(())
        });
        Saga::new("orders")
            .step(attempts.step("reserve"))
            .step(paid)
            .started_by("OrderPlaced", move |event| {
                started.fetch_add(1, Ordering::SeqCst);
                // Not the same each time: the first one counts.
                let note = format!("start {}", started.load(Ordering::SeqCst));
                let id = event.aggregate_id().to_string();
                (event.data() != &json!("ignore")).then(|| (id, vec![note]))
            })
            .signalled_by("OrderPaid", |event| Some(event.aggregate_id().to_string()))
    };
    emit(&storage, "O-1", "OrderPlaced", json!({})).await;
    emit(&storage, "O-2", "OrderPlaced", json!("ignore")).await;
    emit(&storage, "O-1", "OrderPaid", json!(7)).await;
    // For no saga.
    emit(&storage, "O-2", "OrderPaid", json!(8)).await;
    let sagas = Sagas::new(&storage, saga()).unwrap();
    let runner = run(&sagas);
    let ended = async |id: &str| {
        eventually("the saga is started", || async {
            sagas.status(id).await.unwrap().is_some()
        })
        .await;
        sagas.wait(id, LONG).await.unwrap().data().unwrap()
    };
    assert_eq!(ended("O-1").await, ["start 1", "paid 7"]);
    emit(&storage, "O-3", "OrderPlaced", json!({})).await;
    emit(&storage, "O-3", "OrderPaid", json!(9)).await;
    assert_eq!(ended("O-3").await[1], "paid 9");
    assert!(sagas.status("O-2").await.unwrap().is_none());
    runner.shutdown().await;
    // The next runner goes on where this one was, or a little before.
    let runner = run(&sagas);
    emit(&storage, "O-1", "OrderPlaced", json!({})).await;
    emit(&storage, "O-4", "OrderPlaced", json!({})).await;
    emit(&storage, "O-4", "OrderPaid", json!(10)).await;
    assert_eq!(ended("O-4").await[1], "paid 10");
    assert_eq!(ended("O-1").await, ["start 1", "paid 7"]);
    let causation = log_of(&storage, &DocumentKey::new("sagas", "orders/O-4")).await;
    assert!(causation[0].metadata.causation.is_some());
    runner.shutdown().await;
    storage.close().await;
}
