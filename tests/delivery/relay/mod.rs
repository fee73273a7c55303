//! The relay on both backends, with buses that fail on demand, and a store that can be cut off or held.

mod apart;
mod batches;
mod delivered;
mod elsewhere;
mod failing;
mod lagging;
mod parked;
mod store;
mod stores;
mod support;
mod takeover;

/// Makes a test of every function on every kind of store.
macro_rules! on_every_store {
    ($($file:ident { $($test:ident)* })*) => {
        on_every_store!(@on embedded: $($($file $test)*)*);
        on_every_store!(@on mongodb: $($($file $test)*)*);
    };
    (@on $stores:ident: $($file:ident $test:ident)*) => {
        mod $stores {
            use super::stores::Stores;

            $(
                #[tokio::test]
                async fn $test() {
                    super::$file::$test(Stores::$stores()).await;
                }
            )*
        }
    };
}

on_every_store! {
    apart {
        two_databases_on_one_stream_share_no_event_id
    }
    batches {
        batches_are_bounded_in_bytes
        a_commit_is_published_at_once
    }
    delivered {
        a_version_is_delivered_when_the_bus_has_confirmed_it
        a_thousand_waiters_each_get_their_answer_and_dropped_ones_leave_nothing
        waiting_ends_when_the_relay_does
        a_relay_in_another_process_confirms_too
    }
    elsewhere {
        a_change_without_events_is_delivered_at_once
        without_any_relay_nothing_confirms_a_delivery
        a_storage_without_a_bus_waits_for_a_relay_elsewhere
        waiting_for_a_relay_elsewhere_ends_some_time_after_it
    }
    failing {
        while_the_bus_is_down_commits_go_on_and_the_backlog_drains_afterwards
        a_store_that_goes_away_and_comes_back_loses_nothing
        a_bus_that_is_down_delays_the_others_but_nobody_misses_anything
        a_poison_event_holds_back_its_document_only_until_it_is_released
        discarding_gives_up_the_failed_event_alone
        a_closed_bus_or_store_stops_the_relay
        nothing_is_parked_before_every_bus_has_what_came_earlier
    }
    lagging {
        a_relay_says_how_far_it_is_behind
    }
    parked {
        parked_documents_survive_a_takeover
        too_many_parked_documents_stop_the_relay_until_there_is_room
        many_parked_documents_are_all_loaded
    }
    takeover {
        everything_is_published_in_order_and_a_restart_repeats_nothing
        a_memory_bus_subscriber_gets_every_event
        shutting_down_publishes_what_the_log_holds
        a_crash_between_publish_and_checkpoint_repeats_and_loses_nothing
        of_two_relays_one_publishes_and_the_other_takes_over_from_a_dead_one
        a_paused_owner_that_wakes_after_a_takeover_steps_back
        a_slow_bus_keeps_the_lease
        a_bus_that_never_answers_holds_up_the_end_until_the_deadline
        dropping_the_last_handle_ends_the_relay
    }
}

/// What no server can hold, and what would take a server minutes.
mod embedded_only {
    use super::stores::Stores;

    #[tokio::test]
    async fn an_unreadable_entry_parks_its_document() {
        super::failing::an_unreadable_entry_parks_its_document(Stores::embedded()).await;
    }

    #[tokio::test]
    async fn ten_thousand_parked_documents_stop_the_relay() {
        super::parked::ten_thousand_parked_documents_stop_the_relay(Stores::embedded()).await;
    }

    #[tokio::test]
    async fn a_relay_that_makes_no_sense_is_refused() {
        super::takeover::a_relay_that_makes_no_sense_is_refused(Stores::embedded()).await;
    }
}
