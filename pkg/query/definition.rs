use std::future::Future;

use crate::error::BoxError;

/// A question, by its type; its fields are the parameters.
///
/// ```
/// use nodestorage::query::{PageRequest, Paged, Query};
///
/// struct User { name: String }
///
/// struct GetUsers { name: Option<String>, page: PageRequest }
///
/// impl Query for GetUsers {
///     type Output = Paged<User>;
/// }
/// ```
pub trait Query: Send + 'static {
    /// The answer.
    type Output: Send + 'static;
}

/// Answers the queries of one type. Closures that return a future are handlers too.
///
/// ```
/// use nodestorage::error::BoxError;
/// use nodestorage::query::{Query, QueryHandler};
///
/// struct Double(i64);
///
/// impl Query for Double { type Output = i64; }
///
/// struct Doubling;
///
/// impl QueryHandler<Double> for Doubling {
///     async fn handle(&self, query: Double) -> Result<i64, BoxError> {
///         query.0.checked_mul(2).ok_or_else(|| "too large".into())
///     }
/// }
/// ```
pub trait QueryHandler<Q: Query>: Send + Sync + 'static {
    /// Answers a query.
    ///
    /// # Errors
    /// Anything: an [`Error`](crate::Error) reaches whoever asked as it is.
    fn handle(&self, query: Q) -> impl Future<Output = Result<Q::Output, BoxError>> + Send;
}
