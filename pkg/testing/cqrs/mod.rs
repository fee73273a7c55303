//! Cases of the layer on top: projections and queries.

pub mod letters;
pub mod projections;
pub mod queries;
pub mod rebuilds;
mod support;
pub mod targets;
