use std::sync::Arc;

use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

/// Names of event types, or patterns of them: one as `&str` or `String`, several as an array, slice or
/// vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTypes(Vec<Arc<str>>);

impl From<&str> for EventTypes {
    fn from(name: &str) -> Self {
        Self(vec![name.into()])
    }
}

impl From<String> for EventTypes {
    fn from(name: String) -> Self {
        Self(vec![name.into()])
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for EventTypes {
    fn from(names: [S; N]) -> Self {
        names.as_slice().into()
    }
}

impl<S: AsRef<str>> From<&[S]> for EventTypes {
    fn from(names: &[S]) -> Self {
        Self(names.iter().map(|name| name.as_ref().into()).collect())
    }
}

impl<S: AsRef<str>> From<Vec<S>> for EventTypes {
    fn from(names: Vec<S>) -> Self {
        names.as_slice().into()
    }
}

/// Which events a subscription receives: by type, and by what they are about.
///
/// In patterns `*` stands for any run of characters, also an empty one, and `?` for exactly one
/// character; everything else stands for itself, upper and lower case apart, and there is no escape.
/// `User*` matches `User` and `UserCreated`; `*Created` matches `UserCreated`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    types: Types,
    scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Types {
    All,
    Named(Vec<Arc<str>>),
    Patterns(Vec<Arc<str>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Everything,
    Collection(Arc<str>),
    Document(DocumentKey),
}

impl Filter {
    /// Every event.
    #[must_use]
    pub fn all() -> Self {
        Self {
            types: Types::All,
            scope: Scope::Everything,
        }
    }

    /// Events of exactly these types.
    #[must_use]
    pub fn types(types: impl Into<EventTypes>) -> Self {
        Self {
            types: Types::Named(types.into().0),
            scope: Scope::Everything,
        }
    }

    /// Events whose type matches one of these patterns.
    #[must_use]
    pub fn patterns(patterns: impl Into<EventTypes>) -> Self {
        Self {
            types: Types::Patterns(patterns.into().0),
            scope: Scope::Everything,
        }
    }

    /// Of those, only events about documents of one collection. Replaces an earlier scope.
    #[must_use]
    pub fn with_collection(mut self, collection: impl Into<Arc<str>>) -> Self {
        self.scope = Scope::Collection(collection.into());
        self
    }

    /// Of those, only events about one document. Replaces an earlier scope.
    #[must_use]
    pub fn with_document(mut self, document: DocumentKey) -> Self {
        self.scope = Scope::Document(document);
        self
    }

    /// Whether an event passes.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let in_scope = match &self.scope {
            Scope::Everything => true,
            Scope::Collection(collection) => **collection == *event.collection(),
            Scope::Document(document) => document == event.document(),
        };
        in_scope
            && match &self.types {
                Types::All => true,
                Types::Named(names) => names.iter().any(|name| **name == *event.event_type()),
                Types::Patterns(patterns) => patterns
                    .iter()
                    .any(|pattern| matches_pattern(pattern, event.event_type())),
            }
    }

    /// As text that is equal for equal filters, also in other processes.
    #[cfg(any(feature = "redis", feature = "nats"))]
    pub(super) fn describe(&self) -> serde_json::Value {
        use serde_json::json;
        let texts = |names: &[Arc<str>]| -> Vec<String> {
            names.iter().map(|name| name.as_ref().to_owned()).collect()
        };
        let types = match &self.types {
            Types::All => json!("all"),
            Types::Named(names) => json!({ "named": texts(names) }),
            Types::Patterns(patterns) => json!({ "patterns": texts(patterns) }),
        };
        let scope = match &self.scope {
            Scope::Everything => json!("everything"),
            Scope::Collection(collection) => json!({ "collection": &**collection }),
            Scope::Document(document) => {
                // The text alone does not tell the id 1 from "1".
                json!({ "collection": document.collection(), "id": format!("{:?}", document.id()) })
            }
        };
        json!({ "types": types, "scope": scope })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let names = match &self.types {
            Types::All => return Ok(()),
            Types::Named(names) | Types::Patterns(names) => names,
        };
        if names.is_empty() || names.iter().any(|name| name.is_empty()) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "subscription names no event type or an empty one",
            ));
        }
        Ok(())
    }
}

/// Linear in the product of the lengths at worst: on a mismatch only the last `*` takes one more.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    let mut text = text.chars();
    let mut retry = None;
    loop {
        let here = (pattern.clone(), text.clone());
        match (pattern.next(), text.next()) {
            (Some('*'), _) => {
                text = here.1;
                retry = Some((pattern.clone(), text.clone()));
            }
            (None, None) => return true,
            (Some('?'), Some(_)) => {}
            (Some(expected), Some(found)) if expected == found => {}
            _ => {
                let Some((after_star, taken)) = &mut retry else {
                    return false;
                };
                if taken.next().is_none() {
                    return false;
                }
                pattern = after_star.clone();
                text = taken.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("User*", "UserCreated", true),
            ("User*", "User", true),
            ("User*", "AUser", false),
            ("*Created", "UserCreated", true),
            ("*Created", "UserCreatedTwice", false),
            ("U*r*ed", "UserRenamed", true),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbxc", false),
            ("User?", "Users", true),
            ("User?", "User", false),
            ("**", "", true),
            ("?", "사", true),
            ("user*", "UserCreated", false),
            ("[U]*", "User", false),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn nothing_to_subscribe_to_is_refused() {
        assert!(Filter::types(Vec::<String>::new()).validate().is_err());
        assert!(Filter::patterns("").validate().is_err());
        Filter::types(["A", "B"]).validate().unwrap();
    }
}
