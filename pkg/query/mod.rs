//! Queries: typed questions with one handler each, and pages of their answers.

mod page;

pub use page::{PageLimits, PageRequest, Paged};
