use std::sync::Arc;

use super::support::{fail, in_collection, must, publish};
use super::{Harness, Recorder, Verdict, eventually};
use crate::bus::{EventBus, EventBusExt, RedeliveryPolicy, Subscription};
use crate::document::DocumentKey;
use crate::error::ErrorKind;
use crate::event::Event;

/// Publishes one of each and says what came, as `type collection/id`.
async fn received(bus: &Arc<dyn EventBus>, subscription: Subscription, expected: &[&str]) {
    let seen = Recorder::new();
    let recorder = seen.clone();
    let handle = must(
        bus.subscribe(subscription, move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    );
    // What must not come is published before what must, so that waiting for the latter proves it.
    let mut events = Vec::new();
    for (collection, id) in [("users", "1"), ("users", "2"), ("orders", "1")] {
        for (version, event_type) in ["UserCreated", "UserRenamed", "OrderShipped", "user"]
            .into_iter()
            .enumerate()
        {
            events.push(in_collection(
                collection,
                event_type,
                id,
                version as u64 + 1,
            ));
        }
    }
    publish(bus, &events).await;
    let names = || -> Vec<String> {
        seen.events()
            .iter()
            .map(|event| format!("{} {}", event.event_type(), event.document()))
            .collect()
    };
    eventually("the subscribed events arrive", || async {
        names().len() >= expected.len()
    })
    .await;
    must(handle.unsubscribe().await);
    let mut names = names();
    if !bus.capabilities().total_order {
        // Documents may overtake each other; each one's events may not.
        let place = |name: &String| expected.iter().position(|it| it == name);
        let document = |name: &String| name.rsplit(' ').next().map(str::to_owned);
        assert!(names.is_sorted_by(|a, b| document(a) != document(b) || place(a) < place(b)));
        names.sort_unstable_by_key(place);
    }
    assert_eq!(names, expected);
}

/// Exactly the named type.
pub async fn a_subscription_to_one_type(harness: impl Harness) -> Verdict {
    let expected = [
        "UserRenamed users/1",
        "UserRenamed users/2",
        "UserRenamed orders/1",
    ];
    received(&harness().await, Subscription::to("UserRenamed"), &expected).await;
    Verdict::Passed
}

/// Each of the named types.
pub async fn a_subscription_to_several_types(harness: impl Harness) -> Verdict {
    let subscription = Subscription::to(["UserCreated", "OrderShipped"]).with_collection("orders");
    let expected = ["UserCreated orders/1", "OrderShipped orders/1"];
    received(&harness().await, subscription, &expected).await;
    Verdict::Passed
}

/// `*` and `?`, upper and lower case apart.
pub async fn a_subscription_to_a_pattern(harness: impl Harness) -> Verdict {
    let of_user_2 =
        |subscription: Subscription| subscription.with_document(DocumentKey::new("users", "2"));
    for (pattern, expected) in [
        ("User*", vec!["UserCreated users/2", "UserRenamed users/2"]),
        (
            "*ed",
            vec![
                "UserCreated users/2",
                "UserRenamed users/2",
                "OrderShipped users/2",
            ],
        ),
        ("u?er", vec!["user users/2"]),
    ] {
        // A bus of its own, so that the same events are no repetition.
        let bus = harness().await;
        received(&bus, of_user_2(Subscription::matching(pattern)), &expected).await;
    }
    let two = of_user_2(Subscription::matching(["Order*", "u*"]));
    let expected = ["OrderShipped users/2", "user users/2"];
    received(&harness().await, two, &expected).await;
    Verdict::Passed
}

/// No filter at all.
pub async fn a_subscription_to_everything(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let seen = Recorder::new();
    let recorder = seen.clone();
    must(
        bus.subscribe(Subscription::to_all(), move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    );
    let events = [
        in_collection("users", "UserCreated", "1", 1),
        in_collection("orders", "*", "1", 1),
        in_collection("사용자", "생성됨", "하나", 1),
    ];
    publish(&bus, &events).await;
    seen.wait_for_exactly(&events).await;
    Verdict::Passed
}

/// Events about one collection, or one document of it; an integer id is not the string of its digits.
pub async fn a_subscription_to_a_collection_or_a_document(harness: impl Harness) -> Verdict {
    let user = Subscription::to_all().with_document(DocumentKey::new("users", "1"));
    let expected = [
        "UserCreated users/1",
        "UserRenamed users/1",
        "OrderShipped users/1",
        "user users/1",
    ];
    received(&harness().await, user, &expected).await;
    let orders = Subscription::to("user").with_collection("orders");
    received(&harness().await, orders, &["user orders/1"]).await;

    let bus = harness().await;
    let seen = Recorder::new();
    let recorder = seen.clone();
    let number = Subscription::to_all().with_document(DocumentKey::new("users", 1));
    must(
        bus.subscribe(number, move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    );
    let text = in_collection("users", "UserCreated", "1", 1);
    let mut parts = text.clone().into_parts();
    parts.document = DocumentKey::new("users", 1);
    parts.id = uuid::Uuid::from_u128(1).into();
    let number = Event::from_parts(parts);
    publish(&bus, &[text, number.clone()]).await;
    seen.wait_for_exactly(&[number]).await;
    Verdict::Passed
}

/// Options that can only be mistakes.
pub async fn nonsense_is_refused(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    for subscription in [
        Subscription::to(Vec::<String>::new()),
        Subscription::to(""),
        Subscription::matching(["A*", ""]),
        Subscription::to_all().with_group(""),
        Subscription::to_all().with_workers(0),
        Subscription::to_all().with_queue(0),
        Subscription::to_all().with_retry(RedeliveryPolicy::new().with_attempts(0)),
    ] {
        match bus
            .subscribe(subscription.clone(), |_: Event| async {})
            .await
        {
            Ok(_) => fail(&format!("accepted {subscription:?}")),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}"),
        }
    }
    Verdict::Passed
}
