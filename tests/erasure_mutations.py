"""The guards of erasure that ``tests.mutations`` takes out, each with the test that should notice."""

from __future__ import annotations

from tests.lake_mutations import TWO, Mutation

AUDIT, FORGET = "test_erasure_audit.py", "unit/cli/test_forget.py"

ERASURE_MUTATIONS = (
    Mutation(
        "an erasure writes no mark into the log",
        "erase.py",
        "    retry_on_conflict(delta, mark)\n",
        "",
        (f"{TWO}::test_an_erasure_of_what_has_no_row_yet_is_seen_by_the_run_that_is_about_to_commit_it",),
    ),
    Mutation(
        "a sweep writes no mark into the log",
        "erase.py",
        '        _mark(delta, lake, receipt.receipt_id or "sweep")',
        "        None",
        (f"{TWO}::test_a_sweep_is_seen_by_the_run_that_is_about_to_commit_what_it_deletes",),
    ),
    Mutation(
        "the mark names only the fingerprints that have rows",
        "erase.py",
        "*(seen.lease.fingerprint for seen in LeaseStore(lake).read())",
        "",
        (f"{TWO}::test_a_writer_that_builds_on_an_older_version_is_refused_after_an_erasure",),
    ),
    Mutation(
        "rows that were committed during an erasure stay",
        "erase.py",
        "                _delete_rows(self._delta, self._storage, self._planner.search, receipt)\n                for place",
        "                for place",
        (f"{TWO}::test_a_row_that_is_committed_while_an_erasure_sweeps_is_removed_too",),
    ),
    Mutation(
        "an erasure takes no row out of the table",
        "erase.py",
        "        rows = search.find()\n        if not rows:\n            return\n",
        "        return\n",
        ("test_erase.py::test_an_erased_recording_is_in_no_file_of_the_lake[uri]",),
    ),
    Mutation(
        "an erasure looks once at each file, whatever it has learnt since",
        "row_search.py",
        "            self._without.clear()\n",
        "",
        (f"{TWO}::test_another_version_of_an_erased_object_is_found_in_another_file",),
    ),
    Mutation(
        "an erasure does not look for files that no version names",
        "erasers.py",
        '    return {"files_deleted": delete_forbidden_files(delta, storage, ["source", "archive_id", "dicom"], forbidden)}',
        "    return {}",
        ("test_erase.py::test_an_erased_recording_is_in_no_file_of_the_lake[uri]",),
    ),
    Mutation(
        "an erasure leaves the files that held the rows to the vacuum",
        "erasers.py",
        "            storage.filesystem.delete_file(",
        "            str(",
        (f"{TWO}::test_a_row_that_is_committed_while_an_erasure_sweeps_is_removed_too",),
    ),
    Mutation(
        "an erasure deletes a file that was committed while it looked",
        "unreferenced_files.py",
        "deleted = [path for path in found if path not in used]",
        "deleted = found",
        (f"{TWO}::test_a_file_that_is_committed_while_an_erasure_looks_at_it_is_not_deleted_under_readers",),
    ),
    Mutation(
        "an erasure leaves the manifests as they are",
        "erasers.py",
        '    return {"manifest_rows": blank_manifests_by_rows(lake, forbidden)}',
        "    return {}",
        ("test_erase.py::test_an_erased_recording_is_in_no_file_of_the_lake[uri]",),
    ),
    Mutation(
        "an erased study is not known by its UID",
        "tombstones.py",
        'subjects = [hash_subject("study", study)] if study else []',
        "subjects: list[str] = []",
        (f"{TWO}::test_another_recording_of_an_erased_person_that_a_run_has_in_work_is_kept_out",),
    ),
    Mutation(
        "the files in an erased archive object are transcribed again",
        "tombstones.py",
        "list_subject_uris(uri, version, archive_id)",
        "[uri]",
        ("test_erase.py::test_an_archive_object_is_erased_with_its_files_and_a_file_alone",),
    ),
    Mutation(
        "an object whose name begins as another's and a # is erased with it",
        "row_search.py",
        "            return is_named or (bool(self._names)",
        "            return True or (bool(self._names)",
        ("test_erase.py::test_a_name_with_a_hash_is_an_object_of_its_own_and_its_files_are_erased_with_it",),
    ),
    Mutation(
        "a row that went through a link is not found by today's path",
        "row_search.py",
        "                if there or (there is None",
        "                if (there is None",
        ("attacks/test_identity.py::test_forget_erases_what_an_old_lake_reached_through_a_link",),
    ),
    Mutation(
        "a row is taken for the file that is at its path now, whatever its version",
        "row_search.py",
        'return make_local_version(os.lstat(find_path(uri) or "")) == version',
        'return bool(os.lstat(find_path(uri) or ""))',
        ("attacks/test_identity.py::test_forget_takes_nobody_else_where_a_link_has_been_turned_to_another_folder",),
    ),
    Mutation(
        "an erasure leaves lineage as it is",
        "erasers.py",
        "            read.update(namespace=_ERASED, name=_ERASED)",
        "            pass",
        (f"{AUDIT}::test_the_word_is_in_every_place_that_can_hold_it_and_afterwards_in_no_byte",),
    ),
    Mutation(
        "an error in a lineage event keeps the name of the archive",
        "erasers.py",
        '                error["message"] = _ERASED',
        "                pass",
        (f"{AUDIT}::test_the_word_is_in_every_place_that_can_hold_it_and_afterwards_in_no_byte",),
    ),
    Mutation(
        "a run that named a file in archive.include keeps its name",
        "erasers.py",
        '"include": "/", ',
        "",
        (f"{AUDIT}::test_the_word_is_in_every_place_that_can_hold_it_and_afterwards_in_no_byte",),
    ),
    Mutation(
        "files of killed writers stay",
        "erasers.py",
        'r".*(\\.partial|\\.tmp|#\\d+)"',
        'r"none"',
        (f"{AUDIT}::test_the_word_is_in_every_place_that_can_hold_it_and_afterwards_in_no_byte",),
    ),
    Mutation(
        "a table of content to come keeps the files of its old versions",
        "erasers.py",
        '    if place.personal == "content":',
        "    if False:",
        (f"{AUDIT}::test_the_word_is_in_every_place_that_can_hold_it_and_afterwards_in_no_byte",),
    ),
    Mutation(
        "what matches nothing gets a tombstone",
        "erasure_plan.py",
        "        uris = self._match.uris - {spelling for uri in left_out.uris for spelling in self._spellings[uri]}",
        "        uris = set(self._match.uris)",
        (f"{FORGET}::test_what_matches_nothing_is_named_one_by_one_and_leaves_no_tombstone_and_no_line_in_a_log",),
    ),
    Mutation(
        "a patient counts as erased although rows have no hash",
        "erase.py",
        "        if plan.unhashed and not leave_unhashed:",
        "        if False:",
        (f"{FORGET}::test_a_patient_is_not_taken_for_erased_where_rows_were_made_without_hashes",),
    ),
)
