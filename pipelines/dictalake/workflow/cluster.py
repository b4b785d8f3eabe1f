"""Starts or joins a Ray cluster, says what it offers, and ends a flow that runs on it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dictalake import logs, stops, terminal
from dictalake.config.sections import Config
from dictalake.errors import RunError, name_place
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow.plan import Node, Resources

# Ray reads these when it is imported: no usage reports, no colours or progress of its own.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Nor does a stray call, such as one of a thread that is late at the end, start a second Ray.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
# Beside its actors a small machine has more workers than CPUs, and Ray ends the others a second after they have nothing to do:
# each next block of their stage then waited for a new process, which took a fifth of two CPUs away from the model.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
# Workers that Ray starts before there is work belong to no job, and the fork server starts those of one job alone.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
os.environ.setdefault("RAY_enable_worker_prestart", "0")

import ray
import ray._private.worker
import ray.data
from ray.data import DataContext

from dictalake.workflow.private_ray import end_processes, find_parent, private_processes, private_ray  # isort: skip  # it imports Ray
from dictalake.workflow.heavy_memory import name_node  # isort: skip  # it imports Ray

_TOO_SLOW = "timed out during startup"  # what ray._private.node.Node says then


def make_interrupt(flow: ray.data.Dataset) -> Callable[[], None]:
    """A function that ends ``flow`` while it runs. Ray Data has none for an iteration that waits; its executor has.

    It holds neither: whoever holds an executor keeps its actors, and their CPUs, from the next run.
    """
    executors: weakref.WeakSet[Any] = weakref.WeakSet()
    create, weak_flow = type(flow)._create_executor, weakref.ref(flow)

    def create_and_keep() -> Any:
        there = weak_flow()
        assert there is not None
        executor = create(there)
        executors.add(executor)
        return executor

    flow._create_executor = create_and_keep  # type: ignore[method-assign]

    def interrupt() -> None:
        for executor in list(executors):
            executor.shutdown(force=True)

    return interrupt


@contextmanager
def running_cluster(config: Config) -> Iterator[Resources]:
    """A started or joined cluster; one that was started here is stopped at the end."""
    with ExitStack() as ending:
        if not ray.is_initialized():
            _start(config, ending)
        set_context(config)
        total = ray.cluster_resources()
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = tuple(Node(n.get("CPU", 0.0), n.get("GPU", 0.0), n.get("memory", 0.0) / 1e6, name_node(n)) for n in alive)
        yield Resources(total.get("CPU", 0.0), total.get("GPU", 0.0), nodes, total.get("memory", 0.0) / 1e6)


@contextmanager
def _own_handlers(ending: ExitStack) -> Iterator[None]:
    """Keeps our handler of SIGTERM in place while ``ray.init`` installs others. The process ends as it did before ``ending``.

    Ray's node ends the driver before what is finished is committed, and so does Ray's core, whose handlers of crashes hide ours
    too. A script or a notebook has no handler: the default would end it without a last commit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    is_none = before is None or before == signal.SIG_DFL
    ours = stops.handle if is_none else before
    make_core = ray._raylet.CoreWorker  # type: ignore[attr-defined]

    def make_core_and_renew(*arguments: Any, **options: Any) -> Any:
        try:
            return make_core(*arguments, **options)
        except BaseException:
            # SIGTERM came while Ray's own handler was in place: it called ours, and has the process aborted 3 s later.
            signal.alarm(0)
            raise
        finally:
            signal.signal(signal.SIGTERM, ours)

    def restore() -> None:
        if is_none:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            stops.forget()

    ending.callback(restore)
    signal.signal(signal.SIGTERM, ours)
    set_handler = ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda handler: None
    ray._raylet.CoreWorker = make_core_and_renew  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = set_handler
        ray._raylet.CoreWorker = make_core  # type: ignore[attr-defined]
        signal.signal(signal.SIGTERM, ours)


def _start(config: Config, ending: ExitStack) -> None:
    """Starts or joins Ray; ``ending`` stops it, and removes what was made for it."""
    address = config.ray.address
    as_json = None
    if config.logs.format == "json":  # what workers and Ray's core write; the driver's own lines are ours again below
        os.environ.setdefault("RAY_BACKEND_LOG_JSON", "1")
        as_json = ray.LoggingConfig(encoding="JSON", log_level="ERROR")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "logging_config": as_json}
    try:
        if address:
            ending.callback(ray.shutdown)
            with _own_handlers(ending), stops.converted():
                ray.init(address=address, **options)
        else:
            try:
                _start_here(config, options, ending)
            except Exception as error:
                # On a busy machine a start takes longer than the 30 s that Ray allows; the next one finds all files in memory.
                if _TOO_SLOW not in str(error):
                    raise
                ending.close()
                _start_here(config, options, ending)
    except ConnectionError:
        if address is None:
            raise RunError(_explain_no_start("ConnectionError")) from None
        raise RunError(f"ray.address = {address}: no Ray cluster answers there; start one, or leave the key out") from None
    except Exception as error:  # Ray raises bare ones when a process of its own does not come up
        if address is None:
            raise RunError(_explain_no_start(name_place(error))) from None
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(f"ray.address = {address}: the cluster there refused this driver: {why}") from None
    terminal.renew_faulthandler()
    logs.take_over_libraries()
    ray._private.worker.print_to_stdstream = _print_message


def _start_here(config: Config, options: dict[str, Any], ending: ExitStack) -> None:
    private = ending.enter_context(private_ray())
    started: list[subprocess.Popen[bytes]] = []
    ending.callback(end_processes, started)
    ending.callback(ray.shutdown)
    # A stop that Ray turned into an error of its own must not be followed by a second start; ``ending`` forgets it.
    with _own_handlers(ending), stops.converted(), private_processes(started):
        # Without an address Ray would join whatever cluster an environment variable names.
        ray.init(address="local", num_cpus=config.ray.cpus, include_dashboard=False, **options, **private)


def _print_message(data: dict[str, Any], ignore_prefix: bool) -> None:
    """Sends what Ray's core tells a driver to where libraries write.

    Whatever ``log_to_driver`` says, Ray prints it to standard output, in the middle of the JSON or the table that is there.
    """
    ray._private.worker.print_worker_logs(data, sys.stderr, ignore_prefix)


def _explain_no_start(what: str) -> str:
    where = f"RAY_TMPDIR = {find_parent()}" if os.environ.get("RAY_TMPDIR") else f"{find_parent()}, as RAY_TMPDIR is not set"
    return (
        f"Ray cannot start on this machine ({what}). It needs a folder that it can write to ({where}), with a path of at most "
        "29 characters, free disk and memory, and open ports on 127.0.0.1"
    )


def set_context(config: Config) -> None:
    """Blocks by seconds of audio. Ray Data's own reports repeat what our progress says, in pieces nobody asked for."""
    context = DataContext.get_current()
    # Load gives tables of at most so much; Ray would join small ones up to its own size, and cut there.
    context.target_max_block_size = int(config.ray.block_audio_s * SAMPLE_RATE_HZ * 2)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # Ray's own wrapping keeps the text of an error alone
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it prints the tracebacks of workers; transcribe says what failed
