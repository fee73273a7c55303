//! Queries: typed questions with one handler each, and pages of their answers.
//!
//! A [`QueryDispatcher`] hands each [`Query`] to the handler of its type. What handlers mostly do is read a
//! page: of documents, by [`Storage::find_page`](crate::Storage::find_page), or of the views of a projection,
//! by [`Views::page`](crate::projection::Views::page).

mod definition;
mod dispatcher;
mod page;
mod read;

pub use definition::{Query, QueryHandler};
pub use dispatcher::{QueryDispatcher, QueryDispatcherBuilder};
pub use page::{PageLimits, PageRequest, Paged};
