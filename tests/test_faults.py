"""What hostile and careless use once found, by its kind, and the tests that hold it; each fails before its repair."""

from pathlib import Path

import pytest

HELD_BY = {
    "1: judge and accused in one process": (
        "offline/test_isolated.py::test_every_other_end_is_no_decision",
        "offline/test_isolated.py::test_no_secret_is_handed_on",
        "offline/test_isolated.py::test_foreign_code_in_a_file_of_weights_is_not_run",
        "offline/test_measurement.py::test_all_else_is_no_decision",
    ),
    "2: an irreversible act before its outputs are checked": (
        "test_cli.py::test_a_result_that_cannot_be_written_is_two_before_anything_is_written",
        "test_cli.py::test_no_old_result_stays",
        "gate/test_cuts.py::test_a_write_that_fails_is_made_up_for",
        "gate/test_cuts.py::test_every_request_to_a_real_server",
    ),
    "3: Python's exit 1 taken for a verdict": (
        "test_cli.py::test_no_error_is_taken_for_a_no",
        "test_cli.py::test_data_that_cannot_be_imported_is_two",
        "gate/test_policy.py::test_endless_files_are_refused_at_once",
    ),
    "4: names split at the wrong place": (
        "gate/test_decide.py::test_an_undecided_family_of_a_further_loader_never_passes",
    ),
    "5: empty strings": ("test_cli.py::test_aliases_that_no_registry_takes_are_two_before_anything_is_written",),
    "6: half-done promotions": (
        "gate/test_cuts.py::test_the_webhook_promotes_what_was_cut_off",
        "gate/test_cuts.py::test_the_webhook_completes_every_cut_of_a_real_server",
    ),
    "7: foreign numbers": ("gate/test_decide.py::test_numbers_of_another_layer_method_or_version_are_not_compared",),
    "8: what may be promoted": (
        "gate/test_model_metrics.py::test_what_is_deleted_failed_or_archived_is_no_candidate",
        "gate/test_model_metrics.py::test_the_latest_evaluation_counts_whole",
        "gate/test_decide.py::test_what_must_not_be_promoted_fails_whatever_its_numbers",
    ),
    "9: unguarded ends": (
        "training/test_ends.py::test_no_end_lets_an_error_out",
        "training/test_hostile_fits.py::test_the_fit_is_as_without_the_callback",
        "tracking/test_spool_failures.py::test_a_folder_that_cannot_be_read_ends_no_thread",
    ),
    "10: the user's types serialised late": (
        "data/test_column_types.py::test_whatever_comes_in_can_be_written",
        "data/test_column_types.py::test_two_columns_of_one_name_are_refused",
    ),
    "11: a spool that is trusted": (
        "tracking/test_hostile_spools.py::test_links_are_neither_uploaded_nor_emptied",
        "tracking/test_hostile_spools.py::test_a_bad_job_is_named_and_passed_over",
        "tracking/test_hostile_spools.py::test_deep_and_endless_descriptions_stop_nobody",
        "tracking/test_hostile_spools.py::test_three_at_once_upload_each_job_once",
        "tracking/test_hostile_spools.py::test_an_analysis_that_was_cut_while_it_was_written_is_named",
    ),
    "12: a report that is trusted": (
        "report/test_hostile_folders.py::test_changed_reports",
        "report/test_hostile_folders.py::test_a_split_is_no_path",
        "data/test_untrusted_files.py::test_a_header_that_asks_for_more_than_the_file_can_hold",
        "data/test_untrusted_files.py::test_an_archive_that_unpacks_to_a_thousand_times_its_size",
    ),
    "13: long work that hears no signal": (
        "training/test_ends.py::test_a_signal_ends_the_analysis_without_a_word",
        "training/test_interruptions.py::test_a_signal_is_answered_as_without_the_callback",
    ),
    "14: policy files": ("gate/test_policy.py::test_what_yaml_reads_otherwise_than_a_person_is_refused",),
    "15: command line": ("test_cli.py::test_what_can_be_refused_is_refused_before_the_work",),
    "16: text": (
        "gate/test_render.py::test_what_turns_or_breaks_text_is_neutralised",
        "gate/test_render.py::test_own_words_around_the_verdict_stay",
    ),
    "17: metadata files": (
        "data/test_metadata_files.py::test_another_form_is_named",
        "data/test_metadata_files.py::test_strange_content_is_refused_at_once",
    ),
}


@pytest.mark.parametrize("kind", HELD_BY)
def test_every_kind_is_held_by_tests_that_exist(kind):
    for test in HELD_BY[kind]:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(), test
