"""A trained model on disk: whole, finite, and only ever read as what it is."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from pseudolabel.errors import InputError, MachineError
from pseudolabel.files import sweep_temporaries
from pseudolabel.training.checkpoint import config_path, read_config, save_model
from pseudolabel.weights import load_weights_file, read_state_dict


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "teacher.safetensors"
    save_model(path, nn.Linear(3, 2).state_dict(), {"method": "mal", "model": {"width": 64}})
    return path


def test_a_model_comes_back_with_its_weights_and_config(tmp_path: Path) -> None:
    module, again = nn.Linear(3, 2), nn.Linear(3, 2)
    path = tmp_path / "a.safetensors"
    digest = save_model(path, module.state_dict(), {"method": "mal", "lr": 0.002})
    load_weights_file(again, path)
    assert torch.equal(again.weight, module.weight)
    assert read_config(path) == {"method": "mal", "lr": 0.002}
    assert len(digest) == 64


def test_nothing_temporary_is_left_beside_a_model(saved: Path) -> None:
    assert sorted(path.name for path in saved.parent.iterdir()) == ["teacher.safetensors", "teacher.yaml"]


def test_weights_of_another_shape_are_named_with_both_shapes(saved: Path) -> None:
    with pytest.raises(InputError, match=r"other shape: weight \(2, 3\) for \(2, 4\)"):
        load_weights_file(nn.Linear(4, 2), saved)


def test_missing_and_unexpected_weights_are_listed(saved: Path) -> None:
    with pytest.raises(InputError, match=r"2 missing: 0\.weight, 0\.bias; 2 unexpected: bias, weight"):
        load_weights_file(nn.Sequential(nn.Linear(3, 2)), saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_weights_that_are_no_numbers_are_neither_written_nor_read(tmp_path: Path, value: float) -> None:
    path = tmp_path / "bad.safetensors"
    with pytest.raises(InputError, match="NaN or infinite weights in w"):
        save_model(path, {"w": torch.tensor([value])}, {})
    assert not path.exists()
    torch.save({"w": torch.tensor([value])}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="NaN or infinite weights in w"):
        load_weights_file(nn.ParameterDict({"w": torch.zeros(1)}), tmp_path / "bad.pt")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>404</html>", id="html"),
        pytest.param(b'\x08\0\0\0\0\0\0\0{"a":1}', id="a header that is none"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors: not a checkpoint"):
        read_state_dict(path)


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploded"),))  # type: ignore[return-value]


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(InputError, match="not a checkpoint that can be read safely"):
        read_state_dict(path)
    assert not (tmp_path / "exploded").exists()


def test_one_flipped_bit_of_the_weights_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-3] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match="sha256"):
        read_config(saved)


def test_weights_without_their_config_are_refused(saved: Path) -> None:
    config_path(saved).unlink()
    with pytest.raises(InputError, match=r"no config teacher\.yaml"):
        read_config(saved)


def test_a_folder_that_cannot_be_written_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(MachineError):
        save_model(tmp_path / "x.safetensors", {"w": torch.zeros(1)}, {})


def test_what_a_killed_training_left_of_its_weights_is_swept_by_its_name(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("pseudolabel.files.fsync", lambda path: seen.append(path.name))
    save_model(saved, nn.Linear(3, 2).state_dict(), {})
    left = saved.parent / seen[0].replace(f".{os.getpid()}.", ".4194999.")  # no process has so large a number
    left.touch()
    assert sweep_temporaries(saved.parent) == 1
    assert not left.exists()
