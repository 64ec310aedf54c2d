"""`Run`: a run folder from Python, by the commands of the table."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pseudolabel as pl
from pseudolabel.errors import ConfigError, InputError, StaleOutputError
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.graph import COMMANDS, ORDER


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 2, 1, size_hw=(96, 96))
    return folder


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.Run:
    path = tmp_path_factory.mktemp("runs") / "mine"
    run = pl.Run.create(path, images=scenes / "images", boxes=scenes / "boxes.json", shards=1)
    run.infer_colors(engine="inline").fuse(engine="inline", upright=False)
    return run


def test_a_run_goes_its_steps_and_says_how_far_it_is(run: pl.Run) -> None:
    assert [one["stage"] for one in run.summaries] == ["shard", "infer-colors", "fuse"]
    assert repr(run).endswith("manifest 1/1, candidates/colors 1/1, pseudo 1/1>")
    assert [(one.table, one.done) for one in run.status()][-1] == ("pseudo", 1)


def test_what_is_done_is_not_done_again_and_other_options_are_refused(run: pl.Run) -> None:
    again = pl.Run(run).fuse(engine="inline", upright=False)
    assert again.summaries[-1]["attempted"] == 0
    with pytest.raises(StaleOutputError):
        run.fuse(engine="inline")


def test_labels_of_a_run_are_those_of_its_coco_file(run: pl.Run) -> None:
    content = json.loads((Path(run) / "pseudo" / "instances.json").read_text())
    assert run.labels().to_coco() == content
    kept = [row["id"] for row in content["annotations"] if row["attributes"]["decision"] == "keep"]
    assert run.labels(decision="keep").annotation_ids == kept


def test_a_question_gives_its_answer(run: pl.Run, scenes: Path) -> None:
    figures = run.evaluate(scenes / "instances.json")
    assert figures["n"] == len(run.labels())
    assert pl.evaluate(run.labels(), scenes / "instances.json") == figures
    assert run.picture(pictures=1, objects=0) is not None


def test_a_run_is_exported_with_links_to_its_images(run: pl.Run, scenes: Path, tmp_path: Path) -> None:
    told = run.export(to="yolo", out=tmp_path / "yolo", split=1, images="link")
    assert told["masks"] == len(run.labels(decision=["keep", "review"]))
    assert told["round_trip"]["mean_iou"] > 0.999
    links = list((tmp_path / "yolo/images/train").iterdir())
    assert {link.resolve() for link in links} == {path.resolve() for path in (scenes / "images").iterdir()}


def test_masks_of_ones_own_become_a_source(run: pl.Run) -> None:
    labels = run.labels()
    (first, *_) = labels
    masks = {label.annotation_id: label.mask for label in labels if label.annotation_id is not None}
    pl.write_candidates(run, "own", masks)
    fused = run.fuse(engine="inline", upright=False, sources=["own"], overwrite=True).labels()
    (own, *_) = fused
    assert (own.mask & first.mask).sum() / (own.mask | first.mask).sum() > 0.8


@pytest.mark.parametrize("name", [name for name in ORDER if name != "shard"])
def test_every_step_of_the_table_is_a_method_that_tells_its_options(run: pl.Run, name: str) -> None:
    method = getattr(run, name.replace("-", "_"))
    if name != "evaluate":  # which takes the truth by itself
        assert set(COMMANDS[name].config_class({}).model_fields) <= set(inspect.signature(method).parameters)  # type: ignore[attr-defined]
    assert method.__doc__
    assert name.replace("-", "_") in dir(run)


def test_what_is_no_run_or_no_step_is_named(run: pl.Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no plan"):
        pl.Run(tmp_path)
    with pytest.raises(AttributeError, match="a run has no 'infer_colours'; did you mean 'infer_colors'"):
        run.infer_colours()
    with pytest.raises(ConfigError, match="no command 'fusee' with options; did you mean 'fuse'"):
        run.step("fusee")
    with pytest.raises(ConfigError, match="unknown key 'tau_pixl'; did you mean 'tau_pixel'"):
        run.fuse(tau_pixl=0.5)
    bare = pl.Run.create(tmp_path / "bare", images=_images_of(run), shards=1)
    with pytest.raises(InputError, match="1 of 1 parts of pseudo are missing; run  fuse  first"):
        bare.labels()


def test_a_script_needs_no_guard_against_its_workers(scenes: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pseudolabel as pl\n"
        "print('begun')\n"
        f"run = pl.Run.create({str(tmp_path / 'run')!r}, images={str(scenes / 'images')!r}, shards=1)\n"
        "print(run.summaries[0]['n_ok'])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "begun\n2\n"), done.stderr


def _images_of(run: pl.Run) -> str:
    return str(json.loads((Path(run) / "plan.json").read_text())["images_root"])
