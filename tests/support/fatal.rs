//! An event that kills whoever handles it: members are processes of their own, started again and again.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nodestorage::Event;
use nodestorage::bus::{EventBus, EventBusExt, Subscription};
use nodestorage::testing::bus::{Recorder, eventually, sample_event};

/// Where a member finds its bus; only the other process has it.
pub(crate) const VARIABLE: &str = "NODESTORAGE_TEST_FATAL";

const LIMIT: u32 = 3;

/// Two that are not counted, and one each for the attempts that are.
const DEATHS: u32 = 2 + LIMIT;

/// The processes of one test die within seconds; a busy machine gets the rest.
const DEADLINE: Duration = Duration::from_secs(120);

fn subscription() -> Subscription {
    Subscription::to_all()
        .with_group("mortal")
        .with_workers(4)
        .with_max_unfinished(LIMIT)
}

/// What the other process runs. It says on standard output what it handled, and what was given up.
pub(crate) async fn member(bus: &impl EventBus) {
    let handle = bus.subscribe(subscription(), |event: Event| async move {
        if event.event_type() == "Fatal" {
            std::process::abort();
        }
        println!("\nhandled {}", event.id());
    });
    let handle = handle.await.unwrap();
    loop {
        for letter in handle.dead_letters(10).await.unwrap_or_default() {
            println!(
                "\nletter {} {} {}",
                letter.id, letter.attempts, letter.error
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Ends with the test.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts members until one gives the event up, and checks what became of all the others. `test` is the name
/// of the one that calls [`member`].
pub(crate) async fn an_event_that_kills_is_given_up(bus: &impl EventBus, test: &str, place: &str) {
    // From here on the group keeps what nobody handles.
    let none = bus.subscribe(subscription(), |_: Event| async {});
    none.await.unwrap().unsubscribe().await.unwrap();
    let fatal = sample_event("Fatal", "u0", 1);
    let mut others: Vec<Event> = (2..=4)
        .map(|version| sample_event("UserUpdated", "u0", version))
        .collect();
    for n in 1..30 {
        let document = format!("u{n}");
        others.extend((1..=3).map(|version| sample_event("UserUpdated", &document, version)));
    }
    bus.publish(std::slice::from_ref(&fatal)).await.unwrap();
    bus.publish(&others).await.unwrap();

    let (test, place) = (test.to_owned(), place.to_owned());
    let expected: HashSet<String> = others.iter().map(|event| event.id().to_string()).collect();
    let watching = tokio::task::spawn_blocking(move || watch(&test, &place, &expected));
    let (deaths, letter) = watching.await.unwrap();
    let mut words = letter.splitn(3, ' ');
    let mut next = || words.next().unwrap();
    assert_eq!(next(), fatal.id().to_string());
    assert_eq!(next(), LIMIT.to_string());
    assert!(next().contains("came to an end"), "{letter}");
    assert_eq!(deaths, DEATHS);

    // Whoever can handle it gets it again, and nothing is counted against it any more.
    let seen = Recorder::new();
    let recorder = seen.clone();
    let handle = bus.subscribe(subscription(), move |event: Event| {
        recorder.record(event);
        async {}
    });
    let handle = handle.await.unwrap();
    assert_eq!(handle.redrive(&[fatal.id()]).await.unwrap(), 1);
    eventually("it is handled", || async {
        seen.events().iter().any(|event| event.id() == fatal.id())
    })
    .await;
    assert!(handle.dead_letters(10).await.unwrap().is_empty());
}

/// How many members died, and what the last one said of the event, once all others are handled.
fn watch(test: &str, place: &str, expected: &HashSet<String>) -> (u32, String) {
    let begin = Instant::now();
    let (mut handled, mut letters) = (HashSet::new(), HashSet::new());
    let mut deaths = 0;
    loop {
        assert!(begin.elapsed() < DEADLINE, "{deaths} deaths, {letters:?}");
        let mut member = Member(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(VARIABLE, place)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        for line in BufReader::new(member.0.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            assert!(begin.elapsed() < DEADLINE, "{deaths} deaths, {letters:?}");
            if let Some(id) = line.strip_prefix("handled ") {
                handled.insert(id.to_owned());
            } else if let Some(letter) = line.strip_prefix("letter ") {
                letters.insert(letter.to_owned());
            }
            if !letters.is_empty() && handled.is_superset(expected) {
                assert_eq!(letters.len(), 1, "{letters:?}");
                return (deaths, letters.into_iter().next().unwrap());
            }
        }
        deaths += 1;
    }
}
