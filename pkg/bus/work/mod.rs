//! What buses that run handlers in this process have in common: lanes, attempts, workers.

mod attempt;
mod crew;
mod lanes;
mod recent;

pub(in crate::bus) use attempt::attempt;
#[cfg(any(feature = "redis", feature = "nats"))]
pub(in crate::bus) use attempt::with_causes;
pub(in crate::bus) use crew::{Crew, Finish};
pub(in crate::bus) use lanes::Lanes;
pub(in crate::bus) use recent::Recent;

use std::time::Duration;

/// Thirty years: adding it to an instant overflows on no platform.
pub(in crate::bus) const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);
