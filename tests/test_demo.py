"""The demo's parts: the data are drawn alike, the network is saved twice, and both copies say what it says."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pseudolabel.errors import MachineError
from pseudolabel.pipelines.demo.segmenter import (
    DemoData,
    DemoSegmenter,
    Recipe,
    build_network,
    check_export,
    class_names,
    make_demo_data,
    mean_class_iou,
    normalised,
    train_demo_segmenter,
)
from pseudolabel.segmenters.base import Photo, SegmenterOptions, SemanticResult
from pseudolabel.segmenters.card import read_card

SHORT = Recipe(steps=3, batch=2, threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    return make_demo_data(tmp_path_factory.mktemp("demo"), train=4, scenes=2, test=2)


@pytest.fixture(scope="module")
def trained(data: DemoData, tmp_path_factory: pytest.TempPathFactory) -> DemoSegmenter:
    logging.disable(logging.INFO)  # pytest would keep every line of torch's exporter, at three times its own time
    try:
        return train_demo_segmenter(data, tmp_path_factory.mktemp("models"), SHORT)
    finally:
        logging.disable(logging.NOTSET)


def pictures(data: DemoData) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted((data.scenes / "images").iterdir())])


def test_scenes_to_train_on_to_label_and_to_measure_on_are_different_ones(data: DemoData) -> None:
    parts = [
        {path.read_bytes() for path in (folder / "images").iterdir()} for folder in (data.train, data.scenes, data.test)
    ]
    assert [len(part) for part in parts] == [4, 2, 2]
    assert len(set.union(*parts)) == 8


def test_both_copies_open_by_their_cards_and_agree_on_every_pixel(data: DemoData, trained: DemoSegmenter) -> None:
    from pseudolabel.segmenters.onnx import open_onnx
    from pseudolabel.segmenters.smp import open_smp

    options = SegmenterOptions(device="cpu")
    opened = [open_smp(str(trained.smp_folder), options), open_onnx(str(trained.onnx_file), options)]
    photos = [Photo(str(n), (200, 256), rgb[:200]) for n, rgb in enumerate(pictures(data))]
    labels = []
    for segmenter in opened:
        assert segmenter.classes == class_names()
        results = segmenter.predict(photos[:1]) + segmenter.predict(photos[1:])
        labels.append(np.stack([result.label_map for result in results if isinstance(result, SemanticResult)]))
    assert labels[0].shape == (2, 200, 256)
    assert (labels[0] == labels[1]).mean() > 0.999
    assert read_card(trained.smp_folder / "model.yaml") == read_card(trained.onnx_file.with_suffix(".yaml"))
    assert trained.export_difference < 1e-3


def test_an_export_of_another_network_is_noticed(data: DemoData, trained: DemoSegmenter) -> None:
    torch.manual_seed(9)
    with pytest.raises(MachineError, match="differ from torch's"):
        check_export(build_network().eval(), trained.onnx_file, normalised(pictures(data)))


def test_the_same_recipe_trains_the_same_weights(data: DemoData, trained: DemoSegmenter, tmp_path: Path) -> None:
    from pseudolabel.pipelines.demo.segmenter import _read_labelled, _trained

    threads = torch.get_num_threads()
    torch.set_num_threads(SHORT.threads)  # as `train_demo_segmenter` does: sums depend on it
    try:
        again = _trained(*_read_labelled(data.train), SHORT, None)
    finally:
        torch.set_num_threads(threads)
    again.save_pretrained(tmp_path)
    first = (trained.smp_folder / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == first


def test_every_step_is_reported(data: DemoData) -> None:
    from pseudolabel.pipelines.demo.segmenter import _read_labelled, _trained

    seen: list[tuple[int, int]] = []
    _trained(*_read_labelled(data.train), SHORT, lambda step, steps, loss: seen.append((step, steps)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


class Oracle(torch.nn.Module):
    """Says the label that is written into the red channel."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        label = (batch[:, 0] * 0.5 + 0.5).mul(255).round().long()
        return torch.nn.functional.one_hot(label, len(class_names())).permute(0, 3, 1, 2).float()


def test_class_iou_is_one_for_true_labels_and_counts_confusions_of_both_sides() -> None:
    labels = np.zeros((1, 4, 4), dtype=np.int64)
    labels[0, :2] = 1
    images = np.repeat(labels[..., None], 3, axis=3).astype(np.uint8)
    assert mean_class_iou(Oracle(), images, labels) == 1.0
    images[0, 0, :2] = 0  # two of eight pixels of class 1 are taken for ground
    assert mean_class_iou(Oracle(), images, labels) == pytest.approx((6 / 8 + 8 / 10) / 2)


def test_the_encoder_s_file_is_what_a_student_starts_from(trained: DemoSegmenter) -> None:
    from pseudolabel.encoders.build import build_encoder
    from pseudolabel.pipelines.demo.segmenter import ENCODER, MEAN, STD

    encoder = build_encoder(ENCODER, str(trained.encoder_file))
    whole = load_file(trained.smp_folder / "model.safetensors")
    assert all(torch.equal(value, whole[f"encoder.model.{name}"]) for name, value in encoder.body.state_dict().items())
    assert encoder.mean.flatten().tolist() == pytest.approx([255 * value for value in MEAN])
    assert encoder.std.flatten().tolist() == pytest.approx([255 * value for value in STD])


def test_the_table_of_students_says_what_is_left() -> None:
    from pseudolabel.pipelines.demo.chain import student_table

    full = {"validation_ap": 0.4, "validation_ap50": 0.7, "validation_ap75": 0.35}
    pseudo = {"validation_ap": 0.38, "validation_ap50": 0.69, "validation_ap75": 0.3}
    assert student_table({"full": full, "pseudo": pseudo}).splitlines() == [
        "a student trained on       AP   AP50   AP75",
        "true masks              0.400  0.700  0.350",
        "pseudo labels           0.380  0.690  0.300",
        "95.0% of the AP is left",
    ]


@pytest.mark.slow
def test_the_demo_ends_with_two_students_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pseudolabel.pipelines.demo import chain as demo_chain

    monkeypatch.setattr(demo_chain, "make_demo_data", lambda folder: make_demo_data(folder, train=4, scenes=2, test=2))
    monkeypatch.setattr(
        demo_chain, "train_demo_segmenter", lambda data, folder: train_demo_segmenter(data, folder, SHORT)
    )
    monkeypatch.setitem(demo_chain.STUDENT, "epochs", 2)
    monkeypatch.setitem(demo_chain._SISEG, "steps", 2)
    monkeypatch.setitem(demo_chain._TEACHER, "epochs", 0.5)
    first = demo_chain.run_demo(tmp_path, lambda line: None, lambda summary: None)
    assert set(first.students) == {"full", "pseudo"}
    assert all("validation_ap" in figures for figures in first.students.values())
    assert all(path.exists() for path in first.pictures)
    said: list[dict[str, object]] = []
    second = demo_chain.run_demo(tmp_path, lambda line: None, said.append)
    assert second.students == first.students
    assert not any(summary.get("trained") or summary.get("attempted") for summary in said)
