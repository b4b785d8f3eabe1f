"""Fixtures that several folders of tests share."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from dictalake import stops

if TYPE_CHECKING:  # Ray and the servers take seconds to import: only tests that use one pay for it
    from dictalake.workflow.plan import Resources
    from tests.emulators import ObjectStore


# How long an example takes is the machine's business: a busy one must not fail a test.
hypothesis.settings.register_profile("dictalake", deadline=None)
hypothesis.settings.load_profile("dictalake")

# A shell starts what it puts into the background with Ctrl-C ignored, and whoever the tests start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_stop_is_left() -> Iterator[None]:
    """A test in which a run is asked to stop leaves none that waits for the next test."""
    yield
    stops.forget()


@pytest.fixture(scope="session")
def gcs() -> Iterator[ObjectStore]:
    """A running Google Cloud Storage emulator; each test makes its own bucket."""
    from tests.emulators import run_gcs

    with pytest.MonkeyPatch.context() as environment:
        # gcsfs asks an experimental gRPC service first, which no emulator has, and waits 60 s for it.
        environment.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        with run_gcs() as store:
            yield store


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """A running S3 emulator; each test makes its own bucket."""
    from tests.emulators import run_s3

    with run_s3() as store:
        yield store


@pytest.fixture(params=["gs", "s3"])
def object_store(request: pytest.FixtureRequest) -> ObjectStore:
    """Each emulator in turn."""
    store: ObjectStore = request.getfixturevalue({"gs": "gcs", "s3": "s3"}[request.param])
    return store


@pytest.fixture(scope="session")
def random_lasr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LASR checkpoint with random weights: it says many pieces, always the same ones to the same sound."""
    from tests.models import save_random_lasr

    return save_random_lasr(tmp_path_factory.mktemp("models") / "random-lasr")


@pytest.fixture(scope="session")
def two_cpus() -> Iterator[Resources]:
    """A Ray of two logical CPUs that all runs of this process use; ``transcribe`` leaves a Ray alone that it did not start."""
    from dictalake.config.sections import Config
    from dictalake.workflow import fork_server
    from dictalake.workflow.cluster import running_cluster

    with pytest.MonkeyPatch.context() as environment:
        # Each run of these tests starts actors that need torch; users have one run, and its actor imports it.
        environment.setattr(fork_server, "SOON", (*fork_server.SOON, "torch"))
        folder = tempfile.mkdtemp(prefix="ray-")  # short: Ray's sockets lie below it
        environment.setenv("RAY_TMPDIR", folder)
        with running_cluster(Config.model_validate({"ray": {"cpus": 2}})) as resources:
            yield resources
        shutil.rmtree(folder, ignore_errors=True)
