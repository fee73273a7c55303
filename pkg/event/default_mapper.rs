use std::collections::HashMap;
use std::sync::Arc;

use super::{ChangeKind, ChangeView, EventMapper, MapError, NewEvent};

/// One event per change, named after the collection, with the change itself as its data.
///
/// The names are `UsersCreated`, `UsersUpdated` and `UsersDeleted` for the collection `users`, unless
/// others are registered.
#[derive(Debug, Clone, Default)]
pub struct DefaultEventMapper {
    names: HashMap<String, EventNames>,
}

/// The event types of a collection, and what its documents are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNames {
    aggregate: Arc<str>,
    created: Arc<str>,
    updated: Arc<str>,
    deleted: Arc<str>,
}

impl EventNames {
    /// `UserCreated`, `UserUpdated` and `UserDeleted` for the aggregate type `User`.
    #[must_use]
    pub fn of(aggregate: &str) -> Self {
        Self {
            aggregate: aggregate.into(),
            created: format!("{aggregate}Created").into(),
            updated: format!("{aggregate}Updated").into(),
            deleted: format!("{aggregate}Deleted").into(),
        }
    }

    /// Sets the type of creations.
    #[must_use]
    pub fn with_created(mut self, event_type: impl Into<Arc<str>>) -> Self {
        self.created = event_type.into();
        self
    }

    /// Sets the type of updates.
    #[must_use]
    pub fn with_updated(mut self, event_type: impl Into<Arc<str>>) -> Self {
        self.updated = event_type.into();
        self
    }

    /// Sets the type of deletions.
    #[must_use]
    pub fn with_deleted(mut self, event_type: impl Into<Arc<str>>) -> Self {
        self.deleted = event_type.into();
        self
    }
}

impl DefaultEventMapper {
    /// A mapper with default names for every collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers names for a collection.
    #[must_use]
    pub fn with_names(mut self, collection: impl Into<String>, names: EventNames) -> Self {
        self.names.insert(collection.into(), names);
        self
    }
}

impl EventMapper for DefaultEventMapper {
    fn map(&self, change: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> {
        let default;
        let names = match self.names.get(change.collection()) {
            Some(names) => names,
            None => {
                default = EventNames::of(&pascal_case(change.collection()));
                &default
            }
        };
        let event_type = match change.kind() {
            ChangeKind::Created => &names.created,
            ChangeKind::Updated => &names.updated,
            ChangeKind::Deleted => &names.deleted,
            ChangeKind::Unchanged => return Ok(Vec::new()),
        };
        Ok(vec![NewEvent::of_change(Arc::clone(event_type))?])
    }

    fn aggregate_type(&self, collection: &str) -> String {
        match self.names.get(collection) {
            Some(names) => names.aggregate.to_string(),
            None => pascal_case(collection),
        }
    }
}

/// `order_items` and `order-items` become `OrderItems`.
pub(super) fn pascal_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut start = true;
    for c in name.chars() {
        if c.is_alphanumeric() {
            if start {
                out.extend(c.to_uppercase());
            } else {
                out.push(c);
            }
            start = false;
        } else {
            start = true;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_names_become_type_names() {
        for (collection, name) in [
            ("users", "Users"),
            ("order_items", "OrderItems"),
            ("app.order-items", "AppOrderItems"),
            ("camelCase", "CamelCase"),
            ("사용자", "사용자"),
        ] {
            assert_eq!(pascal_case(collection), name);
        }
    }
}
