"""How many runners a run has, and what part of the cluster each of them gets."""

from __future__ import annotations

import pytest

from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.workflow.plan import Node, ResourcePlan, Resources, make_plan, split_plan

GPU_NODES = Resources(cpus=64 * 16, gpus=64, nodes=(Node(128, 8, 500_000),) * 8, memory_mb=4_000_000)


def make_config(device: str = "cpu", **sections: dict[str, object]) -> Config:
    acoustic = {"device": device, **sections.pop("acoustic", {})}
    return Config.model_validate({"acoustic": acoustic, **sections})


def sum_cpus(plan: ResourcePlan) -> float:
    return sum(stage.workers * stage.cpus for stage in plan.stages)


@pytest.mark.parametrize("cpus", [1, 2, 16, 1000])
def test_without_gpus_the_driver_runs_the_flow_itself(cpus: int) -> None:
    assert make_plan(make_config(), Resources(cpus=cpus, gpus=0)).runners == 1


@pytest.mark.parametrize(("gpus", "runners"), [(1, 1), (2, 1), (3, 2), (4, 2), (64, 32)])
def test_there_is_a_runner_for_two_gpus(gpus: int, runners: int) -> None:
    plan = make_plan(make_config("auto"), Resources(cpus=16 * gpus, gpus=gpus))
    assert (plan.runners, plan.emit.workers) == (runners, gpus)


def test_small_gpu_memory_shares_count_as_less_than_a_gpu() -> None:
    two_each = make_config("auto", acoustic={"gpus_per_actor": 0.5})
    assert make_plan(two_each, Resources(cpus=64, gpus=4)).runners == 2


def test_a_model_on_several_gpus_has_one_runner_at_most() -> None:
    on_four = make_config("auto", acoustic={"gpus_per_actor": 4})
    plan = make_plan(on_four, Resources(cpus=64, gpus=8))
    assert (plan.runners, plan.emit.workers) == (2, 2)


@pytest.mark.parametrize(("cpus", "runners"), [(16, 1), (17, 2)])
def test_where_there_is_no_room_for_more_runners_there_are_fewer(cpus: int, runners: int) -> None:
    greedy = make_config("auto", acoustic={"cpus_per_actor": 3})
    assert make_plan(greedy, Resources(cpus=cpus, gpus=4)).runners == runners


def test_the_parts_are_all_there_is_and_differ_by_a_worker_at_most() -> None:
    plan = make_plan(make_config("auto", ray={"runners": 13}), GPU_NODES)
    parts = split_plan(plan)
    assert len(parts) == 13
    for name in ("load", "emit", "decode", "finish"):
        workers = [getattr(part, name).workers for part in parts]
        assert sum(workers) == getattr(plan, name).workers
        assert max(workers) - min(workers) <= 1
        assert min(workers) >= 1
    assert {part.runner_cpus for part in parts} == {1.0}


@pytest.mark.parametrize("cpus", [1, 2, 3, 8])
def test_runners_on_few_cpus_have_smaller_workers(cpus: int) -> None:
    """Logical CPUs: with fewer than all ask for, Ray would wait for ever without a word."""
    plan = make_plan(make_config(ray={"runners": 3}), Resources(cpus=cpus, gpus=0))
    parts = split_plan(plan)
    assert all(stage.workers >= 1 for part in parts for stage in part.stages)
    least = sum(stage.cpus for part in parts for stage in part.stages)
    assert least + plan.runners * plan.runner_cpus <= cpus
    assert plan.threads >= 1


def test_runners_that_have_no_memory_are_refused_with_the_numbers() -> None:
    two = Resources(cpus=2, gpus=0, memory_mb=6000)
    assert make_plan(make_config(), two).runners == 1
    with pytest.raises(ConfigError, match=r"it needs 8100 MB of memory"):
        make_plan(make_config(ray={"runners": 3}), two)


def test_each_runner_needs_a_model() -> None:
    with pytest.raises(ConfigError, match=r"^ray\.runners = 5, but there are only 4 models"):
        make_plan(make_config("auto", ray={"runners": 5}), Resources(cpus=64, gpus=4))
    with pytest.raises(ConfigError, match=r"^ray\.runners = 3, but there are only 2 models"):
        make_plan(make_config(acoustic={"actors": 2}, ray={"runners": 3}), Resources(cpus=64, gpus=0))
