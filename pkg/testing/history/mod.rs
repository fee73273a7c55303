//! Cases of reading the log: past states, pages, subscriptions, the doctor.

pub mod doctor;
pub mod following;
pub mod pages;
pub mod states;
pub mod subscribing;
