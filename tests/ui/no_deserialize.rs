//! A document type must be readable.
use nodestorage::Storage;

#[derive(serde::Serialize)]
struct User {
    name: String,
}

async fn update(storage: Storage) {
    let rename = |_: Option<User>| User { name: String::new() };
    let _ = storage.update("users", 1, rename).await;
}

fn main() {}
