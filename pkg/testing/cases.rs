//! The list of all storage, log and mapping cases.

use super::Ability;

/// Makes a test of every storage conformance case for one backend; see
/// [`testing`](crate::testing).
///
/// Expands to one test per case, named like the case, ignored where the backend is declared to lack
/// what the case needs, and to a module `harness` with the checks of the declaration itself. Use it in
/// a module named like the backend. `store` is an expression that gives a new
/// [`TestStore`](crate::testing::TestStore) each time.
#[macro_export]
macro_rules! conformance {
    (
        name: $name:expr,
        store: $store:expr,
        foreign_writers: $foreign:ident,
        multi_process: $processes:ident,
        durable: $durable:ident $(,)?
    ) => {
        fn new_store() -> impl $crate::testing::TestStore {
            $store
        }

        $crate::conformance! { @list tests ($foreign $processes $durable) }

        mod harness {
            const DECLARED: $crate::testing::Declared = $crate::testing::Declared {
                foreign_writers: $crate::conformance!(@flag $foreign),
                multi_process: $crate::conformance!(@flag $processes),
                durable: $crate::conformance!(@flag $durable),
            };

            #[::tokio::test(flavor = "multi_thread")]
            async fn declared_abilities_are_those_of_the_backend() {
                let store = super::new_store();
                DECLARED.check(&store).await;
            }

            #[test]
            fn the_number_of_cases_is_told() {
                DECLARED.report($name);
            }
        }
    };

    (@flag run) => { true };
    (@flag not_applicable) => { false };

    (@tests $args:tt; $($module:tt { $($ability:ident $case:ident,)* })*) => {
        $($( $crate::conformance! { @test $ability $args $module $case } )*)*
    };
    (@test core ($f:ident $p:ident $d:ident) $module:tt $case:ident) => {
        $crate::conformance! { @one $module $case; }
    };
    (@test foreign_writers (run $p:ident $d:ident) $module:tt $case:ident) => {
        $crate::conformance! { @one $module $case; }
    };
    (@test foreign_writers (not_applicable $p:ident $d:ident) $m:tt $case:ident) => {
        $crate::conformance! { @one $m $case; "not applicable: no foreign writers" }
    };
    (@test multi_process ($f:ident run $d:ident) $module:tt $case:ident) => {
        $crate::conformance! { @one $module $case; }
    };
    (@test multi_process ($f:ident not_applicable $d:ident) $m:tt $case:ident) => {
        $crate::conformance! { @one $m $case; "not applicable: one process at a time" }
    };
    (@test durable ($f:ident $p:ident run) $module:tt $case:ident) => {
        $crate::conformance! { @one $module $case; }
    };
    (@test durable ($f:ident $p:ident not_applicable) $m:tt $case:ident) => {
        $crate::conformance! { @one $m $case; "not applicable: not durable" }
    };
    (@one [$($module:ident)::+] $case:ident; $($reason:literal)?) => {
        #[::tokio::test(flavor = "multi_thread")]
        $(#[ignore = $reason])?
        async fn $case() {
            let store = new_store();
            let case = $crate::testing::$($module)::+::$case(&store);
            $crate::testing::run_case(stringify!($case), case).await;
        }
    };

    (@names; $($module:tt { $($ability:ident $case:ident,)* })*) => {
        &[$($( (stringify!($case), $crate::conformance!(@ability $ability)) ),*),*]
    };
    (@ability core) => { $crate::testing::Ability::Core };
    (@ability foreign_writers) => { $crate::testing::Ability::ForeignWriters };
    (@ability multi_process) => { $crate::testing::Ability::MultiProcess };
    (@ability durable) => { $crate::testing::Ability::Durable };

    // The list: module, then each case with what it needs.
    (@list $what:ident $($args:tt)?) => {
        $crate::conformance! { @$what $($args)?;
            [storage::basics] {
                core a_document_is_created_read_updated_and_deleted,
                core a_missing_document_is_none_for_find_and_an_error_for_load,
                core a_missing_document_is_none_for_the_closure,
                core returning_none_deletes,
                core deleting_what_is_not_there_changes_nothing,
                core an_equal_document_writes_nothing,
                core a_rejection_is_typed_and_writes_nothing,
                core create_refuses_an_existing_document,
                core modify_needs_a_document,
                core closures_that_await_see_the_newest_document,
                core collections_do_not_share_ids,
                core ids_of_every_type_name_different_documents,
                core fields_unknown_to_the_type_survive,
                core id_and_version_may_be_fields_of_the_type,
                core a_closed_storage_refuses_calls,
                durable everything_is_there_after_reopening,
            }
            [cqrs::aggregates] {
                core a_command_changes_the_state_and_logs_its_events,
                core a_rejected_command_writes_nothing,
                core the_document_is_what_the_events_lead_to,
                core a_state_that_parts_from_its_events_is_found,
                core conflicting_commands_are_decided_again,
                core deciding_again_is_bounded,
                core of_many_creating_commands_one_wins,
                core a_deleted_aggregate_leaves_its_log,
                core a_panicking_aggregate_is_an_error,
                core events_of_other_schemas_are_upcast_or_refused,
                core inline_views_are_never_behind,
                core commands_take_part_in_transactions,
                core aggregates_are_found_by_name,
                core events_of_another_form_are_refused,
            }
            [cqrs::sourced] {
                core states_are_replayed_with_and_without_snapshots,
                core a_damaged_snapshot_is_passed_over,
                core documents_and_events_alone_are_not_mixed,
            }
            [cqrs::commands] {
                core a_command_has_one_handler,
                core an_unknown_command_is_a_typed_error,
                core malformed_commands_name_the_field,
                core typed_and_named_commands_do_the_same,
                core a_command_id_runs_once,
                core many_command_ids_on_one_aggregate,
                core old_command_ids_are_forgotten,
                durable a_command_id_is_remembered_after_a_restart,
                core middleware_surrounds_commands,
                core handlers_of_the_applications_own,
            }
            [history::states] {
                core every_version_is_rebuilt_byte_for_byte,
                core versions_that_never_were_are_not_found,
                core histories_of_bad_names_and_closed_storages_are_refused,
                core the_state_at_a_time,
                core adopted_states_are_those_that_were_found,
                core the_version_field_is_that_of_the_entry,
                core events_alone_leave_the_state_as_it_was,
            }
            [history::pages] {
                core versions_are_paged_in_both_directions,
                core a_deleted_document_has_its_history,
                core events_are_paged_with_their_versions,
            }
            [history::following] {
                core catching_up_while_writers_write_loses_and_repeats_nothing,
                core the_log_is_followed_from_now_and_from_a_cursor,
                core the_log_of_a_closed_storage_ends,
                core closing_does_not_wait_for_a_kept_log,
            }
            [history::subscribing] {
                core a_subscription_begins_at_the_beginning_or_now,
                core a_subscription_continues_at_its_checkpoint,
                core a_subscription_keeps_up_with_writers,
                core a_failing_handler_is_called_again,
                core shutting_down_waits_for_the_handler,
                core entries_can_be_subscribed_to,
                core subscriptions_end_with_their_storage,
            }
            [history::leases] {
                core subscriptions_of_one_name_take_turns,
                core a_stale_checkpoint_owner_is_refused,
                core a_subscription_that_lost_its_lease_continues,
            }
            [history::outages] {
                core a_subscription_waits_outages_out,
                core damage_ends_subscriptions_and_streams,
            }
            [history::doctor] {
                core what_the_storage_wrote_is_healthy,
                core what_other_programs_did_is_found,
                core declared_collections_are_checked_without_a_log,
                core a_version_field_without_a_version_is_found,
            }
            [storage::versions] {
                core versions_start_at_one_and_rise_by_one,
                core numbering_continues_after_deletion,
                core each_expectation_accepts_what_it_says,
                core a_stale_expected_version_fails_with_both_versions,
                core an_expected_version_is_decided_on_committed_state,
                core one_of_many_writers_at_one_expected_version_wins,
                core the_version_field_may_have_another_name,
                core a_version_field_without_a_version_is_corrupt,
            }
            [storage::concurrency] {
                core many_tasks_increment_one_document,
                core several_storages_increment_one_document,
                multi_process two_clients_increment_one_document,
                core many_documents_are_updated_at_once,
                core racing_creations_and_deletions_keep_one_numbering,
                core an_update_dropped_at_any_await_happened_or_did_not,
                core a_dropped_transaction_or_append_happened_or_did_not,
                core an_update_never_polled_again_holds_up_nobody,
                core many_updates_never_polled_again_hold_up_nobody,
                core a_panicking_closure_leaves_everything_usable,
            }
            [storage::batches] {
                core updates_of_one_document_share_its_writes,
                core a_remembered_document_decides_nothing,
                core the_cache_saves_reads,
                core a_refused_update_among_many_fails_alone,
            }
            [storage::transactions] {
                core a_transaction_changes_all_its_documents,
                core a_failed_transaction_writes_nothing,
                core a_transaction_reads_its_own_writes,
                core a_transaction_that_loses_a_race_runs_again,
                core a_transaction_that_keeps_losing_gives_up,
                core documents_only_read_are_validated,
                core a_transaction_that_only_reads_sees_one_state,
                core transactions_in_opposite_order_finish,
                core a_handle_is_of_no_use_after_the_end,
                core one_refused_document_undoes_the_transaction,
                core metadata_and_events_of_a_transaction_are_logged,
                core a_transaction_adopts_foreign_changes,
            }
            [storage::foreign] {
                core a_document_without_a_version_is_adopted,
                core a_document_that_was_never_logged_is_adopted,
                core a_raised_version_is_adopted,
                core a_document_restored_behind_the_log_is_adopted,
                core a_document_stripped_of_its_version_is_adopted,
                core a_foreign_deletion_is_adopted,
                core a_document_that_came_back_is_adopted,
                core deleting_a_foreign_document_adopts_it_first,
                core what_writes_nothing_adopts_nothing,
                core expected_versions_see_foreign_writes,
                core a_foreign_write_during_an_update_is_not_lost,
                core a_foreign_writer_with_the_same_compare_and_swap_loses_nothing,
                core the_three_ones_are_one_id,
                foreign_writers a_foreign_unique_index_refuses_its_own_caller_only,
                foreign_writers a_foreign_validator_refuses_its_own_caller_only,
            }
            [storage::names] {
                core bad_collection_names_are_refused_unsent,
                core bad_ids_are_refused_unsent,
                core the_longest_and_oddest_names_work,
                core bad_version_fields_are_refused,
            }
            [storage::retries] {
                core a_short_outage_is_survived,
                core a_long_outage_exhausts_the_attempts,
                core transactions_and_appends_retry_too,
                core a_writer_that_always_loses_gives_up,
                core final_failures_are_not_retried,
                core an_unknown_commit_is_not_repeated,
                core the_deadline_ends_the_attempts,
                core another_storage_sees_what_was_acknowledged,
            }
            [storage::deadlines] {
                core a_deadline_in_the_queue_is_a_timeout_and_writes_nothing,
                core a_deadline_during_the_commit_is_commit_unknown,
            }
            [storage::bytes] {
                core every_bson_type_round_trips,
                core values_that_look_alike_are_told_apart,
                core nan_is_no_change,
                core fields_keep_their_order,
                core odd_keys_are_ordinary,
                core what_looks_like_extended_json_is_data,
                core documents_may_be_a_hundred_levels_deep,
                core stored_bytes_are_the_computed_bytes,
                core edits_of_arrays_replay_to_the_stored_bytes,
            }
            [storage::typed] {
                core a_change_below_a_defaulted_parent_writes_it_whole,
                core untouched_defaults_are_not_written,
                core an_aliased_field_is_kept_or_refused,
                core renamed_fields_are_stored_under_their_stored_names,
                core a_field_written_under_another_name_is_refused,
                core flattened_maps_change_add_and_remove_keys,
                core skipped_fields_stay_and_omitted_ones_go,
                core sets_and_maps_without_an_order_change_by_value,
                core array_elements_are_matched_by_value,
                core enums_and_options_change_their_shape,
                core what_does_not_fit_the_type_is_an_error,
            }
            [storage::limits] {
                core the_largest_document_fits_and_one_byte_more_does_not,
                core a_document_far_over_the_limit_is_refused,
                core events_beyond_the_limit_are_refused,
                core small_changes_of_large_documents_have_small_entries,
            }
            [storage::streams] {
                core appended_events_are_read_back,
                core streams_are_read_by_ranges_of_versions,
                core appends_are_guarded_by_expected_versions,
                core concurrent_appends_stay_together,
                core streams_are_apart_from_documents,
            }
            [mapping::mappers] {
                core default_events_are_named_after_the_collection,
                core registered_names_take_the_place_of_the_default_ones,
                core a_custom_mapper_serves_its_collection_only,
                core a_mapper_sees_the_whole_change,
                core a_failing_mapper_writes_nothing,
                core a_panicking_mapper_writes_nothing,
                core event_ids_follow_from_what_they_are_about,
                core emitted_events_follow_the_mapped_ones,
                core emitting_without_a_change_is_a_version,
                core metadata_travels_with_the_events,
                core unusable_events_are_refused,
            }
            [mapping::rendering] {
                core default_events_hold_diff_and_merge_patch,
                core the_log_renders_what_the_change_told,
                core random_changes_tell_and_render_the_same,
            }
            [mapping::upcasting] {
                core old_events_from_the_log_are_upcast_through_the_chain,
                core unknown_events_fail_or_pass_as_configured,
            }
            [storage::queries] {
                core filters_find_what_they_say,
                core results_are_sorted_and_limited,
                core pages_go_through_everything_once,
                core unindexed_queries_are_refused,
                core random_queries_give_what_the_rules_say,
                core a_declared_unique_index_refuses_its_own_caller_only,
                core indexes_are_created_and_verified_on_opening,
                core foreign_documents_are_found,
            }
            [backend::commits] {
                core conditions_compare_the_stored_document,
                core units_are_committed_together,
                core whatever_fails_nothing_is_written,
                core one_of_many_commits_on_one_version_succeeds,
                core what_holds_of_several_units_is_committed_or_nothing_is,
                core checks_prevent_write_skew,
                core a_deletion_keeps_the_log,
                core many_keys_are_loaded_in_their_order,
                core a_fence_holds_off_a_former_owner,
            }
            [backend::records] {
                core records_are_written_and_read,
                core records_are_paged_in_the_order_of_keys,
            }
            [backend::leases] {
                core a_lease_has_one_owner,
                core a_takeover_raises_the_fence,
                core a_lease_that_ran_out_is_a_new_one,
                core a_checkpoint_prolongs_the_lease,
                core it_shows_whether_a_lease_is_held,
                durable a_checkpoint_is_there_after_reopening,
            }
            [backend::log] {
                core ranges_of_the_log_are_read,
                core entries_come_back_as_committed,
                core positions_rise_and_stay,
                core what_lies_behind_a_position_is_counted,
            }
            [backend::tail] {
                core the_log_is_followed_from_the_beginning,
                core the_log_is_followed_from_now,
                core the_log_is_followed_from_a_cursor,
                core following_while_writers_write_leaves_nothing_out,
                core a_tail_that_is_not_polled_holds_up_nobody,
            }
            [cqrs::sagas] {
                core a_rejected_transfer_is_compensated_in_reverse_order,
                core a_restart_in_the_middle_resumes,
                core a_timeout_fires_after_a_restart,
                core transfers_lose_and_make_no_money,
                core stuck_sagas_are_listed_and_retried,
                core a_sagas_changes_are_its_events,
            }
            [cqrs::saga_inputs] {
                core a_second_start_finds_the_first,
                core a_signal_reaches_one_step_once,
                core events_start_and_signal_sagas,
            }
            [cqrs::saga_commands] {
                core commands_are_sent_once_under_the_effects_id,
                core commands_in_doubt_are_settled_before_they_are_undone,
            }
            [cqrs::saga_runners] {
                core runners_of_one_name_take_turns,
                core a_runner_that_lost_its_lease_drops_its_steps,
                core what_a_former_runner_decided_is_refused,
                core outages_and_unknown_commits_are_survived,
                core no_more_sagas_run_at_a_time_than_allowed,
                core sagas_of_other_processes_are_noticed,
                core shutting_down_waits_for_steps_in_work,
                core sagas_end_with_their_storage,
            }
            [cqrs::projections] {
                core a_projection_keeps_up_with_writers,
                core a_projection_continues_at_its_checkpoint,
                core what_is_repeated_counts_once,
                core one_projection_of_a_name_runs,
                core a_dead_owner_is_replaced,
                core ones_own_writes_are_read,
                core what_makes_no_sense_is_refused,
                core views_that_do_not_fit_in_memory_are_read_again,
            }
            [cqrs::letters] {
                core a_failing_event_waits_in_the_dead_letters,
                core a_failing_event_can_be_discarded,
                core parked_documents_survive_a_takeover,
                core too_many_parked_documents_stop_it,
                core events_come_in_the_form_that_the_code_knows,
                core a_view_that_cannot_be_stored_costs_its_event,
            }
            [cqrs::rebuilds] {
                core views_are_rebuilt_while_writers_write,
                core newer_code_takes_over_when_its_views_are_complete,
                core incomplete_views_do_not_take_over,
                core a_rebuild_survives_its_process,
            }
            [cqrs::targets] {
                core a_target_that_is_down_loses_nothing,
                core views_written_elsewhere_are_read_again,
                core views_may_be_kept_in_another_storage,
                core a_store_that_fails_now_and_then_loses_nothing,
            }
            [cqrs::queries] {
                core matches_are_counted,
                core pages_know_their_total,
                core views_are_paged,
                core queries_have_one_handler_each,
            }
            [log] {
                core entries_say_what_happened,
                core every_hundredth_version_holds_the_whole_document,
                core random_changes_replay_to_the_stored_bytes,
                core failed_updates_leave_no_trace,
            }
        }
    };
}

/// The names of all cases with what they need, in the order of the list.
pub const CASES: &[(&str, Ability)] = conformance!(@list names);
