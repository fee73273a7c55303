//! What a closure captures decides whether the update can move between threads.
use std::rc::Rc;

use nodestorage::Storage;

fn update(storage: Storage) {
    let name = Rc::new(String::from("Ann"));
    tokio::spawn(async move {
        let rename = |user: Option<bson::Document>| {
            let mut user = user.unwrap_or_default();
            user.insert("name", name.as_str());
            user
        };
        let _ = storage.update("users", 1, rename).await;
    });
}

fn main() {}
