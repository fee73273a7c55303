//! Cases of reading the log: past states, pages, subscriptions, the doctor.

pub mod doctor;
pub mod following;
pub mod leases;
pub mod outages;
pub mod pages;
mod seen;
pub mod states;
pub mod subscribing;
