use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::definition::{Query, QueryHandler};
use crate::error::{BoxError, Error, ErrorKind, Result};

type Answer = Result<Box<dyn Any + Send>, BoxError>;

/// A handler whose types are known to whoever made it.
type Erased = dyn Fn(Box<dyn Any + Send>) -> BoxFuture<'static, Answer> + Send + Sync;

struct Registered {
    query: &'static str,
    handle: Arc<Erased>,
}

/// Answers queries by the one handler that is registered for their type. Cheap to clone.
///
/// ```
/// use nodestorage::query::{Query, QueryDispatcher};
/// use nodestorage::{ErrorKind, Result, Storage};
///
/// struct CountUsers { named: String }
///
/// impl Query for CountUsers {
///     type Output = u64;
/// }
///
/// # #[cfg(feature = "embedded")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let storage = Storage::builder().url("embedded::memory:").open().await?;
/// let users = storage.clone();
/// let queries = QueryDispatcher::builder()
///     .handler(move |query: CountUsers| {
///         let users = users.clone();
///         async move {
///             let named = nodestorage::Query::new().equal("name", query.named).allow_scan();
///             users.count("users", &named).await
///         }
///     })?
///     .build();
/// assert_eq!(queries.ask(CountUsers { named: "Kim".into() }).await?, 0);
/// # storage.close().await;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "embedded"))] fn main() {}
/// ```
#[derive(Clone)]
pub struct QueryDispatcher {
    handlers: Arc<HashMap<TypeId, Registered>>,
}

/// Puts a [`QueryDispatcher`] together.
///
/// # Examples
/// ```
/// use nodestorage::query::QueryDispatcher;
///
/// let nobody = QueryDispatcher::builder().build();
/// assert!(nobody.queries().is_empty());
/// ```
#[derive(Default)]
pub struct QueryDispatcherBuilder {
    handlers: HashMap<TypeId, Registered>,
}

impl QueryDispatcher {
    /// A dispatcher without handlers so far.
    #[must_use]
    pub fn builder() -> QueryDispatcherBuilder {
        QueryDispatcherBuilder::default()
    }

    /// Answers a query. Dropping the future drops the handler's.
    ///
    /// # Errors
    /// `UnknownQuery` if no handler is registered for its type, and the handler's own: an [`Error`] as it is,
    /// any other as the source of one of kind `Mapping`.
    pub async fn ask<Q: Query>(&self, query: Q) -> Result<Q::Output> {
        let Some(registered) = self.handlers.get(&TypeId::of::<Q>()) else {
            return Err(Error::new(
                ErrorKind::UnknownQuery,
                format!("no handler is registered for query {}", name_of::<Q>()),
            ));
        };
        let answered = (registered.handle)(Box::new(query)).await;
        let answer = answered.map_err(|error| failed::<Q>(error))?;
        match answer.downcast::<Q::Output>() {
            Ok(output) => Ok(*output),
            // The type of the query says which handler it is, and that has this output.
            Err(_) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("query {} was answered by another type", name_of::<Q>()),
            )),
        }
    }

    /// The types that there are handlers for, in order.
    #[must_use]
    pub fn queries(&self) -> Vec<&'static str> {
        let mut queries: Vec<_> = self.handlers.values().map(|it| it.query).collect();
        queries.sort_unstable();
        queries
    }
}

