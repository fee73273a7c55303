//! Orders: events alone are kept, queries are answered from a view of their own, and things go wrong. Needs no
//! server:
//!
//! ```text
//! cargo run --example orders
//! ```
//!
//! With a database and a broker, each of them empty:
//!
//! ```text
//! cargo run --example orders --features mongodb,nats -- \
//!     --url mongodb://127.0.0.1:27017/orders --bus nats://127.0.0.1:4222
//! ```

mod clock;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod events;
mod order;
mod queries;
mod show;
mod view;

use std::time::Duration;

use nodestorage::aggregate::Repository;
use nodestorage::bus::Subscription;
use nodestorage::command::{CommandOptions, Dispatcher};
use nodestorage::error::BoxError;
use nodestorage::projection::ProjectionOptions;
use nodestorage::query::PageRequest;
use nodestorage::{DocumentKey, Event, Index, RetryPolicy};
use tokio::sync::mpsc;

use clock::StoryClock;
use commands::{NewItem, OrderCommand};
use common::{builder, heading, summary};
use events::ShippingAddress;
use order::{Order, OrderStatus};
use queries::{GetOrder, GetOrdersByStatus, GetUserOrders, queries};
use show::{line, print_page};
use view::{Couriers, OrderViews};

/// How long to wait for the views: a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The warehouse hears of what is paid for.
    let (outbox, mut warehouse) = mpsc::channel(16);
    let pack = move |event: Event| {
        let outbox = outbox.clone();
        async move {
            outbox
                .send(format!("the warehouse packs {}", event.aggregate_id()))
                .await
        }
    };
    let clock = StoryClock::new();
    let storage = builder()
        .subscribe(Subscription::to("PaymentCompleted"), pack)
        .clock(clock.clone())
        // A database that does not answer is asked 5 times, with pauses from 200 ms to 2 s. An order that
        // other writers keep changing is decided on again up to 50 times.
        .retry(
            RetryPolicy::default()
                .with_attempts(5)
                .with_delays(Duration::from_millis(200), Duration::from_secs(2))
                .with_conflict_attempts(50),
        )
        .open()
        .await?;

    // Only events are stored, and a snapshot of the state every 4 versions.
    let orders = Repository::<Order>::new(&storage)
        .event_sourced()
        .with_snapshot_every(4);
    let dispatcher = Dispatcher::builder().aggregate(orders.clone())?.build();

    // What queries read.
    let couriers = Couriers::default();
    couriers.learn("KP", "Korea Post");
    let options = ProjectionOptions::new()
        .with_index(Index::on("user_id").then("created_at"))
        .with_index(Index::on("status").then("created_at"));
    let projection = OrderViews {
        couriers: couriers.clone(),
    };
    let views = storage.project(projection, options)?;
    let queries = queries(views.views())?;

    heading("Create orders");
    for (id, user, item) in [
        ("order-1", "kim", item("keyboard", 1, 8_900)),
        ("order-2", "kim", item("mouse", 2, 2_999)),
        ("order-3", "lee", item("monitor", 1, 24_900)),
        ("order-4", "kim", item("cable", 3, 700)),
        ("order-5", "kim", item("desk lamp", 1, 4_500)),
    ] {
        println!(
            "{}",
            summary(&dispatcher.send(id, create(user, item)).await?)
        );
        clock.minutes_pass(10);
    }

    heading("Change one");
    let add = |item| OrderCommand::AddOrderItem { item };
    let remove = |product: &str| OrderCommand::RemoveOrderItem {
        product_id: product.into(),
    };
    for command in [
        add(item("wrist rest", 1, 1_500)),
        add(item("cable", 1, 700)),
        remove("cable"),
    ] {
        println!("{}", summary(&dispatcher.send("order-1", command).await?));
    }
    let order = orders.load("order-1").await?;
    println!("{} items, {} cents", order.items.len(), order.total_amount);

    heading("Pay, ship, cancel");
    let pay = |payment: &str| OrderCommand::CompletePayment {
        payment_id: payment.into(),
    };
    let ship = |number: &str| OrderCommand::StartShipping {
        tracking_number: number.into(),
    };
    let cancel = |reason: &str| OrderCommand::CancelOrder {
        reason: reason.into(),
    };
    for (id, payment) in [("order-1", "payment-1"), ("order-3", "payment-2")] {
        println!("{}", summary(&dispatcher.send(id, pay(payment)).await?));
        println!("{}", warehouse.recv().await.ok_or("no warehouse")?);
    }
    for (id, command) in [
        ("order-1", ship("KP-0001")),
        ("order-4", cancel("changed my mind")),
    ] {
        println!("{}", summary(&dispatcher.send(id, command).await?));
    }

    heading("What an order refuses");
    for (id, command) in [
        ("order-1", add(item("mouse", 1, 2_999))),
        ("order-1", cancel("too late")),
        ("order-2", remove("monitor")),
        ("order-2", ship("KP-0002")),
        ("order-4", pay("payment-3")),
        ("order-4", cancel("once more")),
        ("order-9", pay("payment-4")),
        ("order-9", create("kim", item("air", 0, 0))),
    ] {
        match dispatcher.send(id, command).await {
            Ok(done) => println!("{}", summary(&done)),
            Err(error) => println!("{id}: {error}"),
        }
    }

    heading("Two create the same order");
    clock.minutes_pass(10);
    let mouse = || create("lee", item("mouse", 1, 2_999));
    let (one, other) = tokio::join!(
        dispatcher.send("order-6", mouse()),
        dispatcher.send("order-6", mouse())
    );
    // Which of them was faster is not for this example to say.
    println!(
        "created: {}",
        [&one, &other].iter().filter(|it| it.is_ok()).count()
    );
    for error in [one.err(), other.err()].into_iter().flatten() {
        println!("the other: {error}");
    }

    heading("Eight change the same order");
    // Whoever is late is decided again, on the order as it is by then: nobody's item is lost.
    let adding: Vec<_> = (0..8)
        .map(|_| {
            let dispatcher = dispatcher.clone();
            let command = add(item("sticker", 1, 100));
            tokio::spawn(async move { dispatcher.send("order-6", command).await })
        })
        .collect();
    for added in adding {
        added.await??;
    }
    let order = orders.load("order-6").await?;
    println!(
        "version {}: {} items, {} cents",
        order.version(),
        order.items.len(),
        order.total_amount
    );
    // Who wants to decide on what they have seen, and on nothing newer, says which version that was.
    let seen = CommandOptions::new().with_expected(1);
    if let Err(error) = dispatcher
        .send_with("order-6", cancel("as seen"), seen)
        .await
    {
        println!("{error}");
    }

    heading("Snapshots");
    // Version 9 is read from the snapshot at version 8 and one entry. All events lead to the same.
    let rebuilt = orders.rebuild("order-6").await?.ok_or("no order-6")?;
    println!("loaded and rebuilt are the same: {}", order == rebuilt);
    for version in [1, 5, 9] {
        if let Some(then) = orders.load_at("order-6", version).await? {
            println!("version {version}: {} items", then.items.len());
        }
    }

    heading("Queries");
    views.caught_up(PATIENCE).await?;
    let order_id = "order-1".to_owned();
    if let Some(order) = queries.ask(GetOrder { order_id }).await? {
        println!("{}", line(&order));
    }
    for page in 1..=2 {
        let of_kim = GetUserOrders {
            user_id: "kim".into(),
            status: None,
            page: PageRequest::new(page, 3),
        };
        print_page("of kim", queries.ask(of_kim).await?);
    }
    let pending_of_kim = GetUserOrders {
        user_id: "kim".into(),
        status: Some(OrderStatus::Pending),
        page: PageRequest::default(),
    };
    print_page("of kim, pending", queries.ask(pending_of_kim).await?);
    let pending = GetOrdersByStatus {
        status: OrderStatus::Pending,
        page: PageRequest::default(),
    };
    print_page("pending", queries.ask(pending).await?);

    heading("An event that the view cannot take");
    // A courier that this program has never heard of. The order is shipped all the same.
    clock.minutes_pass(10);
    println!(
        "{}",
        summary(&dispatcher.send("order-3", ship("HJ-0007")).await?)
    );
    views.caught_up(PATIENCE).await?;
    let order = DocumentKey::new("orders", "order-3");
    for letter in views.dead_letters(None, 10).await? {
        println!(
            "dead letter: {} of {} version {} after {} attempts: {}",
            letter.event_type, letter.document, letter.version, letter.attempts, letter.error
        );
    }
    println!("{}", line(&views.views().load("order-3").await?));
    couriers.learn("HJ", "Hanjin");
    views.replay(&order).await?;
    println!("{}", line(&views.views().load("order-3").await?));
    println!(
        "dead letters: {}",
        views.dead_letters(None, 10).await?.len()
    );

    views.shutdown().await;
    storage.close().await;
    Ok(())
}

fn item(product: &str, quantity: u32, unit_price: i64) -> NewItem {
    NewItem {
        product_id: product.into(),
        product_name: product.into(),
        quantity,
        unit_price,
    }
}

fn create(user: &str, item: NewItem) -> OrderCommand {
    OrderCommand::CreateOrder {
        user_id: user.into(),
        items: vec![item],
        shipping_address: ShippingAddress {
            street: "Sejong-daero 110".into(),
            city: "Seoul".into(),
            zip_code: "04524".into(),
            country: "South Korea".into(),
        },
    }
}
