"""A person's correction is read first, in a lake whose view ``transcripts`` has the column ``text_corrected``."""

from __future__ import annotations

import duckdb

from dictalake.extraction.transcripts import choose_text


def ask(columns: str) -> list[tuple[object, ...]]:
    database = duckdb.connect()
    database.execute(f"CREATE TABLE transcripts AS {columns}")
    text, corrected = choose_text(database)
    return database.sql(f"SELECT {text}, {corrected} IS NOT NULL, {corrected} FROM transcripts ORDER BY 1").fetchall()


def test_a_corrected_text_comes_before_the_machine_s() -> None:
    rows = ask("SELECT 'plural' AS text, 'pleural' AS text_corrected UNION ALL SELECT 'a', NULL UNION ALL SELECT NULL, NULL")
    assert [row[:2] for row in rows] == [("", False), ("a", False), ("pleural", True)]
    assert rows[2][2] == duckdb.sql("SELECT sha256('pleural')").fetchall()[0][0]


def test_a_lake_without_corrections_gives_the_machine_s_text() -> None:
    assert ask("SELECT 'plural' AS text") == [("plural", False, None)]
