"""The guards of the lake that ``tests.mutations`` takes out, each with the test that should notice."""

from __future__ import annotations

from dataclasses import dataclass

TABLE, TAIL, TWO = "test_table.py", "test_log_tail.py", "test_two_parties.py"


@dataclass(frozen=True)
class Mutation:
    """In ``file`` of the lake ``before`` becomes ``after``. ``tests`` are below tests/unit/lake, or tests/ with a folder."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "a run does not read the mark",
        "table.py",
        "if any(ERASURE_MARK in commit.info for commit in commits):",
        "if False:",
        (f"{TABLE}::test_an_erasure_between_look_and_commit_that_cannot_delete_the_file_is_still_obeyed",),
    ),
    Mutation(
        "files that were vacuumed are dropped instead of reading all",
        "table.py",
        "        if not all(info.size for info in infos):",
        "        adds = [add for add, info in zip(adds, infos, strict=True) if info.size]\n        if False:",
        (f"{TABLE}::test_rows_whose_file_was_compacted_and_vacuumed_between_look_and_commit_are_not_committed_again",),
    ),
    Mutation(
        "files that compaction made count as new rows",
        "table.py",
        'if add["dataChange"] and ',
        "if ",
        (f"{TABLE}::test_a_writer_reads_only_what_came_after_its_look",),
    ),
    Mutation(
        "a log that was cleaned up is followed as if nothing had come",
        "log_tail.py",
        "            if self._checkpoint.version <= newest:",
        "            if True:",
        (f"{TABLE}::test_a_writer_whose_log_was_cleaned_up_reads_everything",),
    ),
    Mutation(
        "a version of the log is overwritten on a disk",
        "storage.py",
        "            os.link(partial, target)\n",
        "            os.replace(partial, target)\n",
        (f"{TAIL}::test_of_two_that_append_the_same_version_one_is_refused",),
    ),
    Mutation(
        "a version of the log is overwritten in a bucket",
        "conditional_put.py",
        'mode="create"',
        'mode="overwrite"',
        ("pipeline/test_lake_object_storage.py::test_an_object_is_made_once_and_its_first_content_stays",),
    ),
    Mutation(
        "a commit has no application transaction",
        "log_tail.py",
        'actions += [{"txn": {"appId": name, "version": version}} for name, version in transactions.items()]',
        "",
        (f"{TWO}::test_a_writer_that_builds_on_an_older_version_is_refused_after_a_commit",),
    ),
    Mutation(
        "the application transactions of others are not followed",
        "table.py",
        "            self._transactions.update(commit.transactions)",
        "            pass",
        (f"{TWO}::test_writers_that_take_turns_count_one_application_transaction",),
    ),
    Mutation(
        "a run writes on after an upgrade of the schema",
        "table.py",
        "if any(commit.is_of_table for commit in commits or ()):",
        "if False:",
        (f"{TAIL}::test_a_run_does_not_write_on_after_an_upgrade_to_another_schema",),
    ),
    Mutation(
        "a table that asks more of writers is written all the same",
        "table.py",
        "        if not self._log.can_append:",
        "        if False:",
        (f"{TAIL}::test_a_table_that_asks_more_of_writers_is_written_by_delta_rs",),
    ),
    Mutation(
        "what was known of another model counts as known up to now",
        "table.py",
        "        self._keys.clear()  # first",
        "        None  # first",
        (f"{TWO}::test_what_another_committed_before_the_look_at_another_model_is_not_forgotten",),
    ),
    Mutation(
        "what a look failed to take in is not read again",
        "log_tail.py",
        "                return None\n        return commits",
        "                return None\n        self.version += len(commits)\n        return commits",
        (f"{TWO}::test_what_a_look_failed_to_read_is_read_by_the_next",),
    ),
    Mutation(
        "keys of before count as known up to a version to which they were not read",
        "table.py",
        "        self._keys.clear()  # first: no key may count as known up to a version to which it was not read\n"
        "        delta = open_table(self._storage, self.rows.schema)\n        self._log.restart(delta)\n"
        "        self._forbidden = self._erasures.read()\n",
        "        delta = open_table(self._storage, self.rows.schema)\n        self._log.restart(delta)\n"
        "        self._forbidden = self._erasures.read()\n        self._keys.clear()\n",
        (f"{TWO}::test_a_look_at_the_whole_table_that_fails_halfway_is_made_again",),
    ),
    Mutation(
        "a commit in the past of the log counts",
        "table.py",
        "        if self._log.is_overtaken() and not self._is_named(files[0]):",
        "        if False:",
        (f"{TWO}::test_a_commit_of_a_run_that_slept_until_the_log_was_cleaned_up_is_made_again",),
    ),
    Mutation(
        "the log is cleaned up although its owner keeps it",
        "delta.py",
        '    if delta.metadata().configuration.get("delta.enableExpiredLogCleanup", "true").lower() == "true":',
        "    if True:",
        (f"{TAIL}::test_an_owner_who_keeps_the_whole_log_has_all_of_it",),
    ),
    Mutation(
        "own rows are not remembered",
        "table.py",
        "            self._keys[file.fingerprint] = _combine(self._keys[file.fingerprint], rows)\n",
        "            pass\n",
        (f"{TABLE}::test_committing_the_same_files_again_changes_nothing",),
    ),
    Mutation(
        "repeats within a commit are not noticed",
        "table.py",
        "if there.setdefault(key, origin) != origin:",
        "if there.get(key, origin) != origin:",
        (f"{TABLE}::test_a_block_that_was_written_twice_counts_once",),
    ),
    Mutation(
        "an attempt does not belong to the key",
        "table.py",
        "enumerate(zip(file.recording_ids, file.attempts, strict=True)):",
        "enumerate((one, 0) for one in file.recording_ids):",
        (f"{TABLE}::test_a_retry_is_another_row_and_another_model_too",),
    ),
    Mutation(
        "after a failure of the storage files are not looked for again",
        "table.py",
        "attempt.storage_failures + is_storage_failure(error), False",
        "attempt.storage_failures + is_storage_failure(error), attempt.is_present",
        (f"{TWO}::test_an_erasure_during_a_commit_whose_storage_fails_is_obeyed_by_the_next_try",),
    ),
    Mutation(
        "a file that the driver cannot see is left out without a word",
        "table.py",
        "        if absent and self._forbidden.hashes <= self._acknowledged:",
        "        if False:",
        (f"{TABLE}::test_a_file_that_the_driver_cannot_see_is_not_committed",),
    ),
    Mutation(
        "a commit does not look for files",
        "table.py",
        "        present = [file for info, file in zip(infos, files, strict=True) if info.size == file.size_bytes]",
        "        present = list(files)",
        (f"{TABLE}::test_a_file_that_the_driver_cannot_see_is_not_committed",),
    ),
    Mutation(
        "a run takes no notice of tombstones when it opens the table",
        "table.py",
        "        self._forbidden = self._erasures.read()\n        last =",
        "        last =",
        ("test_erase.py::test_what_was_erased_does_not_come_back[uri]",),
    ),
    Mutation(
        "a run does not wait for one that has no ticket yet",
        "claims.py",
        'peer.state == "planning" and peer.turn < mine.turn',
        'peer.state == "planning" and peer.ticket and peer.turn < mine.turn',
        ("test_claims.py::test_a_run_waits_for_one_that_has_no_ticket_yet",),
    ),
    Mutation(
        "a run does not wait for those before it",
        "claims.py",
        "return not is_certain or plans_before",
        "return not is_certain",
        ("test_claims.py::test_a_run_waits_for_one_that_was_planning_before_whatever_its_clock_says",),
    ),
    Mutation(
        "a run takes another's lease for alive without a sign of life",
        "claims.py",
        "return not is_certain or plans_before",
        "return plans_before",
        ("test_claims.py::test_a_lease_without_a_sign_of_life_runs_out",),
    ),
    Mutation(
        "all tickets are the same",
        "claims.py",
        "ticket=1 + max((lease.ticket for lease in planning), default=0)",
        "ticket=1",
        ("test_claims.py::test_a_run_takes_a_ticket_after_those_of_others",),
    ),
    Mutation(
        "a run whose process is gone is alive for a lease",
        "claims.py",
        "return read_start_ticks(self.pid) != self.process_started",
        "return False",
        ("test_claims.py::test_a_run_whose_process_is_gone_is_dead_at_once",),
    ),
    Mutation(
        "a lease from the future never ends",
        "claims.py",
        "is_fresh and is_possible and not lease.is_dead_here",
        "is_fresh and not lease.is_dead_here",
        ("test_claims.py::test_a_clock_that_was_put_back_leaves_no_lease_for_hours",),
    ),
    Mutation(
        "a beat that fails ends the heartbeat",
        "claims.py",
        "                if time.monotonic() - self._failing_since >= self._store.lease_s:",
        "                if True:",
        ("test_claims.py::test_a_beat_that_cannot_be_written_is_made_up_for_by_the_next",),
    ),
    Mutation(
        "the log is cleaned on top of whatever came since",
        "delta_log.py",
        "commit_properties=CommitProperties(max_commit_retries=0)",
        "commit_properties=CommitProperties()",
        ("test_delta_log.py::test_a_file_that_another_writer_removes_meanwhile_does_not_come_back",),
    ),
    Mutation(
        "a log that was once clean is never read again",
        "delta_log.py",
        "if version > until]",
        "if until < 0]",
        ("test_delta_log.py::test_a_log_that_was_clean_is_read_only_where_it_is_new",),
    ),
    Mutation(
        "a checkpoint that was written anew passes for clean",
        "delta_log.py",
        "if known.get(path) != state]",
        "if path not in known]",
        ("test_delta_log.py::test_a_checkpoint_that_is_written_anew_with_values_is_cleaned_again",),
    ),
    Mutation(
        "compaction removes what a slow run has yet to commit",
        "maintenance.py",
        "delta.vacuum(lake.retention_h,",
        "delta.vacuum(0,",
        ("test_maintenance.py::test_what_killed_runs_left_is_removed_after_the_retention_and_not_before",),
    ),
    Mutation(
        "compaction removes the manifests of runs at work",
        "maintenance.py",
        'if path.split("/", 1)[0] not in at_work:',
        "if True:",
        (f"{TWO}::test_the_manifest_of_a_run_at_work_outlives_a_compaction",),
    ),
    Mutation(
        "a run record that was written twice counts twice",
        "runs.py",
        'first.setdefault((row["run_id"], row["event"], row["at"]), index)',
        'first[(row["run_id"], str(index), row["at"])] = index',
        ("test_runs.py::test_a_record_that_was_written_twice_counts_once",),
    ),
    Mutation(
        "a partition may leave its folder",
        "staged_files.py",
        "    if not pc.all(pc.match_substring_regex(",
        "    if False and not pc.all(pc.match_substring_regex(",
        ("test_staged_files.py::test_a_partition_value_that_could_leave_its_folder_is_refused",),
    ),
    Mutation(
        "scans of the same files share what they hold of them",
        "delta.py",
        "return files.scanner(",
        "return super().scanner(",
        ("test_query.py::test_a_scan_takes_no_footer_from_another_that_reads_the_same_files_at_the_time",),
    ),
    Mutation(
        "texts and URIs get into the log",
        "delta.py",
        '_STATISTICS_KEY: ",".join(name for name in STATISTICS if name in schema.names),',
        "",
        (f"{TABLE}::test_texts_and_uris_are_not_in_the_log_after_compaction",),
    ),
)
