"""Where everything is caught: once for a recording, once for an entry, once for a line, and where something else must go on.

One bad recording, entry or line costs one row. A catch-all anywhere else hides defects and what to do about them, so each has
its place in this list, with what it is for.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pipelines/dictalake"

# File → how many ``except Exception``, ``except BaseException`` and bare ``except`` it may hold that do not only pass on what
# they caught (a handler that ends in a bare ``raise`` is no catch-all).
CATCH_ALLS = {
    # Once for a recording: a row, in a run, in a command that reads recordings one by one, and where a batch is tried again.
    "workflow/stages/base.py": 2,  # capture_row_error; redacting turns the failure of a whole block into words without paths
    "workflow/stages/isolate.py": 1,  # a batch that fails is tried recording by recording
    "workflow/stages/emit.py": 2,  # errors of the model's two threads, which isolate.py then meets
    "archive/load_recording.py": 2,  # an object, and a file inside an archive object
    # Once for a listed entry: of a disk, and of an object store.
    "archive/folders.py": 1,
    "archive/listing.py": 1,
    # Once for a line of a manifest, and for a row of an inventory.
    "archive/manifest.py": 1,
    "archive/inventory.py": 1,
    # What the child that decodes raises crosses a pipe; its process is ended whatever ended the call.
    "sandbox/child.py": 1,
    # A thread hands its error to the one that waits for it.
    "sandbox/spawner.py": 1,
    "workflow/runner.py": 1,
    "lake/claims.py": 1,
    # Who watches a run never fails it.
    "observers/base.py": 2,
    "observers/openlineage.py": 1,
    "observers/prometheus.py": 1,
    "reporting/subprocess_writer.py": 2,
    "workflow/report_reader.py": 1,
    "workflow/listing_reader.py": 1,
    "archive/deadlines.py": 1,
    # Libraries that raise bare Exceptions, put into words at the one call.
    "workflow/cluster.py": 2,  # the second looks whether a new start may help
    "workflow/identity.py": 1,
    "acoustic/engines/batches.py": 1,
    "acoustic/engines/whisper.py": 1,
    "acoustic/lasr/compiled.py": 1,
    "acoustic/lasr/files.py": 1,
    # The other checks of doctor go on.
    "cli/doctor.py": 1,
}


def find_catch_alls(source: str) -> Iterator[int]:
    """The lines of handlers that catch everything and do not raise it again as it is."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        is_broad = any(
            kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds
        )
        last = node.body[-1]
        if is_broad and not (isinstance(last, ast.Raise) and last.exc is None):
            yield node.lineno


def test_everything_is_caught_where_the_list_says_and_nowhere_else() -> None:
    found = Counter(
        {
            str(path.relative_to(PACKAGE)): sum(1 for _ in find_catch_alls(path.read_text(encoding="utf-8")))
            for path in PACKAGE.rglob("*.py")
        }
    )
    assert +found == +Counter(CATCH_ALLS)


def test_a_new_catch_all_is_found() -> None:
    broad = ("except Exception:", "except BaseException as error:", "except (ValueError, Exception):", "except:")
    for handler in broad:
        assert len(list(find_catch_alls(f"try:\n    a()\n{handler}\n    b()\n"))) == 1
    assert list(find_catch_alls("try:\n    a()\nexcept ValueError:\n    b()\n")) == []
    assert list(find_catch_alls("try:\n    a()\nexcept BaseException:\n    b()\n    raise\n")) == []
