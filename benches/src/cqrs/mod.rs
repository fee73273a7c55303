//! What the scenarios of aggregates and commands share: the aggregates, and those who send commands to them.

pub(crate) mod account;
pub(crate) mod counting;
pub(crate) mod emmett;
pub(crate) mod reading;
pub(crate) mod user;
