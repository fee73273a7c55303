use nodestorage::error::BoxError;
use nodestorage::query::{PageRequest, Paged, Query, QueryDispatcher, QueryHandler};
use nodestorage::{Collection, Order, Result, Storage, Stored};

use crate::user::User;

/// Who is this?
#[derive(Debug)]
pub(crate) struct GetUser {
    pub(crate) id: String,
}

impl Query for GetUser {
    type Output = Option<Stored<User>>;
}

/// All users whose name and e-mail address contain these texts, a page of them, by name.
#[derive(Debug, Default)]
pub(crate) struct GetUsers {
    name: Option<String>,
    email: Option<String>,
    page: PageRequest,
}

impl GetUsers {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn named(mut self, text: &str) -> Self {
        self.name = Some(text.to_owned());
        self
    }

    pub(crate) fn at(mut self, text: &str) -> Self {
        self.email = Some(text.to_owned());
        self
    }

    pub(crate) fn page(mut self, number: u64, size: u64) -> Self {
        self.page = PageRequest::new(number, size);
        self
    }
}

impl Query for GetUsers {
    type Output = Paged<Stored<User>>;
}

/// Answers from the stored documents: each is the state of its user.
#[derive(Clone)]
struct Users(Collection<User>);

impl QueryHandler<GetUser> for Users {
    async fn handle(&self, query: GetUser) -> Result<Option<Stored<User>>, BoxError> {
        Ok(self.0.find(query.id).await?)
    }
}

impl QueryHandler<GetUsers> for Users {
    async fn handle(&self, query: GetUsers) -> Result<Paged<Stored<User>>, BoxError> {
        // A text may stand anywhere in a name, so that no index helps: every user is looked at.
        let mut wanted = nodestorage::Query::new().allow_scan();
        if let Some(name) = query.name {
            wanted = wanted.contains("name", name);
        }
        if let Some(email) = query.email {
            wanted = wanted.contains("email", email);
        }
        let by_name = wanted.sort("name", Order::Ascending);
        Ok(self.0.find_page(&by_name, query.page).await?)
    }
}

/// Knows who answers what.
pub(crate) fn queries(storage: &Storage) -> Result<QueryDispatcher> {
    let users = Users(storage.collection("users"));
    Ok(QueryDispatcher::builder()
        .handler::<GetUser, _>(users.clone())?
        .handler::<GetUsers, _>(users)?
        .build())
}
