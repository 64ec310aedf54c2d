"""Checkpoints to go on from: damage is noticed wherever it is, and neither a kill nor a full disk costs one."""

import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pseudolabel import files
from pseudolabel.errors import InputError, MachineError
from pseudolabel.training import resume
from pseudolabel.training.guard import NonFiniteLossError
from pseudolabel.training.resume import Checkpoints


def trained(steps: int = 1) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small network after some steps, with its optimiser."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    for _ in range(steps):
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return network, optimizer


def saved(folder: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, *trained(step))
    return checkpoints


def restored(folder: Path) -> tuple[int, nn.Module]:
    network, optimizer = trained(0)
    return Checkpoints(folder).restore(network, optimizer), network


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_gives_back_the_network_and_the_optimiser(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    (one, its), (other, others) = trained(0), trained(5)
    assert Checkpoints(tmp_path).restore(one, its) == 5
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    moments = [state["exp_avg"] for state in its.state_dict()["state"].values()]
    wanted = [state["exp_avg"] for state in others.state_dict()["state"].values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, wanted, strict=True))


def test_the_two_newest_are_kept_each_with_its_digest(tmp_path: Path) -> None:
    saved(tmp_path, 5, 10, 15)
    assert names(tmp_path) == [f"step-{step:08d}.{end}" for step in (10, 15) for end in ("ckpt", "sha256")]


def test_without_a_checkpoint_a_training_begins_at_the_first_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert restored(tmp_path)[0] == 0
    assert not caplog.records


def _damage(path: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def _assert_put_aside(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The newest is renamed with one line, the one before is used."""
    caplog.clear()
    step, network = restored(folder)
    assert step == 5
    assert torch.equal(network.weight, trained(5)[0].weight)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "step-00000010.ckpt: damaged" in record.message
    assert "put aside as step-00000010.ckpt.damaged" in record.message
    assert names(folder) == ["step-00000005.ckpt", "step-00000005.sha256", "step-00000010.ckpt.damaged"]


@pytest.mark.parametrize("name", ["step-00000010.ckpt", "step-00000010.sha256"])
def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    saved(tmp_path, 5, 10)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    digest_bytes = 64  # behind it stands the name, which nobody reads
    places = range(digest_bytes) if name.endswith("sha256") else range(0, len(whole[name]), 41)
    for place in places:
        for path in tmp_path.iterdir():
            path.unlink()
        for known, content in whole.items():
            (tmp_path / known).write_bytes(content)
        bit = 1 << place % 8
        _damage(tmp_path / name, lambda content, place=place, bit=bit: content.__setitem__(place, content[place] ^ bit))
        _assert_put_aside(tmp_path, caplog)
    assert len(places) >= 64


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["step-00000010.ckpt", "step-00000010.sha256"])
def test_a_truncated_file_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, share: float) -> None:
    saved(tmp_path, 5, 10)
    path = tmp_path / name
    end = int(share * min(path.stat().st_size, 64 if name.endswith("sha256") else 1 << 30))
    path.write_bytes(path.read_bytes()[:end])
    _assert_put_aside(tmp_path, caplog)


def test_a_checkpoint_without_its_digest_is_not_trusted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path, 5, 10)
    (tmp_path / "step-00000010.sha256").unlink()
    _assert_put_aside(tmp_path, caplog)


def test_with_none_that_is_whole_the_training_starts_from_the_beginning_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 5, 10)
    for path in tmp_path.glob("*.ckpt"):
        path.write_bytes(b"")
    assert restored(tmp_path)[0] == 0
    assert len(caplog.records) == 3
    assert "starts from the beginning" in caplog.records[-1].message


def test_a_damaged_one_goes_at_the_start_after_a_later_one_was_written(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5, 10)
    (tmp_path / "step-00000010.ckpt").write_bytes(b"")
    restored(tmp_path)
    checkpoints.sweep()
    assert (tmp_path / "step-00000010.ckpt.damaged").exists()
    saved(tmp_path, 10)
    checkpoints.sweep()
    assert names(tmp_path) == [f"step-{step:08d}.{end}" for step in (5, 10) for end in ("ckpt", "sha256")]


@pytest.mark.parametrize("other", [nn.Linear(4, 2), nn.Sequential(nn.Linear(3, 2))], ids=["shape", "names"])
def test_a_checkpoint_of_another_network_is_refused_and_stays(tmp_path: Path, other: nn.Module) -> None:
    saved(tmp_path, 5)
    with pytest.raises(InputError, match=r"step-00000005\.ckpt: whole, but of another network; remove"):
        Checkpoints(tmp_path).restore(other, torch.optim.AdamW(other.parameters()))
    assert (tmp_path / "step-00000005.ckpt").exists()


def test_moments_of_another_shape_are_refused(tmp_path: Path) -> None:
    network, optimizer = trained()
    optimizer.state[network.weight]["exp_avg"] = torch.zeros(7)  # type: ignore[index]
    Checkpoints(tmp_path).save(5, network, optimizer)
    with pytest.raises(InputError, match="of another network"):
        Checkpoints(tmp_path).restore(*trained(0))


def test_a_number_that_is_none_is_never_written(tmp_path: Path) -> None:
    network, optimizer = trained()
    with torch.no_grad():
        network.bias.fill_(float("inf"))  # type: ignore[operator,union-attr]
    with pytest.raises(NonFiniteLossError, match=r"step 4: NaN or infinite values in method\.bias"):
        Checkpoints(tmp_path).save(5, network, optimizer)
    assert names(tmp_path) == []


def _forked(work: Callable[[], object]) -> int:
    """How a child ends that does this work: minus the signal, or its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at(counted: list[int], call: int, real: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*arguments: Any, **named: Any) -> Any:
        counted[0] += 1
        if counted[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    return counting


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("what", ["write", "fsync"])
def test_a_kill_in_the_middle_of_saving_costs_nothing(tmp_path: Path, what: str, call: int) -> None:
    """Bytes are written many times; files and folders are brought to disk four times, two for each file."""
    saved(tmp_path, 5)
    network, optimizer = trained(10)

    def work() -> None:
        if what == "write":
            resume._HashedFile.write = _die_at([0], call, resume._HashedFile.write)  # type: ignore[method-assign]
        else:
            files.os.fsync = _die_at([0], call, os.fsync)  # type: ignore[attr-defined]
        Checkpoints(tmp_path).save(10, network, optimizer)

    lives = what == "fsync" and call == 5
    assert _forked(work) == (0 if lives else -signal.SIGKILL)
    renamed = what == "fsync" and call >= 4
    checkpoints = Checkpoints(tmp_path)
    checkpoints.sweep()
    assert restored(tmp_path)[0] == (10 if renamed else 5)
    assert names(tmp_path) == [
        f"step-{step:08d}.{end}" for step in ((5, 10) if renamed else (5,)) for end in ("ckpt", "sha256")
    ]


@contextmanager
def _largest_file(size_bytes: int) -> Iterator[None]:
    """Writing beyond this size fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room_bytes", [0, 10, 1000, 2000])
def test_a_full_disk_is_the_machines_fault_and_costs_no_checkpoint(tmp_path: Path, room_bytes: int) -> None:
    saved(tmp_path, 5)
    network, optimizer = trained(10)
    with _largest_file(room_bytes), pytest.raises(MachineError) as error:
        Checkpoints(tmp_path).save(10, network, optimizer)
    assert str(tmp_path) in str(error.value)
    assert "bytes free" in str(error.value)
    assert error.value.exit_code == 4
    assert names(tmp_path) == ["step-00000005.ckpt", "step-00000005.sha256"]
    assert restored(tmp_path)[0] == 5
