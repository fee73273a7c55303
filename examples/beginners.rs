//! The program of docs/cqrs_for_beginners.md, which explains it line by line:
//!
//! ```text
//! cargo run --example beginners
//! ```
#![allow(
    clippy::enum_variant_names,
    reason = "commands and events say what they are about"
)]

use nodestorage::aggregate::{Aggregate, DecideContext, Repository};
use nodestorage::bus::Subscription;
use nodestorage::command::{Command, Dispatcher, DomainCommand};
use nodestorage::error::BoxError;
use nodestorage::query::{Query, QueryDispatcher};
use nodestorage::{Event, Storage, Stored, UpdateError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Book {
    title: String,
    borrower: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum BookCommand {
    AddBook { title: String },
    LendBook { to: String },
    ReturnBook,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum BookEvent {
    BookAdded { title: String },
    BookLent { to: String },
    BookReturned { from: String },
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum BookError {
    #[error("there is no such book")]
    Unknown,
    #[error("{0} has it")]
    Lent(String),
    #[error("nobody has it")]
    NotLent,
}

impl Aggregate for Book {
    const TYPE: &'static str = "Book";
    const COLLECTION: &'static str = "books";
    type Command = BookCommand;
    type Event = BookEvent;
    type Error = BookError;

    fn decide(
        &self,
        command: &BookCommand,
        ctx: &DecideContext,
    ) -> Result<Vec<BookEvent>, BookError> {
        let event = match command {
            BookCommand::AddBook { title } => BookEvent::BookAdded {
                title: title.clone(),
            },
            _ if !ctx.exists() => return Err(BookError::Unknown),
            BookCommand::LendBook { to } => match &self.borrower {
                Some(borrower) => return Err(BookError::Lent(borrower.clone())),
                None => BookEvent::BookLent { to: to.clone() },
            },
            BookCommand::ReturnBook => match &self.borrower {
                Some(borrower) => BookEvent::BookReturned {
                    from: borrower.clone(),
                },
                None => return Err(BookError::NotLent),
            },
        };
        Ok(vec![event])
    }

    fn apply(state: Option<Self>, event: &BookEvent) -> Self {
        let mut book = state.unwrap_or_default();
        match event {
            BookEvent::BookAdded { title } => book.title = title.clone(),
            BookEvent::BookLent { to } => book.borrower = Some(to.clone()),
            BookEvent::BookReturned { .. } => book.borrower = None,
        }
        book
    }

    fn creates(command: &BookCommand) -> bool {
        matches!(command, BookCommand::AddBook { .. })
    }
}

impl DomainCommand for BookCommand {
    type Aggregate = Book;
}

struct BooksWith {
    borrower: String,
}

impl Query for BooksWith {
    type Output = Vec<Stored<Book>>;
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (outbox, mut inbox) = mpsc::channel(16);
    let tell_the_next_reader = move |event: Event| {
        let outbox = outbox.clone();
        async move {
            let from = event.data()["from"].as_str().unwrap_or("somebody");
            let text = format!("{} is back from {from}", event.aggregate_id());
            outbox.send(text).await
        }
    };

    let storage = Storage::builder()
        .url("embedded::memory:")
        .bus_url("memory:")
        .subscribe(Subscription::to("BookReturned"), tell_the_next_reader)
        .open()
        .await?;

    let books = Repository::<Book>::new(&storage);
    let dispatcher = Dispatcher::builder().aggregate(books.clone())?.build();

    let title = "The Vegetarian".to_owned();
    let added = dispatcher
        .send("book-1", BookCommand::AddBook { title })
        .await?;
    println!("{} is at version {}", added.document(), added.version());

    let to = "Kim".to_owned();
    let lent = dispatcher
        .send("book-1", BookCommand::LendBook { to })
        .await?;
    for event in lent.events() {
        println!("{} {}", event.event_type(), event.data());
    }

    let to = "Lee".to_owned();
    match dispatcher
        .send("book-1", BookCommand::LendBook { to })
        .await
    {
        Ok(_) => println!("lent twice?"),
        Err(UpdateError::Rejected(BookError::Lent(who))) => println!("not now: {who} has it"),
        Err(error) => return Err(error.into()),
    }

    let library = storage.clone();
    let queries = QueryDispatcher::builder()
        .handler(move |query: BooksWith| {
            let library = library.clone();
            async move {
                let wanted = nodestorage::Query::new()
                    .equal("borrower", query.borrower)
                    .allow_scan();
                library.find_many("books", &wanted).await
            }
        })?
        .build();

    let borrower = "Kim".to_owned();
    for book in queries.ask(BooksWith { borrower }).await? {
        println!("Kim has {}", book.title);
    }

    let command = Command::new("ReturnBook", "book-1", json!({}));
    dispatcher
        .dispatch(command)
        .await
        .map_err(UpdateError::flatten)?;
    println!("{}", inbox.recv().await.ok_or("no message")?);

    if let Some(then) = books.load_at("book-1", 2).await? {
        println!("at version 2 it was with {:?}", then.borrower);
    }
    if let Some(now) = books.find("book-1").await? {
        println!("at version {} it is with {:?}", now.version(), now.borrower);
    }

    storage.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodestorage::testing::AggregateTest;

    fn added() -> BookEvent {
        BookEvent::BookAdded {
            title: "The Vegetarian".into(),
        }
    }

    fn lent() -> BookEvent {
        BookEvent::BookLent { to: "Kim".into() }
    }

    #[test]
    fn a_book_that_is_in_can_be_lent() {
        AggregateTest::<Book>::given([added()])
            .when(BookCommand::LendBook { to: "Kim".into() })
            .then([lent()])
            .then_state(|book| assert_eq!(book.borrower.as_deref(), Some("Kim")));
    }

    #[test]
    fn a_book_that_is_out_cannot() {
        AggregateTest::<Book>::given([added(), lent()])
            .when(BookCommand::LendBook { to: "Lee".into() })
            .then_rejected(BookError::Lent("Kim".into()));
    }
}
