use std::fmt;

use serde_json::Value;

use super::CommandOptions;
use crate::document::{DocumentId, ExpectedVersion};
use crate::event::Metadata;

/// A command by name, as it arrives over HTTP or from a queue.
///
/// The name is that of a variant of an aggregate's command enum, the data what is in the variant.
///
/// # Examples
/// ```
/// use nodestorage::command::Command;
/// use serde_json::json;
///
/// let command = Command::new("CreateUser", "user123", json!({
///     "name": "John Doe",
///     "email": "john@example.com",
/// }))
/// .with_id("request-42");
/// assert_eq!(command.name(), "CreateUser");
/// ```
#[derive(Clone)]
pub struct Command {
    name: String,
    target: DocumentId,
    data: Value,
    options: CommandOptions,
}

impl Command {
    /// A command of this name for an aggregate, with its data.
    pub fn new(name: impl Into<String>, target: impl Into<DocumentId>, data: Value) -> Self {
        Self {
            name: name.into(),
            target: target.into(),
            data,
            options: CommandOptions::new(),
        }
    }

    /// Identifies the command; see [`CommandOptions::command_id`].
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.options.command_id = Some(id.into());
        self
    }

    /// Says where the command comes from.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.options.metadata = metadata;
        self
    }

    /// Requires a version of the aggregate.
    #[must_use]
    pub fn with_expected(mut self, expected: impl Into<ExpectedVersion>) -> Self {
        self.options.expected = expected.into();
        self
    }

    /// Sets all options at once.
    #[must_use]
    pub fn with_options(mut self, options: CommandOptions) -> Self {
        self.options = options;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the aggregate.
    #[must_use]
    pub fn target(&self) -> &DocumentId {
        &self.target
    }

    /// What is asked for.
    #[must_use]
    pub fn data(&self) -> &Value {
        &self.data
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &CommandOptions {
        &self.options
    }

    pub(super) fn into_parts(self) -> (String, DocumentId, Value, CommandOptions) {
        (self.name, self.target, self.data, self.options)
    }
}

impl fmt::Debug for Command {
    /// Shows no data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("name", &self.name)
            .field("target", &self.target.to_string())
            .field("id", &self.options.command_id)
            .finish_non_exhaustive()
    }
}