impl QueryDispatcherBuilder {
    /// Registers the handler of a query type: a closure, or whatever implements [`QueryHandler`].
    ///
    /// # Errors
    /// `AlreadyRegistered` if the type has one.
    pub fn handler<Q: Query, H: QueryHandler<Q>>(mut self, handler: H) -> Result<Self> {
        if self.handlers.contains_key(&TypeId::of::<Q>()) {
            return Err(Error::new(
                ErrorKind::AlreadyRegistered,
                format!("query {} has a handler already", name_of::<Q>()),
            ));
        }
        let handler = Arc::new(handler);
        let handle: Arc<Erased> = Arc::new(move |query: Box<dyn Any + Send>| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let query = query
                    .downcast::<Q>()
                    .map_err(|_| "a query of another type")?;
                let output = handler.handle(*query).await?;
                Ok(Box::new(output) as Box<dyn Any + Send>)
            })
        });
        let query = name_of::<Q>();
        self.handlers
            .insert(TypeId::of::<Q>(), Registered { query, handle });
        Ok(self)
    }

    /// The dispatcher.
    #[must_use]
    pub fn build(self) -> QueryDispatcher {
        QueryDispatcher {
            handlers: Arc::new(self.handlers),
        }
    }
}

impl<Q, F, Fut, E> QueryHandler<Q> for F
where
    Q: Query,
    F: Fn(Q) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Q::Output, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    fn handle(&self, query: Q) -> impl Future<Output = Result<Q::Output, BoxError>> + Send {
        let answer = self(query);
        async move { answer.await.map_err(Into::into) }
    }
}

fn failed<Q>(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => {
            let what = format!("query {} failed", name_of::<Q>());
            Error::new(ErrorKind::Mapping, what).with_source(error)
        }
    }
}

fn name_of<Q>() -> &'static str {
    std::any::type_name::<Q>()
}

impl fmt::Debug for QueryDispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryDispatcher")
            .field("queries", &self.queries())
            .finish()
    }
}

impl fmt::Debug for QueryDispatcherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryDispatcherBuilder")
            .field("handlers", &self.handlers.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Double(i64);

    impl Query for Double {
        type Output = i64;
    }

    #[derive(Debug)]
    struct Shout(&'static str);

    impl Query for Shout {
        type Output = String;
    }

    struct Shouting;

    impl QueryHandler<Shout> for Shouting {
        async fn handle(&self, query: Shout) -> Result<String, BoxError> {
            if query.0.is_empty() {
                return Err("nothing to shout".into());
            }
            Ok(query.0.to_uppercase())
        }
    }

    fn queries() -> QueryDispatcher {
        QueryDispatcher::builder()
            .handler(|query: Double| async move {
                let doubled = query.0.checked_mul(2);
                doubled.ok_or_else(|| Error::new(ErrorKind::TooLarge, "no such double"))
            })
            .unwrap()
            .handler(Shouting)
            .unwrap()
            .build()
    }

    #[tokio::test]
    async fn each_query_goes_to_the_handler_of_its_type() {
        let queries = queries();
        assert_eq!(queries.ask(Double(21)).await.unwrap(), 42);
        assert_eq!(queries.ask(Shout("hey")).await.unwrap(), "HEY");
        assert_eq!(queries.queries().len(), 2);
    }

    #[tokio::test]
    async fn an_unknown_query_and_a_second_handler_are_typed_errors() {
        let none = QueryDispatcher::builder().build();
        let unknown = none.ask(Double(1)).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::UnknownQuery);
        assert!(unknown.to_string().contains("Double"), "{unknown}");
        let second = QueryDispatcher::builder()
            .handler(Shouting)
            .unwrap()
            .handler(|query: Shout| async move { Ok::<_, Error>(query.0.to_owned()) });
        let second = second.unwrap_err();
        assert_eq!(second.kind(), ErrorKind::AlreadyRegistered);
        assert!(second.to_string().contains("Shout"), "{second}");
    }

    #[tokio::test]
    async fn an_error_of_ours_keeps_its_kind_and_any_other_is_the_source() {
        let queries = queries();
        let ours = queries.ask(Double(i64::MAX)).await.unwrap_err();
        assert_eq!(ours.kind(), ErrorKind::TooLarge);
        let other = queries.ask(Shout("")).await.unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Mapping);
        let source = std::error::Error::source(&other).unwrap();
        assert_eq!(source.to_string(), "nothing to shout");
    }
}
