"""What comes in a file chooses no code, takes no memory beyond its size, and never makes a reader wait."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from own_stage import NAME, make_run, own_config

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.engines.slurm import _write_submission
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.work.job import make_job
from pseudolabel.registry import Registry
from pseudolabel.sources import open_source
from pseudolabel.yaml_file import MOST_BYTES, dump_yaml, parse_yaml, read_yaml


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that, imported, leaves a file; it is on the path, so that only a refusal saves us."""
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nclass Stage: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _refused_without_code(trap: Path) -> bool:
    return not (trap / "sprung").exists() and "trap" not in sys.modules


def test_code_that_is_not_in_a_table_is_had_by_trust_alone(trap: Path) -> None:
    table = Registry("student", {"one": "json:loads"})
    assert table.load("one") is json.loads
    for name in ("trap:Stage", "json:dumps", ":", "one:two"):
        with pytest.raises(ConfigError, match="no student called"):
            table.load(name)
    assert _refused_without_code(trap)
    table.trust("json:dumps")
    assert table.load("json:dumps") is json.dumps


def test_a_student_that_names_code_is_refused(trap: Path) -> None:
    import torch

    from pseudolabel.students.save import load_student
    from pseudolabel.training.checkpoint import save_model

    config = {"student": {"model": "trap:Stage"}, "categories": [{"id": 1, "name": "cat"}], "image_px": 64}
    save_model(trap / "student.safetensors", {"weight": torch.zeros(1)}, config)
    with pytest.raises(ConfigError, match="no student called 'trap:Stage'"):
        load_student(trap / "student.safetensors")
    assert _refused_without_code(trap)


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_config_in_a_run_that_names_code_runs_none(trap: Path, command: str) -> None:
    run = make_run(trap, images=4, shards=1)
    (run.root / "config").mkdir(exist_ok=True)
    (run.root / "config" / "trap:Stage.yaml").write_text("stage: trap:Stage\nconfig: {}\n")
    line = [sys.executable, "-m", "pseudolabel.cli.main", command, str(run.root)]
    done = subprocess.run(line, cwd=trap, env={**os.environ}, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert _refused_without_code(trap)


def test_a_job_file_alone_chooses_no_code(trap: Path) -> None:
    run = make_run(trap, images=4, shards=1)
    job = make_job(run, NAME, own_config(run), "cpu")
    folder = _write_submission(job, "name", [[0]])
    script = (folder / "task.sh").read_text()
    assert f"--stage {NAME}" in script
    assert f"{sys.executable} -P -m pseudolabel" in script
    values = json.loads((folder / "job.json").read_text()) | {"stage": "trap:Stage"}
    (folder / "job.json").write_text(json.dumps(values))
    line = [sys.executable, "-P", "-m", "pseudolabel.cli.main", "run-shard", str(folder / "job.json")]
    line += [str(folder / "shards.json"), "--entry", "0", "--stage", NAME]
    done = subprocess.run(line, cwd=trap, capture_output=True, text=True, check=False)
    assert (done.returncode, "is of the stage 'trap:Stage'" in done.stderr) == (2, True), done.stderr
    assert _refused_without_code(trap)


def test_a_task_of_slurm_imports_nothing_from_the_folder_in_which_it_starts(trap: Path) -> None:
    run = make_run(trap, images=4, shards=1)
    folder = _write_submission(make_job(run, NAME, own_config(run), "cpu"), "name", [[0]])
    (trap / "click.py").write_text(f"open({str(trap / 'sprung')!r}, 'w').close()\n")
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent)])
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "0", "PYTHONPATH": path.strip(os.pathsep)}
    done = subprocess.run(
        ["sh", str(folder / "task.sh"), "0"], cwd=trap, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (trap / "sprung").exists()
    assert run.part("own", 0, 1).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a: &x [1]\nb: *x", "line 2, column 4: not YAML .aliases", id="alias"),
        pytest.param("[" * 60 + "]" * 60, "nested more than 40 deep", id="deep"),
        pytest.param("[" * 20_000, "nested more than 40 deep", id="very deep"),
        pytest.param("a: 1\na: 2", "'a' stands there twice", id="twice"),
        pytest.param("a: !!python/object/apply:os.system [ls]", "could not determine a constructor", id="python"),
        pytest.param("a: '" + "x" * 100_000, "found unexpected end of stream", id="long"),
        pytest.param("? [a]\n: 1", "unhashable", id="key"),
        pytest.param("a: 2020-99-99", "month must be in", id="date"),
    ],
)
def test_yaml_that_is_none_is_told_in_short_words_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert len(str(caught.value)) < 300
    assert "x.yaml" in str(caught.value)


def test_yaml_of_plain_values_is_read_as_the_library_reads_it_and_written_without_aliases() -> None:
    shared = [1, 2.5, None, True, "ü: x"]
    values = {"b": shared, "a": {"c": shared, "d": "2020"}}
    text = dump_yaml(values)
    assert parse_yaml(text, where="x") == yaml.safe_load(text) == values
    assert "&" not in text


def test_a_small_file_is_small_and_a_file(tmp_path: Path) -> None:
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name, words in (
        ("large.yaml", "such a file has at most"),
        ("pipe.yaml", "not a regular file"),
        ("folder.yaml", "not a regular file"),
        ("absent.yaml", "No such file"),
    ):
        with pytest.raises(InputError, match=words):
            read_yaml(tmp_path / name)


def _coco(**changes: object) -> dict[str, object]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
        "categories": [{"id": 1, "name": "cat"}],
    } | changes


