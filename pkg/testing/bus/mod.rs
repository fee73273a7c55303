//! The behaviours every event bus must show, one named case each.
//!
//! [`bus_conformance!`](crate::bus_conformance) makes a test of every case for one implementation:
//!
//! ```ignore
//! async fn memory() -> Arc<dyn EventBus> {
//!     Arc::new(MemoryBus::new())
//! }
//! nodestorage::bus_conformance!(memory);
//! ```
//!
//! The harness is called once or more per case and gives an open bus that shares no event with the
//! other ones it gave. A case polls with a deadline of half a minute, since a broker may take that
//! long to notice that a member is gone.

mod delivery;
mod durable;
mod ending;
mod failure;
mod filtering;
mod groups;
mod support;

use crate::bus::EventBus;
use std::sync::Arc;

pub use delivery::*;
pub use durable::*;
pub use ending::*;
pub use failure::*;
pub use filtering::*;
pub use groups::*;
pub use support::{Recorder, eventually, sample_event};

/// What became of a case that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The bus behaves as it must.
    Passed,
    /// The bus says that it lacks this ability, and refuses what needs it.
    NotApplicable(&'static str),
}

/// Gives a fresh, open bus each time it is called.
pub trait Harness: Fn() -> Self::Future + Send + Sync {
    /// What the call returns.
    type Future: Future<Output = Arc<dyn EventBus>> + Send;
}

impl<F, Fut> Harness for F
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Arc<dyn EventBus>> + Send,
{
    type Future = Fut;
}

/// Says on standard error what became of a case, for the test that ran it.
pub fn report(case: &str, verdict: Verdict) {
    if let Verdict::NotApplicable(ability) = verdict {
        eprintln!("case {case} is not applicable: the bus is not {ability}");
    }
}

/// Makes a test of every bus conformance case for one harness, see [`testing::bus`](crate::testing::bus).
#[macro_export]
macro_rules! bus_conformance {
    (@tests $harness:path; $($case:ident)*) => {$(
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let verdict = $crate::testing::bus::$case($harness).await;
            $crate::testing::bus::report(stringify!($case), verdict);
        }
    )*};
    (@names; $($case:ident)*) => { &[$(stringify!($case)),*] };
    (@all $what:ident $($harness:path)?) => {
        $crate::bus_conformance! { @$what $($harness)?;
            publishing_without_a_subscriber_succeeds
            a_batch_arrives_in_order
            concurrent_publishers_keep_each_document_in_order
            metadata_and_payloads_arrive_unchanged
            a_slow_subscriber_does_not_hold_up_the_others
            an_event_id_published_twice_reaches_a_group_once
            starting_from_the_beginning
            a_subscription_to_one_type
            a_subscription_to_several_types
            a_subscription_to_a_pattern
            a_subscription_to_everything
            a_subscription_to_a_collection_or_a_document
            nonsense_is_refused
            order_per_document_with_one_worker
            order_per_document_with_eight_workers
            order_under_redelivery_with_one_worker
            order_under_redelivery_with_eight_workers
            order_under_redelivery_with_three_members
            a_failing_document_holds_back_only_itself
            an_error_is_retried_after_a_backoff
            the_last_failure_goes_to_the_dead_letters
            a_dead_letter_is_redriven
            a_dead_letter_is_discarded
            a_panic_is_a_handler_error
            each_event_reaches_one_member_of_each_group
            members_of_a_group_ask_for_the_same
            an_aborted_member_hands_over_in_order
            an_unsubscribed_member_finishes_its_work_and_leaves_the_rest
            unsubscribing_drains_and_ends
            closing_drains_and_ends
            a_closed_bus_says_so
            a_group_collects_while_nobody_is_there
            what_was_handled_is_not_handled_again
            dead_letters_outlive_their_member
            full_dead_letters_stall_the_subscription
            members_come_and_go_and_nothing_is_lost
            an_event_that_is_too_large_is_poison
            a_bus_without_groups_refuses_them
        }
    };
    ($harness:path) => { $crate::bus_conformance! { @all tests $harness } };
}

/// The names of all cases.
pub const CASES: &[&str] = bus_conformance!(@all names);
