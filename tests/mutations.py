"""Takes the guards of the lake out, one at a time, and runs the test that should notice:

    make mutations

Each mutation is a piece of code, what stands there instead, and the tests of which at least one must fail then. A mutation that
no test notices is a guard that could go missing unseen. A tester such as mutmut changes everything everywhere and runs whatever
tests reach it: thousands of changes of ``lake/``, most of them of no consequence, with tests of seconds each. This list has the
changes that lose a row, write one twice, or leave something of a person behind, and it grows with each review.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.erasure_mutations import ERASURE_MUTATIONS
from tests.lake_mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent
LAKE = "pipelines/dictalake/lake"
_FAILED = 1  # pytest's exit status


def run_mutation(mutation: Mutation, folder: Path) -> str:
    """``killed``, ``survived``, or what is wrong with the mutation itself."""
    pipelines = folder / "pipelines"
    shutil.rmtree(pipelines, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipelines", pipelines, copy_function=os.symlink, ignore=ignored)
    target, source = folder / LAKE / mutation.file, (ROOT / LAKE / mutation.file).read_text(encoding="utf-8")
    if source.count(mutation.before) != 1:
        return f"{source.count(mutation.before)} places in {mutation.file} instead of one"
    target.unlink()
    target.write_text(source.replace(mutation.before, mutation.after), encoding="utf-8")
    tests = [f"tests/{name}" if "/" in name else f"tests/unit/lake/{name}" for name in mutation.tests]
    environment = {**os.environ, "PYTHONPATH": f"{pipelines}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, _FAILED):
        return f"pytest ended with {done.returncode}: {done.stdout.strip().splitlines()[-1:]}"
    return "killed" if done.returncode == _FAILED else "survived"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only mutations whose name or file contains this")
    parser.add_argument("--out", type=Path, help="a JSON file for the score")
    options = parser.parse_args(argv)
    chosen = [one for one in (*MUTATIONS, *ERASURE_MUTATIONS) if not options.only or options.only in f"{one.file} {one.name}"]
    started, results = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        for mutation in chosen:
            results[mutation.name] = run_mutation(mutation, Path(folder))
            print(f"{results[mutation.name]:9} {mutation.file}: {mutation.name}", flush=True)
    killed = sum(result == "killed" for result in results.values())
    print(f"{killed} of {len(chosen)} killed in {time.monotonic() - started:.0f} s")
    if options.out is not None:
        document = {"mutations": len(chosen), "killed": killed, "seconds": round(time.monotonic() - started), "each": results}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
