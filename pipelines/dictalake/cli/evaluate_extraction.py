"""What `dictalake evaluate-extraction` does: it asks the model about labelled texts and prints the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from dictalake.cli.tables import Column, print_json, print_lines, print_table
from dictalake.config.sections import Config
from dictalake.errors import TranscriptionError
from dictalake.extraction.checking import Checked, check_answers
from dictalake.extraction.evaluation import Dictation, read_labels, score
from dictalake.extraction.model import Request
from dictalake.extraction.open_model import open_model
from dictalake.extraction.parts import split_text
from dictalake.extraction.prompt import make_messages
from dictalake.extraction.timing import WordTimes

_COLUMNS = ("labels", "given", "precision", "recall", "f1", "strict_f1", "negation", "side", "number")


def evaluate_extraction(config: Config, labels: Path, form: str) -> int:
    """The exit code: 3 where the model gave no answer to some texts."""
    dictations = read_labels(labels)
    given, dropped, failures = ask_all(config, dictations)
    scores = {kind: one.numbers() for kind, one in score(dictations, given).items()}
    if form == "json":
        print_json({"dictations": len(dictations), "kinds": scores, "dropped": dict(dropped), "failures": dict(failures)})
    else:
        console = Console()
        rows = [[kind, *("" if value is None else f"{value:g}" for value in one.values())] for kind, one in scores.items()]
        columns = [Column("kind"), *(Column(name, is_number=True) for name in _COLUMNS)]
        print_table(columns, rows, title=f"{len(dictations)} dictations", console=console)
        for what, counts in (("items dropped", dropped), ("dictations without an answer", failures)):
            if counts:
                reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
                print_lines(console, f"{counts.total()} {what} ({reasons})")
    return 3 if failures else 0


def ask_all(
    config: Config, dictations: Sequence[Dictation]
) -> tuple[dict[str, dict[str, list[dict[str, Any]]]], Counter[str], Counter[str]]:
    """The items of each dictation, the items that were dropped, and the dictations without an answer, by reason."""
    given: dict[str, dict[str, list[dict[str, Any]]]] = {}
    dropped: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    parts = {one.dictation_id: split_text(one.text, config.extract.part_chars) for one in dictations}
    with closing(open_model(config.extract)) as model:
        requests = [Request(name, make_messages(part.text)) for name, of_one in parts.items() for part in of_one]
        replies = iter(model.answer(requests))
    for one in dictations:
        of_one = [next(replies) for _ in parts[one.dictation_id]]
        try:
            answers = []
            for reply in of_one:
                if isinstance(reply, TranscriptionError):
                    raise reply
                answers.append(reply.text)
            checked = check_answers(one.dictation_id, one.text, parts[one.dictation_id], answers, WordTimes(one.text, None))
        except TranscriptionError as error:
            failures[error.reason] += 1
            checked = Checked()
        given[one.dictation_id] = checked.items
        dropped += checked.dropped
    return given, +dropped, failures
