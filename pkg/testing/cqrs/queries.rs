//! Counting and paging, of documents and of views.

use serde::{Deserialize, Serialize};

use super::support::{Listing, WITHIN, count_up, quick};
use crate::error::{Error, ErrorKind};
use crate::query::{PageRequest, Paged, Query as Question, QueryDispatcher};
use crate::storage::{CollectionSpec, Index, Order, Query, Storage, Stored};
use crate::testing::TestStore;
use crate::testing::support::{kind_of, open, open_with};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    color: String,
    tags: Vec<i64>,
    size: i64,
}

/// Thirty items: every third red, the rest blue; sizes from 0 to 29.
async fn items(store: &dyn TestStore) -> Storage {
    let spec = CollectionSpec::new("items")
        .with_index(Index::on("color"))
        .with_index(Index::on("tags"));
    let storage = open_with(store, |builder| builder.collection(spec)).await;
    for size in 0..30 {
        let color = if size % 3 == 0 { "red" } else { "blue" };
        let item = Item {
            color: color.to_owned(),
            tags: vec![size % 2, 7],
            size,
        };
        let items = storage.collection::<Item>("items");
        items.create(size, item).await.unwrap();
    }
    storage.delete("items", 29).await.unwrap();
    storage
}

/// Matches are counted whatever order, limit and page a query has: by an index, by a scan, all of them, and
/// once each though several elements of an array match. A scan must be allowed.
pub async fn matches_are_counted(store: &dyn TestStore) {
    let storage = items(store).await;
    let count = async |query: Query| storage.count("items", &query).await.unwrap();
    let red = Query::new().equal("color", "red");
    assert_eq!(count(red.clone()).await, 10);
    let paged = red.clone().sort("size", Order::Descending).page(2, 3);
    assert_eq!(count(paged).await, 10);
    assert_eq!(count(red.after(15)).await, 10);
    assert_eq!(count(Query::new()).await, 29);
    assert_eq!(count(Query::new().range("tags", 0..)).await, 29);
    assert_eq!(count(Query::new().equal("tags", 1)).await, 14);
    assert_eq!(count(Query::new().is_in("_id", [1, 2, 29, 50])).await, 2);
    assert_eq!(count(Query::new().equal("color", "green")).await, 0);
    let large = Query::new().range("size", 20..);
    let refused = storage.count("items", &large).await;
    assert_eq!(kind_of(refused), ErrorKind::InvalidConfig);
    assert_eq!(count(large.clone().allow_scan()).await, 9);
    let mixed = large.equal("color", "blue");
    assert_eq!(count(mixed).await, 6);
    let none = storage.count("nothing", &Query::new()).await;
    assert_eq!(none.unwrap(), 0);
    let refused = storage
        .count("items", &Query::new().equal("$where", 1))
        .await;
    assert_eq!(kind_of(refused), ErrorKind::InvalidConfig);
    storage.close().await;
    let closed = storage.count("items", &Query::new()).await;
    assert_eq!(kind_of(closed), ErrorKind::Closed);
}

/// Pages say how many items and pages there are, also the last one and one beyond; a page that makes no
/// sense is refused.
pub async fn pages_know_their_total(store: &dyn TestStore) {
    let storage = items(store).await;
    let blue = Query::new()
        .equal("color", "blue")
        .sort("size", Order::Descending);
    let items = storage.collection::<Item>("items");
    let mut seen = Vec::new();
    for page in 1..=4 {
        let found = items
            .find_page(&blue, PageRequest::new(page, 6))
            .await
            .unwrap();
        assert_eq!(
            (found.page, found.limit, found.total, found.pages),
            (page, 6, 19, 4)
        );
        let expected = if page == 4 { 1 } else { 6 };
        assert_eq!(found.items.len(), expected);
        seen.extend(found.items.iter().map(|item| item.size));
    }
    let expected: Vec<i64> = (0..29).rev().filter(|size| size % 3 != 0).collect();
    assert_eq!(seen, expected);
    let beyond = items
        .find_page(&blue, PageRequest::new(9, 6))
        .await
        .unwrap();
    assert_eq!((beyond.items.len(), beyond.total, beyond.pages), (0, 19, 4));
    for page in [
        PageRequest::new(0, 6),
        PageRequest::new(1, 0),
        PageRequest::new(1, 1_001),
    ] {
        let refused = items.find_page(&blue, page).await;
        assert_eq!(kind_of(refused), ErrorKind::InvalidConfig);
    }
}

/// The views of a projection are counted and paged like documents.
pub async fn views_are_paged(store: &dyn TestStore) {
    let storage = open(store).await;
    for id in 0..25 {
        count_up(&storage, &format!("c{id:02}"), 1 + id % 2).await;
    }
    let options = quick().with_index(Index::on("seen"));
    let listing = storage.project(Listing::new(), options).unwrap();
    listing.caught_up(WITHIN).await.unwrap();
    let twice = Query::new().equal("seen", 2);
    let views = listing.views();
    assert_eq!(views.count(&twice).await.unwrap(), 12);
    let page = views.page(&twice, PageRequest::new(2, 5)).await.unwrap();
    assert_eq!((page.items.len(), page.total, page.pages), (5, 12, 3));
    assert_eq!(page.items[0].id(), &"c11".into());
    let all = views
        .page(&Query::new(), PageRequest::new(1, 10))
        .await
        .unwrap();
    assert_eq!((all.items.len(), all.total, all.pages), (10, 25, 3));
    let refused = views.query(&Query::new().equal("made_by", 1)).await;
    assert_eq!(kind_of(refused), ErrorKind::InvalidConfig);
    listing.shutdown().await;
}

struct ItemsOf {
    color: &'static str,
    page: PageRequest,
}

impl Question for ItemsOf {
    type Output = Paged<Stored<Item>>;
}

/// A query goes to the handler of its type; there is one for each, and a query without is a typed error.
pub async fn queries_have_one_handler_each(store: &dyn TestStore) {
    struct Unknown;
    impl Question for Unknown {
        type Output = ();
    }
    let storage = items(store).await;
    let handler = |storage: Storage| {
        move |query: ItemsOf| {
            let storage = storage.clone();
            async move {
                let color = Query::new().equal("color", query.color);
                storage.find_page::<Item>("items", &color, query.page).await
            }
        }
    };
    let builder = QueryDispatcher::builder()
        .handler(handler(storage.clone()))
        .unwrap();
    let queries = builder.build();
    let page = PageRequest::new(1, 4);
    let red = queries.ask(ItemsOf { color: "red", page }).await.unwrap();
    assert_eq!((red.items.len(), red.total), (4, 10));
    assert_eq!(kind_of(queries.ask(Unknown).await), ErrorKind::UnknownQuery);
    let page = PageRequest::new(0, 4);
    let refused = queries.ask(ItemsOf { color: "red", page }).await;
    assert_eq!(kind_of(refused), ErrorKind::InvalidConfig);
    let again = QueryDispatcher::builder()
        .handler(handler(storage.clone()))
        .unwrap()
        .handler(|_: ItemsOf| async { Err(Error::new(ErrorKind::NotFound, "never")) });
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyRegistered);
}
