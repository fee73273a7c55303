use std::any::Any;
use std::fmt;

use serde_json::Value;
use tracing::Span;
use tracing::field::Empty;

use super::CommandOptions;
use crate::document::DocumentKey;
use crate::event::Metadata;
use crate::middleware::Traced;

/// A command on its way through the middleware to its handler.
///
/// # Examples
/// ```
/// use async_trait::async_trait;
/// use nodestorage::command::{CommandMessage, CommandResult, Middleware, Next};
/// use nodestorage::error::BoxError;
///
/// /// Marks every command with the service it came through.
/// struct Through(&'static str);
///
/// #[async_trait]
/// impl Middleware<CommandMessage, CommandResult> for Through {
///     async fn handle(
///         &self,
///         mut message: CommandMessage,
///         next: Next<'_, CommandMessage, CommandResult>,
///     ) -> Result<CommandResult, BoxError> {
///         let extra = &mut message.metadata_mut().extra;
///         extra.insert("service".into(), self.0.into());
///         next.run(message).await
///     }
/// }
/// ```
pub struct CommandMessage {
    pub(super) name: String,
    pub(super) document: DocumentKey,
    pub(super) options: CommandOptions,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// An aggregate's command.
    Typed(Box<dyn Any + Send + Sync>),
    /// For a handler of the application's own.
    Json(Value),
}

impl CommandMessage {
    /// The command's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for: collection and id of the aggregate. For a handler of the application's own the
    /// collection is empty.
    #[must_use]
    pub fn document(&self) -> &DocumentKey {
        &self.document
    }

    /// The command, if it is one of this type of an aggregate's.
    #[must_use]
    pub fn command<C: 'static>(&self) -> Option<&C> {
        match &self.content {
            Content::Typed(command) => command.downcast_ref(),
            Content::Json(_) => None,
        }
    }

    /// The data of a command for a handler of the application's own.
    #[must_use]
    pub fn json(&self) -> Option<&Value> {
        match &self.content {
            Content::Typed(_) => None,
            Content::Json(data) => Some(data),
        }
    }

    /// The options it was sent with.
    #[must_use]
    pub fn options(&self) -> &CommandOptions {
        &self.options
    }

    /// Where it comes from.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.options.metadata
    }

    /// Where it comes from, to be completed.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.options.metadata
    }
}

impl Traced for CommandMessage {
    fn span(&self) -> Span {
        let metadata = self.metadata();
        tracing::info_span!(
            target: "nodestorage::command",
            "handle_command",
            command = self.name.as_str(),
            document = %self.document,
            command_id = self.options.command_id.as_deref(),
            correlation = metadata.correlation.as_deref(),
            causation = metadata.causation.as_deref(),
            traceparent = metadata.traceparent.as_deref(),
            tracestate = metadata.tracestate.as_deref(),
            outcome = Empty,
        )
    }

    fn label(&self) -> String {
        format!("command {} for {}", self.name, self.document)
    }
}

impl fmt::Debug for CommandMessage {
    /// Shows no data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandMessage")
            .field("name", &self.name)
            .field("document", &self.document.to_string())
            .field("id", &self.options.command_id)
            .finish_non_exhaustive()
    }
}
