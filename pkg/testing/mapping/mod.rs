//! Cases of event mapping: from a change to the events in its log entry.

pub mod mappers;
pub mod rendering;
pub mod upcasting;
