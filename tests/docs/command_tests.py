"""Which test runs a command of the pages, and which commands no test can run."""

import re

JOBS = "tests/jobs/"
BENCHMARKS = "tests/benchmarks/"
SERVING = "tests/pipeline/serving/"
# Run below, word for word, in a folder of the test's own.
AS_WRITTEN = re.compile(
    r"python -m pipeline\.config (schema|show|validate)( |$)"
    r"|python jobs/\w+\.py (.* )?--(help|plan)$"
)
# The command, with comments and what submits it taken away: the test that runs it.
COMMANDS = {
    r"make demo|python -m pipeline\.workers\.local_ray -- COMMAND": (
        f"{JOBS}test_multidomain.py::test_make_demos_command_starts_a_ray_of_its_own"
    ),
    r"make docs": "tests/docs/test_site.py::test_the_site_builds_without_a_warning",
    r"export HYDRAREC_DATA=\S+|python jobs/ingest\.py --check DATA/shop --out shop\.yaml|"
    r"python jobs/multidomain\.py --config shop\.yaml( --models .*)?": (
        "tests/pipeline/sources/test_data_docs.py::test_from_files_to_a_table_of_figures"
    ),
    r"python jobs/ingest\.py --check (DATA/.*|PATH)": (
        "tests/pipeline/sources/test_data_docs.py::test_the_yaml_shown_is_the_yaml_printed"
    ),
    r"python jobs/multidomain\.py --config configs/(positive|negative)_control\.yaml": (
        "tests/pipeline/test_controls.py::"
        "test_joint_training_wins_where_all_is_shared_and_not_where_nothing_is"
    ),
    r"python jobs/multidomain\.py --config OUT/best\.yaml": (
        f"{JOBS}test_tune.py::test_a_search_leaves_its_trials_and_a_config_that_runs"
    ),
    r"python jobs/multidomain\.py --config .*": (
        f"{JOBS}test_multidomain.py::test_the_job_prints_its_stages_a_table_and_the_report"
    ),
    r"python jobs/refresh_embeddings\.py .*": (
        f"{JOBS}test_refresh_embeddings.py::test_a_refresh_costs_what_changed"
    ),
    r"python jobs/tune\.py .*": (
        f"{JOBS}test_tune.py::test_a_search_leaves_its_trials_and_a_config_that_runs"
    ),
    r"python jobs/study\.py (cold_items|new_domain|poor_text)": (
        f"{JOBS}test_study.py::test_a_study_of_runs_goes_through_all_stages_once"
    ),
    r"python jobs/study\.py .*": f"{JOBS}test_study.py::test_figures_and_table_are_written",
    r"python jobs/evaluate_transfer\.py .*": (
        f"{JOBS}test_evaluate_transfer.py::"
        "test_seeds_are_run_on_the_same_data_and_compared_together"
    ),
    r"python jobs/report\.py \S+": (
        f"{JOBS}test_report_job.py::test_the_report_of_one_run_is_made_again"
    ),
    r"python jobs/report\.py \S+ \S+": (
        f"{JOBS}test_report_job.py::test_comparing_prints_a_table_of_80_columns_and_writes_a_page"
    ),
    r"python -m pipeline\.export( .*)?": (
        "tests/pipeline/recommender/test_bundle.py::test_the_command_tells_and_refuses"
    ),
    r"python -m pipeline\.recommender\.item_index .*": (
        "tests/pipeline/recommender/test_item_index.py::test_an_index_finds_most_of_the_best"
    ),
    r"python jobs/recommend\.py .*": (
        "tests/pipeline/recommender/test_batches.py::test_the_job_tells_what_it_did"
    ),
    r"python -m benchmarks\.ranking": (
        f"{BENCHMARKS}test_ranking_benchmark.py::test_it_checks_equality_and_measures_all_forms"
    ),
    r"python -m benchmarks\.streaming.*": (
        f"{BENCHMARKS}test_streaming_benchmark.py::test_it_checks_equality_and_measures_all_forms"
    ),
    r"python jobs/serve\.py --bundle \S+": (
        f"{SERVING}test_serve_job.py::test_every_replica_gives_the_recommenders_answers"
    ),
    r"python jobs/serve\.py swap (\S+)": (
        f"{SERVING}test_serve_job.py::test_bundles_change_under_load_without_a_lost_request"
    ),
    r"curl -s localhost:8000/recommend .*": (
        f"{SERVING}test_serve_job.py::test_every_replica_gives_the_recommenders_answers"
    ),
    r"python tests/pipeline/report/chromium\.py .*": (
        "tests/pipeline/report/test_report_in_browser.py::"
        "test_pictures_for_the_documentation_are_taken"
    ),
    r"python -m tests\.fuzz\.fuzz .*": (
        "tests/fuzz/test_fuzz.py::test_new_inputs_are_read_or_refused"
    ),
    r"python -m benchmarks\.NAME": (
        f"{BENCHMARKS}test_harness.py::test_the_last_line_is_json_and_the_status_tells"
    ),
    r"python -m benchmarks\.aot": "tests/aot/test_aot.py::test_shipped_kernels_pass",
    r"python -m benchmarks\.cache": (
        f"{BENCHMARKS}test_cache_benchmark.py::test_every_part_is_measured"
    ),
    r"python -m benchmarks\.encode": (
        f"{BENCHMARKS}test_encode_benchmark.py::test_both_encoders_are_measured"
    ),
    r"python -m benchmarks\.gpu_check": (
        f"{BENCHMARKS}test_gpu_check.py::test_the_ladder_holds_in_the_interpreter"
    ),
    r"python -m benchmarks\.http": (
        f"{BENCHMARKS}test_http_benchmark.py::test_load_swaps_and_a_kill_are_measured"
    ),
    r"python -m benchmarks\.infonce": (
        f"{BENCHMARKS}test_infonce_benchmark.py::test_the_benchmark_meets_its_bars"
    ),
    r"python -m benchmarks\.objectives.*": (
        f"{BENCHMARKS}test_objectives_benchmark.py::test_both_objectives_are_measured"
    ),
    r"python -m benchmarks\.pipeline.*": (
        f"{BENCHMARKS}test_pipeline_benchmark.py::"
        "test_metrics_are_the_same_and_every_stage_is_in_the_table"
    ),
    r"python -m benchmarks\.scaling.*": (
        f"{BENCHMARKS}test_scaling.py::test_every_stage_is_measured_fitted_and_published"
    ),
    r"python -m benchmarks\.prepare.*": (
        f"{BENCHMARKS}test_prepare_benchmark.py::"
        "test_growth_is_measured_in_fresh_processes_after_equality"
    ),
    r"python -m benchmarks\.roofline": (
        f"{BENCHMARKS}test_roofline.py::test_prints_an_estimate_and_json"
    ),
    r"python -m benchmarks\.scan": (
        f"{BENCHMARKS}test_scan_benchmark.py::test_every_section_reports"
    ),
    r"python -m benchmarks\.snapshot_types.*": (
        f"{BENCHMARKS}test_objectives_benchmark.py::test_all_types_are_measured"
    ),
    r"python -m benchmarks\.static.*": (
        f"{BENCHMARKS}test_objectives_benchmark.py::test_both_encoders_are_measured"
    ),
    r"python -m benchmarks\.time_to_quality.*": (
        f"{BENCHMARKS}test_time_to_quality.py::"
        "test_a_race_in_turns_and_one_that_was_interrupted_end_alike"
    ),
    r"pytest tests/pipeline/test_controls\.py": (
        "tests/pipeline/test_controls.py::"
        "test_joint_training_wins_where_all_is_shared_and_not_where_nothing_is"
    ),
    r"ray job submit --working-dir \.( --)?": (
        f"{JOBS}test_multidomain.py::test_the_job_prints_its_stages_a_table_and_the_report"
    ),
    r"ray job submit": f"{JOBS}test_refresh_embeddings.py::test_the_same_by_ray_job_submit",
    r"ray start --head( --dashboard-host 127\.0\.0\.1)?": (
        f"{JOBS}test_multidomain.py::test_make_demos_command_starts_a_ray_of_its_own"
    ),
}
# What a test cannot run: why, and the test that checks what can be checked of it.
NOT_RUN = {
    r"make (install|test|test-slow( SHARD=\d/\d)?|check|peers|lock|audit)": (
        "makes the environment, or is what runs this test",
        "tests/docs/test_command_words.py::test_what_a_command_names_is_there",
    ),
    r"pytest tests/interpreter": (
        "the last line of `make test`",
        "tests/interpreter/test_scan_triton.py::test_is_the_reference",
    ),
    r"python -m pytest -m faults": (
        "a part of `make test`",
        "tests/pipeline/faults/test_bad_files.py::test_the_table_has_enough_of_them",
    ),
    r"export AWS_\w+=.*": (
        "are the user's own credentials",
        "tests/pipeline/storage/test_bucket.py::test_refused_credentials_are_said_and_not_repeated",
    ),
    r"pip install .*": (
        "needs a package registry",
        "tests/docs/test_command_words.py::test_what_a_command_names_is_there",
    ),
    r"docker (build|push) .*": (
        "needs Docker and a registry",
        "tests/cluster/test_images.py::test_there_are_targets_for_cpu_and_gpu_on_one_pinned_base",
    ),
    r"kubectl .*|export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=.*": (
        "needs a Kubernetes cluster",
        "tests/cluster/test_kuberay.py::"
        "test_the_strict_schema_accepts_the_manifest_and_refuses_a_misspelt_field",
    ),
    r"ray (up|down|dashboard)( cluster/ray-up\.yaml)?": (
        "needs machines of a cloud",
        "tests/cluster/test_ray_up.py::test_ray_accepts_the_file",
    ),
    r"ray get-auth-token --generate|export RAY_AUTH_MODE=token( .*)?": (
        "writes the user's own token",
        "tests/cluster/test_ray_up.py::test_the_token_is_on_and_the_dashboard_stays_at_home",
    ),
    r"ray (stop|job stop)": (
        "is named, not given; it would end other people's Rays",
        f"{JOBS}test_interrupt.py::test_interrupted_twice_the_run_ends_with_the_same_figures",
    ),
}
