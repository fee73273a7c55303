use nodestorage::query::{PageRequest, Paged};
use nodestorage::{Collection, Order, Query, Result, Storage, Stored};

use crate::user::User;

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

/// Answers questions about users from the stored documents: each is the state of its user.
pub(crate) struct UserQueries {
    users: Collection<User>,
}

impl UserQueries {
    pub(crate) fn new(storage: &Storage) -> Self {
        Self {
            users: storage.collection("users"),
        }
    }

    pub(crate) async fn get_user(&self, id: &str) -> Result<Option<Stored<User>>> {
        self.users.find(id).await
    }

    pub(crate) async fn get_users(&self, asked: GetUsers) -> Result<Paged<Stored<User>>> {
        let request = asked.page.checked()?;
        // A text may stand anywhere in a name, so that no index helps: every user is looked at.
        let mut query = Query::new().allow_scan();
        if let Some(name) = asked.name {
            query = query.contains("name", name);
        }
        if let Some(email) = asked.email {
            query = query.contains("email", email);
        }
        let total = self.users.count(&query).await?;
        let query = query
            .sort("name", Order::Ascending)
            .page(request.page, request.limit);
        let users = self.users.find_many(&query).await?;
        Ok(Paged::new(users, request, total))
    }
}
