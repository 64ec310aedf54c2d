"""The Slurm engine against a real Slurm of two nodes on this machine."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_chain import check_demo_chain, digests, draw_scenes, run_scenes
from own_stage import NAME, attempts, contents, drivers, make_run, own_config, wait_for

from pseudolabel.errors import ConfigError, IncompleteError, InputError, MachineError
from pseudolabel.pipelines.engines import slurm as engine_module
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.engines.slurm import SlurmEngine, array_name, queued, submit_environment
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.work.job import make_job

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
SLURM = EngineOptions("slurm")


def _sandbox():
    spec = importlib.util.spec_from_file_location("slurm_sandbox", Path(__file__).with_name("slurm.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The `slurm.conf` of a private cluster; tasks find the test's stage by PYTHONPATH."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PATH", "SLURM_CONF", "PYTHONPATH"):
            patch.setenv(name, os.environ.get(name, ""))
        own = [str(Path(__file__).parents[1] / "faults"), os.environ["PYTHONPATH"]]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, own)))
        with _sandbox().private_slurm(tmp_path_factory.mktemp("slurm")) as conf:
            yield conf


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return make_run(tmp_path, images=160, shards=7)


@pytest.fixture
def journal(run: RunPaths) -> Path:
    return run.root.parent / "journal"


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, bytes]:
    run = make_run(tmp_path / "undisturbed", images=160, shards=7)
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    return contents(run)


def _submissions(run: RunPaths) -> list[Path]:
    return sorted(run.submissions().iterdir())


@pytest.mark.core
def test_slurm_writes_the_same_bytes_in_arrays_no_longer_than_the_cluster_takes(
    cluster: Path, run: RunPaths, journal: Path, undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run_stage(run, NAME, own_config(run, workers=0), RunOptions(SLURM))
    assert (summary.attempted, summary.n_ok) == (7, 160)
    assert contents(run) == undisturbed
    submitted = [line for line in capsys.readouterr().err.splitlines() if "submitted array" in line]
    assert [line.split(": ")[2].split(",")[0] for line in submitted] == ["5 tasks", "2 tasks"]
    assert run_stage(run, NAME, own_config(run), RunOptions(SLURM)).attempted == 0
    assert (attempts(journal), len(_submissions(run))) == ([0, 1, 2, 3, 4, 5, 6], 1)


def test_several_shards_of_one_task_share_its_start(cluster: Path, run: RunPaths, journal: Path) -> None:
    options = EngineOptions("slurm", shards_per_task=4)
    assert run_stage(run, NAME, own_config(run, workers=0), RunOptions(options)).n_ok == 160
    assert json.loads((_submissions(run)[0] / "shards.json").read_text()) == [[0, 1, 2, 3], [4, 5, 6]]
    assert len(list(journal.glob("setup.*"))) == 2


def test_failing_and_dying_shards_are_tried_again_and_named(cluster: Path, run: RunPaths, journal: Path) -> None:
    with pytest.raises(IncompleteError, match=r"1 shards failed \(2\).*this shard never works"):
        run_stage(run, NAME, own_config(run, workers=0, fault="raise:2"), RunOptions(SLURM))
    assert len(contents(run)) == 6
    assert attempts(journal).count(2) == 3
    summary = run_stage(run, NAME, own_config(run, workers=0, fault="kill-once:2"), RunOptions(SLURM))
    assert summary.attempted == 1


def test_the_cause_is_told_where_no_task_can_set_up(cluster: Path, run: RunPaths) -> None:
    with pytest.raises(InputError, match="shard 00000: the model is not there"):
        run_stage(run, NAME, own_config(run, workers=0, fault="setup"), RunOptions(SLURM))


def test_a_second_submission_sees_the_first(
    cluster: Path, run: RunPaths, journal: Path, undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    config = own_config(run, workers=0, sleep_s=1.0)
    leave = EngineOptions("slurm", wait=False)
    first = run_stage(run, NAME, config, RunOptions(leave))
    assert len(first.handed_over) == 2
    again = run_stage(run, NAME, config, RunOptions(leave))
    assert again.handed_over == (array_name(make_job(run, NAME, config, "cpu")),)
    assert "7 shards are in the queue already" in capsys.readouterr().err
    assert run_stage(run, NAME, config, RunOptions(SLURM)).n_ok == 160
    assert len(_submissions(run)) == 1
    assert contents(run) == undisturbed
    assert (journal / "finished").exists()


def test_own_arguments_reach_sbatch_and_ours_cannot_be_taken(cluster: Path, run: RunPaths) -> None:
    options = EngineOptions("slurm", sbatch_args=("--nodelist=n2", "--time=5"), wait=False)
    name = array_name(make_job(run, NAME, own_config(run, workers=0, sleep_s=3.0), "cpu"))
    run_stage(run, NAME, own_config(run, workers=0, sleep_s=3.0), RunOptions(options))
    wait_for(lambda: any(task.state == "RUNNING" for task in queued(name)))
    nodes = subprocess.check_output(["squeue", "-h", "-t", "running", f"--name={name}", "-o", "%N %l"], text=True)
    assert set(nodes.splitlines()) == {"n2 5:00"}
    subprocess.check_call(["scancel", f"--name={name}"])
    wait_for(lambda: not queued(name))
    with pytest.raises(ConfigError, match="pseudolabel gives --array itself"):
        SlurmEngine(EngineOptions("slurm", sbatch_args=("--array=0-3",)))


def test_a_refusal_of_sbatch_is_told_in_its_words(cluster: Path, run: RunPaths) -> None:
    options = EngineOptions("slurm", sbatch_args=("--partition=nowhere",))
    with pytest.raises(MachineError, match="invalid partition"):
        run_stage(run, NAME, own_config(run, workers=0), RunOptions(options))


def test_a_squeue_that_fails_does_not_mean_that_all_is_over(
    cluster: Path, run: RunPaths, journal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = engine_module.queued
    calls: list[str] = []

    def shaky(name: str) -> list[engine_module.Task]:
        calls.append(name)
        if len(calls) in (2, 3):
            raise MachineError("slurm_load_jobs error: Unable to contact slurm controller")
        return answers(name)

    monkeypatch.setattr(engine_module, "queued", shaky)
    assert run_stage(run, NAME, own_config(run, workers=0, sleep_s=1.0), RunOptions(SLURM)).n_ok == 160
    assert attempts(journal) == [0, 1, 2, 3, 4, 5, 6]
    assert "squeue does not answer" in capsys.readouterr().err


@pytest.mark.core
def test_a_killed_driver_is_followed_by_one_that_waits_for_its_tasks(
    cluster: Path, run: RunPaths, journal: Path, undisturbed: dict[str, bytes]
) -> None:
    with drivers() as start:
        driver = start(run, SLURM, workers=0, sleep_s=2.0)
        wait_for(lambda: len(attempts(journal)) >= 2)
        driver.kill()
        driver.communicate()
        second = start(run, SLURM, workers=0, sleep_s=2.0)
        output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert "in the queue already" in errors
    assert json.loads(output)["n_ok"] == 160
    assert (attempts(journal), len(_submissions(run))) == ([0, 1, 2, 3, 4, 5, 6], 1)
    assert contents(run) == undisturbed


def test_a_stopped_driver_leaves_the_queue_alone_and_says_how_to_end_it(cluster: Path, run: RunPaths) -> None:
    with drivers() as start:
        driver = start(run, SLURM, workers=0, sleep_s=20.0)
        name = array_name(make_job(run, NAME, own_config(run, workers=0, sleep_s=20.0), "cpu"))
        wait_for(lambda: len(queued(name)) == 7)
        driver.send_signal(signal.SIGTERM)
        _, errors = driver.communicate(timeout=20)
    assert driver.returncode == 75
    assert f"scancel --name={name}" in errors
    assert len(queued(name)) == 7
    subprocess.check_call(["scancel", f"--name={name}"])
    wait_for(lambda: not queued(name))


def test_a_task_that_slurm_runs_again_changes_nothing(
    cluster: Path, run: RunPaths, journal: Path, undisturbed: dict[str, bytes]
) -> None:
    config = own_config(run, workers=0, sleep_s=12.0)  # longer than Slurm waits between its two signals
    name = array_name(make_job(run, NAME, config, "cpu"))
    (array,) = run_stage(run, NAME, config, RunOptions(EngineOptions("slurm", wait=False), shards=(0, 1))).handed_over
    wait_for(lambda: attempts(journal) == [0, 1])
    subprocess.check_call(["scontrol", "requeue", f"{array}_0"])
    wait_for(lambda: any(task.reason == "BeginTime" for task in queued(name)))
    subprocess.check_call(["scontrol", "update", f"jobid={array}_0", "StartTime=now"])  # it would wait two minutes
    run_stage(run, NAME, config, RunOptions(SLURM, shards=(0, 1)))
    assert attempts(journal) == [0, 0, 1]
    for part, content in contents(run).items():
        assert content == undisturbed[part]


@pytest.mark.slow
def test_a_whole_run_on_slurm_writes_the_bytes_that_this_machine_writes(cluster: Path, tmp_path: Path) -> None:
    scenes = draw_scenes(tmp_path / "scenes")
    here = digests(run_scenes(scenes, tmp_path / "here", shards=2))
    assert digests(run_scenes(scenes, tmp_path / "there", SLURM, shards=2)) == here


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_demo_on_slurm_writes_what_this_machine_writes(cluster: Path, tmp_path: Path) -> None:
    check_demo_chain(tmp_path, SLURM)


@pytest.mark.slow
def test_a_lost_node_runs_its_tasks_twice_at_once_and_the_parts_are_the_same(
    cluster: Path, run: RunPaths, journal: Path, undisturbed: dict[str, bytes]
) -> None:
    sandbox = _sandbox()
    config = own_config(run, workers=0, sleep_s=60.0)
    options = EngineOptions("slurm", sbatch_args=("--nodelist=n1",), wait=False)
    (array,) = run_stage(run, NAME, config, RunOptions(options, shards=(0, 1))).handed_over
    wait_for(lambda: attempts(journal) == [0, 1])
    os.kill(sandbox.node_daemon(cluster, "n1"), signal.SIGKILL)
    name = array_name(make_job(run, NAME, config, "cpu"))
    wait_for(lambda: all(task.reason == "BeginTime" for task in queued(name)), seconds=90)
    for index in (0, 1):
        subprocess.check_call(["scontrol", "update", f"jobid={array}_{index}", "StartTime=now", "ReqNodeList="])
    wait_for(lambda: attempts(journal) == [0, 0, 1, 1], seconds=60)
    assert list(run.table("own").glob("part-*")) == [], "the first attempts were to be alive still"
    assert run_stage(run, NAME, config, RunOptions(SLURM, shards=(0, 1))).n_ok > 0
    for name in ("part-00000-of-00007.parquet", "part-00001-of-00007.parquet"):
        assert contents(run)[name] == undisturbed[name]
    sandbox.start_node(cluster, "n1")


def test_a_surrounding_job_does_not_leak_into_the_submission() -> None:
    inside = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "7", "SLURM_CONF": "/c", "HOME": "/h", "SBATCH_QOS": "low"}
    assert submit_environment(inside) == {"SLURM_CONF": "/c", "HOME": "/h", "SBATCH_QOS": "low"}


def test_the_array_name_changes_with_what_is_asked_for_alone(run: RunPaths) -> None:
    one, two = (make_job(run, NAME, own_config(run, factor=factor), "cpu") for factor in (2, 3))
    assert array_name(one) == array_name(make_job(run, NAME, own_config(run), "cpu"))
    assert array_name(one) != array_name(two)


def test_a_machine_without_slurm_is_told_so(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineError, match="squeue is not on this machine: --engine slurm needs Slurm's commands"):
        run_stage(run, NAME, own_config(run), RunOptions(SLURM))


def test_the_deployed_sbatch_file_runs_a_stage_as_a_plain_array(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    import pseudolabel.pipelines.deploy

    (tmp_path / "images").mkdir()
    for index in range(9):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{index}.png")
    script = Path(pseudolabel.pipelines.deploy.__file__).with_name("slurm-array.sbatch")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = ["sbatch", "--wait", "--array=0-2", str(script), "shard", "run", "--images", "images", "--shards", "4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, logs
    assert len(list((tmp_path / "run" / "manifest").glob("part-*"))) == 4
    assert logs.count("(from SLURM_ARRAY_TASK_ID)") == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_of_two_tasks_is_requeued_by_usr1_and_goes_on(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployed sbatch file, a small training in the place of the command: task 1 gets the signal at step 17."""
    import pseudolabel.pipelines.deploy

    toy = Path(__file__).parents[1] / "training" / "toy.py"
    command = tmp_path / "bin" / "pseudolabel"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\nexec {sys.executable} {toy} {tmp_path}/logs {int(signal.SIGUSR1)} 17 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # no name server knows the nodes of this cluster
    monkeypatch.setenv("MASTER_PORT", str(_sandbox().free_ports(1)[0]))  # Lightning's own choice follows the job's id
    monkeypatch.setenv("TOY_DEVICES", "2")
    monkeypatch.setenv("TOY_BATCH", "2")
    script = Path(pseudolabel.pipelines.deploy.__file__).with_name("slurm-train.sbatch")
    submit = ["sbatch", "--parsable", "--nodes=1", "--ntasks-per-node=2", str(script), "train-student", "run"]
    job = subprocess.check_output(submit, cwd=tmp_path, text=True).strip()
    log = tmp_path / f"pseudolabel-train-{job}.log"
    wait_for(lambda: "reason=begintime" in _job(job).lower(), seconds=400)
    assert "goes back into Slurm's queue" in log.read_text()
    subprocess.check_call(["scontrol", "update", f"jobid={job}", "StartTime=now"])
    wait_for(lambda: "JobState=COMPLETED" in _job(job) or "JobState=FAILED" in _job(job), seconds=400)
    assert "JobState=COMPLETED" in _job(job), log.read_text()
    assert "Restarts=1" in _job(job)
    ends = [line for line in log.read_text().splitlines() if line.startswith("18 ")]
    assert len(ends) == 1, log.read_text()


def _job(number: str) -> str:
    return subprocess.check_output(["scontrol", "show", "job", number], text=True)