_IMAGE, _ANNOTATION = {"id": 1, "width": 4, "height": 3}, {"id": 1, "image_id": 1, "category_id": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param([], "line 1, column 1: expected an object", id="list"),
        pytest.param(_coco(images=None), "lists 'images' and 'annotations'", id="no images"),
        pytest.param(_coco(images=[None]), r"images\[0\]: expected an object", id="null image"),
        pytest.param(_coco(images=[_IMAGE | {"id": None}]), r"images\[0\].*id is None", id="no id"),
        pytest.param(_coco(images=[_IMAGE, _IMAGE]), r"images\[1\]\.id: 1 is the id of place 0", id="id twice"),
        pytest.param(_coco(images=[_IMAGE | {"width": 0}]), "width is 0, expected a positive", id="no width"),
        pytest.param(_coco(images=[_IMAGE | {"height": 1e300}]), "height is 1e.300", id="huge height"),
        pytest.param(_coco(images=[_IMAGE | {"file_name": 7}]), "file_name is 7, expected text", id="name"),
        pytest.param(_coco(annotations=[7]), r"annotations\[0\]: expected an object", id="number"),
        pytest.param(_coco(annotations=[_ANNOTATION | {"image_id": []}]), r"image_id is \[\]", id="list as id"),
        pytest.param(_coco(annotations=[_ANNOTATION | {"category_id": True}]), "category_id is True", id="bool"),
        pytest.param(_coco(annotations=[_ANNOTATION | {"bbox": [0, 0, float("nan"), 1]}]), "bbox is", id="nan"),
        pytest.param(_coco(annotations=[_ANNOTATION | {"iscrowd": "yes"}]), "iscrowd is 'yes'", id="crowd"),
        pytest.param(_coco(annotations=[_ANNOTATION | {"score": "high"}]), "score is 'high'", id="score"),
        pytest.param(_coco(annotations=[_ANNOTATION | {"attributes": [1]}]), "attributes is", id="attributes"),
        pytest.param(_coco(categories={}), "categories: not a list", id="categories"),
        pytest.param(_coco(categories=[{"id": 1}]), r"categories\[0\] \(1\): name is None", id="no name"),
        pytest.param(_coco(info=[]), None, id="info"),
    ],
)
def test_every_reader_of_coco_files_refuses_a_record_that_is_not_sound(
    tmp_path: Path, content: object, words: str | None
) -> None:
    from pseudolabel.pipelines.tools.evaluate import evaluate
    from pseudolabel.students.labels import LabelConfig, labels_from_coco

    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    if words is None:
        assert read_coco(path)["categories"]
        return
    for read in (read_coco, lambda p: evaluate(p, p), lambda p: labels_from_coco(p, LabelConfig())):
        with pytest.raises(InputError, match=words):
            read(path)


def test_a_gzipped_file_is_read_and_a_cut_one_told(tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(json.dumps(_coco()).encode()))
    assert read_coco(path)["images"][0]["id"] == 1
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="gzip"):
        read_coco(path)


def test_annotations_that_are_no_regular_file_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match="regular file"):
        read_coco(tmp_path / "pipe.json")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("size", "words"),
    [pytest.param("-1536", "size of -1536|negative|invalid", id="backwards"), pytest.param("0", None, id="sound")],
)
def test_a_tar_header_that_leads_back_ends_the_walk(tmp_path: Path, size: str, words: str | None) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, headers in (("0.png", {}), ("1.png", {"size": size} if words else {})):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 4, headers
            tar.addfile(info, io.BytesIO(b"data"))
    source = open_source(str(tmp_path / "x.tar"))
    names = list(source.names())
    assert len(names) == (1 if words else 2)
    damage = "".join(what for _, what in source.damage())
    assert bool(damage) == bool(words), damage


def test_a_tar_header_as_large_as_an_archive_is_not_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "y.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("0.png")
        info.size, info.pax_headers = 4, {"comment": "x" * (3 << 20)}
        tar.addfile(info, io.BytesIO(b"data"))
    with pytest.raises(InputError, match="extended header of"):
        list(open_source(str(tmp_path / "y.tar")).names())


def test_content_that_the_setup_cannot_use_ends_the_stage_at_once_with_code_2(tmp_path: Path, monkeypatch) -> None:
    from own_stage import OwnStage

    def broken(self: OwnStage, device: str) -> None:
        (self.config.journal / f"setup.{os.getpid()}").touch()
        raise KeyError("weights")

    monkeypatch.setattr(OwnStage, "setup", broken)
    run = make_run(tmp_path, images=8, shards=2)
    with pytest.raises(InputError, match="cannot be set up: KeyError: 'weights'; the traceback is in"):
        run_stage(run, NAME, own_config(run), RunOptions("inline"))
    assert len(list((tmp_path / "journal").glob("setup.*"))) == 1


def test_the_data_of_an_onnx_model_is_part_of_what_decides(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig
    from pseudolabel.pipelines.run.paths import RunPaths
    from pseudolabel.pipelines.stages.infer_semantic import InferSemanticStage

    weights = numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")
    sort = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", sort[:1], sort[1:], [weights])
    onnx.save(helper.make_model(graph), str(tmp_path / "m.onnx"))
    card = tmp_path / "m.yaml"
    card.write_text(
        "name: m\ninput: {mean: [0, 0, 0], std: [1, 1, 1], size: [64, 64]}\n"
        "output: {kind: logits, align_corners: false}\nclasses: [a, b]\n"
    )
    stage = InferSemanticStage(InferSemanticConfig(model=f"onnx:{tmp_path / 'm.onnx'}"), RunPaths(tmp_path))
    assert set(stage.weights().values()) == {tmp_path / "m.onnx", card}
    model, outside = helper.make_model(graph), {"save_as_external_data": True, "location": "m.data"}
    onnx.save(model, str(tmp_path / "m.onnx"), size_threshold=0, **outside)
    assert set(stage.weights().values()) == {tmp_path / "m.onnx", tmp_path / "m.data", card}
