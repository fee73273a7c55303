//! `None` would delete where "no change" was meant as often as not.
use nodestorage::Storage;

async fn update(storage: Storage) {
    let keep = |user: Option<bson::Document>| user;
    let _ = storage.update("users", 1, keep).await;
}

fn main() {}
