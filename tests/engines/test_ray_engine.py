"""The Ray engine against a real Ray of two nodes on this machine."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from own_chain import check_demo_chain, digests, draw_scenes, run_scenes
from own_stage import NAME, attempts, contents, drivers, make_run, own_config, setups, wait_for

from pseudolabel.errors import ConfigError, IncompleteError, InputError, MachineError
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.engines.ray import RayEngine, _check_answer, look_around
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.work.job import make_job

ray = pytest.importorskip("ray", reason="RAY NOT TESTED: install it with  pip install 'pseudolabel[ray]'")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

# Ray takes 127.0.0.1 in an address for the machine's outer address, and every other of the loopback for what it is
_NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.2"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Two nodes of one CPU each; its processes live in a home folder of their own, which keeps Ray silent."""
    from ray.cluster_utils import Cluster

    home = tmp_path_factory.mktemp("home")
    (home / "ray_bootstrap_config.yaml").write_text("{}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
        cluster.add_node(**_NODE)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def engine(cluster) -> EngineOptions:
    return EngineOptions("ray", ray_address=cluster.address)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return make_run(tmp_path, images=160, shards=6)


@pytest.fixture
def journal(run: RunPaths) -> Path:
    return run.root.parent / "journal"


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, bytes]:
    run = make_run(tmp_path / "undisturbed", images=160, shards=6)
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    return contents(run)


@pytest.mark.core
def test_ray_writes_the_same_bytes_and_keeps_the_model_between_shards(
    run: RunPaths, journal: Path, engine: EngineOptions, undisturbed: dict[str, bytes]
) -> None:
    summary = run_stage(run, NAME, own_config(run, workers=0), RunOptions(engine))
    assert (summary.attempted, summary.n_ok) == (6, 160)
    assert contents(run) == undisturbed
    assert attempts(journal) == [0, 1, 2, 3, 4, 5]
    assert 1 <= setups(journal) <= 3  # not one per shard; Ray may start a worker more than it has CPUs
    assert run_stage(run, NAME, own_config(run), RunOptions(engine)).attempted == 0
    assert attempts(journal) == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_whole_run_on_ray_writes_the_bytes_that_this_machine_writes(tmp_path: Path, engine: EngineOptions) -> None:
    scenes = draw_scenes(tmp_path / "scenes")
    here = digests(run_scenes(scenes, tmp_path / "here", shards=2))
    assert digests(run_scenes(scenes, tmp_path / "there", engine, shards=2)) == here


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_demo_on_ray_writes_what_this_machine_writes(tmp_path: Path, engine: EngineOptions) -> None:
    check_demo_chain(tmp_path, engine)


@pytest.mark.core
def test_a_killed_process_under_ray_costs_one_attempt(
    run: RunPaths, journal: Path, engine: EngineOptions, undisturbed: dict[str, bytes]
) -> None:
    assert run_stage(run, NAME, own_config(run, fault="kill-once:3"), RunOptions(engine)).n_ok == 160
    assert attempts(journal) == [0, 1, 2, 3, 3, 4, 5]
    assert contents(run) == undisturbed


def test_a_crash_of_the_decoder_under_ray_is_one_reject(run: RunPaths, journal: Path, engine: EngineOptions) -> None:
    config = own_config(run, fault="segv:0042.jpg", max_reject_rate=0.1)
    assert run_stage(run, NAME, config, RunOptions(engine)).n_rejected == 1
    rows = [row for shard in range(6) for row in read_part(run.part("own", shard, 6)).to_pylist()]
    assert [row["image_key"] for row in rows if row["reason"] == "decoder_crash"] == ["0042.jpg"]


def test_a_shard_that_always_fails_under_ray_stops_nobody_and_is_named(
    run: RunPaths, journal: Path, engine: EngineOptions
) -> None:
    with pytest.raises(IncompleteError, match=r"1 shards failed \(2\).*this shard never works"):
        run_stage(run, NAME, own_config(run, fault="raise:2"), RunOptions(engine))
    assert len(contents(run)) == 5
    assert attempts(journal).count(2) == 3


def test_a_stage_that_no_ray_worker_can_set_up_ends_the_run_with_the_cause(
    run: RunPaths, journal: Path, engine: EngineOptions
) -> None:
    with pytest.raises(InputError, match="the model is not there"):
        run_stage(run, NAME, own_config(run, fault="setup"), RunOptions(engine))


def test_a_ray_driver_that_is_killed_is_resumed_and_leaves_no_process(
    run: RunPaths, journal: Path, engine: EngineOptions, undisturbed: dict[str, bytes]
) -> None:
    with drivers() as start:
        driver = start(run, engine, fault="hang-once:5", workers=0)
        wait_for(lambda: len(list(run.table("own").glob("part-*"))) == 5)
        driver.kill()
    pids = [int(path.name.split(".")[2]) for path in journal.glob("attempt.00005.*")]
    wait_for(lambda: not any(_works(pid) for pid in pids), seconds=20)
    assert run_stage(run, NAME, own_config(run), RunOptions(engine)).attempted == 1
    assert contents(run) == undisturbed


def _works(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_lost_ray_node_loses_no_shard(
    run: RunPaths, journal: Path, engine: EngineOptions, cluster, undisturbed: dict[str, bytes]
) -> None:
    doomed = cluster.list_all_nodes()[-1]
    raylet = doomed.all_processes["raylet"][0].process.pid
    with drivers() as start:
        driver = start(run, engine, sleep_s=1.5, workers=0)
        wait_for(lambda: len(attempts(journal)) >= 2)
        os.kill(raylet, signal.SIGKILL)
        _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    assert contents(run) == undisturbed


def test_a_node_without_the_run_folder_or_with_other_versions_is_named(run: RunPaths) -> None:
    job = make_job(run, NAME, own_config(run), "cpu")
    answer = look_around(str(run.plan))
    content = run.plan.read_text()
    _check_answer(job, content, answer)
    with pytest.raises(MachineError, match=r"does not see .*run: the run folder has to be shared by all nodes"):
        _check_answer(job, content, look_around(str(run.root / "nowhere")))
    versions = answer["versions"] | {"torch": "1.0"}
    with pytest.raises(MachineError, match=r"has other versions: torch 1\.0 there"):
        _check_answer(job, content, answer | {"versions": versions})


def test_a_single_gpu_cannot_be_named_to_ray(run: RunPaths, engine: EngineOptions, monkeypatch) -> None:
    from own_stage import OwnStage

    from pseudolabel.pipelines.stage import Resources

    monkeypatch.setattr(OwnStage, "resources", Resources(gpu=True))
    job = make_job(run, NAME, own_config(run), "cuda:1")
    with pytest.raises(ConfigError, match="use cuda or auto"):
        RayEngine(engine).run(job, [0], lambda _: None)
    job = make_job(run, NAME, own_config(run), "cuda")
    with pytest.raises(MachineError, match="this Ray cluster has no GPU"):
        RayEngine(engine).run(job, [0], lambda _: None)
