use bson::DateTime;
use uuid::Uuid;

use crate::document::{DocumentId, DocumentKey, Version};
use crate::event::Metadata;

/// What a decision may know beside state and command.
///
/// # Examples
/// ```
/// use nodestorage::aggregate::DecideContext;
/// use nodestorage::bson::DateTime;
///
/// let ctx = DecideContext::for_test("accounts", "ACC-001", DateTime::from_millis(0));
/// assert!(!ctx.exists());
/// assert_eq!(ctx.new_id("transaction"), ctx.new_id("transaction"));
/// assert_ne!(ctx.new_id("transaction"), ctx.new_id("receipt"));
/// ```
#[derive(Debug, Clone)]
pub struct DecideContext {
    pub(super) key: DocumentKey,
    pub(super) version: Option<Version>,
    pub(super) next: Version,
    pub(super) now: DateTime,
    pub(super) metadata: Metadata,
    pub(super) command_id: Option<String>,
    /// The namespace of the ids.
    pub(super) store: Uuid,
}

impl DecideContext {
    /// A context for tests of `decide`: an aggregate that does not exist yet.
    #[must_use]
    pub fn for_test(collection: &str, id: impl Into<DocumentId>, now: DateTime) -> Self {
        Self {
            key: DocumentKey::new(collection, id),
            version: None,
            next: Version::new(1),
            now,
            metadata: Metadata::new(),
            command_id: None,
            store: Uuid::nil(),
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn of_test(
        (collection, id): (&str, DocumentId),
        (version, next): (Option<Version>, Version),
        now: DateTime,
        (metadata, command_id): (Metadata, Option<String>),
    ) -> Self {
        Self {
            version,
            next,
            metadata,
            command_id,
            ..Self::for_test(collection, id, now)
        }
    }

    /// The same with an aggregate at this version.
    #[must_use]
    pub fn at_version(mut self, version: impl Into<Version>) -> Self {
        let version = version.into();
        self.version = Some(version);
        self.next = version.next();
        self
    }

    /// The aggregate's id.
    #[must_use]
    pub fn id(&self) -> &DocumentId {
        self.key.id()
    }

    /// The aggregate's version; `None` if there is no aggregate.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Whether there is an aggregate.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.version.is_some()
    }

    /// When the command was sent; the same in every run.
    #[must_use]
    pub fn now(&self) -> DateTime {
        self.now
    }

    /// Where the command comes from.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The command's id, if it has one.
    #[must_use]
    pub fn command_id(&self) -> Option<&str> {
        self.command_id.as_deref()
    }

    /// An id for something that the decision makes, told from others by `label`: a version 5 UUID
    /// (RFC 9562) over the aggregate, and the command's id or else the version to be made. The same decision gets the
    /// same id each time it is made.
    #[must_use]
    pub fn new_id(&self, label: &str) -> Uuid {
        let at = match &self.command_id {
            Some(command) => format!("c{command}"),
            None => format!("v{}", self.next),
        };
        // NUL occurs in no collection name, so different parts never run into the same text.
        let name = format!(
            "{}\0{}\0{at}\0{label}",
            self.key.collection(),
            self.key.id()
        );
        Uuid::new_v5(&self.store, name.as_bytes())
    }
}
