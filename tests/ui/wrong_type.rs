//! The closure gets one document type and returns another.
use nodestorage::Collection;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct User {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Order {
    total: i64,
}

async fn update(users: Collection<User>) {
    let _ = users.update(1, |_| Order { total: 5 }).await;
}

fn main() {}
