"""ONNX pairs: each known kind of export is made of a tiny model and has to say what that model says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.prompted.base import PromptedOptions, Prompts, deciding_files, open_prompted
from pseudolabel.prompted.masks import stability
from pseudolabel.prompted.signatures import signature_of

pytest.importorskip("transformers")
from exports import EXPORTS, write_pair

Folder = Callable[[str], Path]
BOXES = np.array([[5, 5, 45, 35], [20.5, 10, 70, 70], [30, 30, 77, 70]], dtype=np.float64)
ONE = {"views": 2, "closer_px": 0}


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A function from a kind of export to its folder, made once."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("pair") / "model"
            write_pair(name, folders[name])
        return folders[name]

    return folder


def _prompts(name: str) -> Prompts:
    """An odd size; a square one for the export that stretches what its model was made to pad."""
    size_hw = (77, 77) if name == "efficient sam" else (77, 131)
    return Prompts(np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8), BOXES)


@pytest.mark.parametrize("name", list(EXPORTS))
def test_a_pair_says_what_the_model_says_that_it_was_made_of(
    name: str, pair_folder: Folder, tiny_folder: Folder
) -> None:
    several = {"masks": "all"} if name in ("efficient sam", "optimum sam2") else {}
    pair = open_prompted(f"sam-onnx:{pair_folder(name)}", PromptedOptions(**ONE, **several))
    pair.probe()
    expected = open_prompted(f"sam:{tiny_folder(EXPORTS[name].kind)}", PromptedOptions(**ONE, **several))
    ours, theirs = pair.predict(_prompts(name)), expected.predict(_prompts(name))
    assert [one.given for one in ours] == [one.given for one in theirs]
    for own, other in zip(ours, theirs, strict=True):
        difference = np.abs(own.mask.probability.astype(int) - other.mask.probability)
        # EfficientSAM enlarges its logits itself, so that they are read between cells twice
        assert difference.max() <= 6 if name != "efficient sam" else difference.mean() <= 6
        assert own.box_iou == pytest.approx(other.box_iou, abs=0.02)
        if name != "edge sam":
            assert own.box_score == pytest.approx(other.box_score, abs=1e-3)


def test_edge_sam_is_scored_by_stability(pair_folder: Folder) -> None:
    model = open_prompted(f"sam-onnx:{pair_folder('edge sam')}", PromptedOptions(views=1, closer_px=0))
    network = model._network
    pixels = _prompts("edge sam").pixels
    decoded = network.decode(network.encode(pixels), (BOXES / 2).astype(np.float32))
    np.testing.assert_allclose(decoded.scores[:, 0], [stability(masks[0]) for masks in decoded.logits])
    assert 0 < decoded.scores.max() <= 1


def test_a_single_mask_is_the_one_that_its_model_prefers(pair_folder: Folder) -> None:
    every = open_prompted(f"sam-onnx:{pair_folder('optimum sam2')}", PromptedOptions(views=1, closer_px=0, masks="all"))
    one = open_prompted(f"sam-onnx:{pair_folder('optimum sam2')}", PromptedOptions(views=1, closer_px=0))
    prompts = _prompts("optimum sam2")
    best = {given: max(mask.box_score for mask in every.predict(prompts) if mask.given == given) for given in range(3)}
    assert {mask.given: mask.box_score for mask in one.predict(prompts)} == best


def test_a_pair_gives_a_box_the_same_bytes_alone_and_among_others(pair_folder: Folder) -> None:
    model = open_prompted(f"sam-onnx:{pair_folder('samexporter sam2')}", PromptedOptions(**ONE))
    prompts = _prompts("samexporter sam2")
    together = [one for one in model.predict(prompts) if one.given == 2]
    alone = model.predict(Prompts(prompts.pixels, BOXES[2:]))
    assert [(one.box_score, one.mask.probability.tobytes()) for one in alone] == [
        (one.box_score, one.mask.probability.tobytes()) for one in together
    ]


def test_weights_in_files_of_their_own_are_among_what_decides(pair_folder: Folder, tmp_path: Path) -> None:
    for path in pair_folder("sam").glob("*.onnx"):
        onnx.save(
            onnx.load(path), tmp_path / path.name, save_as_external_data=True, location=f"{path.stem}.onnx_data",
            size_threshold=1024,
        )  # fmt: skip
    files = deciding_files(f"sam-onnx:{tmp_path}", None)
    assert set(files) == {"encoder", "encoder:encoder.onnx_data", "decoder", "decoder:decoder.onnx_data"}
    open_prompted(f"sam-onnx:{tmp_path}", PromptedOptions()).probe()
    (tmp_path / "decoder.onnx_data").unlink()
    with pytest.raises(InputError, match=r"its weights are in decoder.onnx_data, which is not beside it"):
        deciding_files(f"sam-onnx:{tmp_path}", None)


def test_two_encoders_in_a_folder_are_listed(pair_folder: Folder, tmp_path: Path) -> None:
    for name in ("encoder", "encoder_int8", "decoder"):
        (tmp_path / f"{name}.onnx").touch()
    with pytest.raises(InputError, match=r"one \*encoder\*.onnx, found encoder.onnx, encoder_int8.onnx"):
        open_prompted(f"sam-onnx:{tmp_path}", PromptedOptions())


def test_a_points_only_export_of_transformers_sam_is_refused_with_the_reason() -> None:
    names = frozenset({"image_embeddings", "image_positional_embeddings", "input_points", "input_labels"})
    with pytest.raises(InputError, match="hears two corners otherwise than a box"):
        signature_of(names, Path("decoder.onnx"))


def test_a_decoder_of_no_known_kind_names_its_inputs() -> None:
    with pytest.raises(InputError, match="no decoder of a known kind takes latent"):
        signature_of(frozenset({"latent"}), Path("decoder.onnx"))


def test_an_encoder_of_another_model_is_found_out(pair_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes((pair_folder("sam") / "encoder.onnx").read_bytes())
    decoder = next(pair_folder("samexporter sam2").glob("*decoder*"))
    (tmp_path / "decoder.onnx").write_bytes(decoder.read_bytes())
    with pytest.raises(InputError, match=r"wants high_res_feats_0, .*which encoder.onnx does not give"):
        open_prompted(f"sam-onnx:{tmp_path}", PromptedOptions())


def test_an_optimum_export_needs_to_be_told_how_pixels_are_normalised(pair_folder: Folder, tmp_path: Path) -> None:
    for path in pair_folder("optimum sam2").glob("*.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match=r"copy the model's preprocessor_config\.json there, or write a card"):
        open_prompted(f"sam-onnx:{tmp_path}", PromptedOptions())
    (tmp_path / "card.yaml").write_text("input: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}\n")
    by_card = open_prompted(f"sam-onnx:{tmp_path}", PromptedOptions(**ONE))
    by_processor = open_prompted(f"sam-onnx:{pair_folder('optimum sam2')}", PromptedOptions(**ONE))
    prompts = _prompts("optimum sam2")
    assert [one.box_score for one in by_card.predict(prompts)] == [
        one.box_score for one in by_processor.predict(prompts)
    ]
    assert "card" in deciding_files(f"sam-onnx:{tmp_path}", None)
    assert "processor" in deciding_files(f"sam-onnx:{pair_folder('optimum sam2')}", None)


def test_a_processor_in_the_folder_above_onnx_is_found(pair_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for path in pair_folder("optimum sam2").glob("*.onnx"):
        (tmp_path / "onnx" / path.name).write_bytes(path.read_bytes())
    said = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    assert "processor" in deciding_files(f"sam-onnx:{tmp_path / 'onnx'}", None)
    open_prompted(f"sam-onnx:{tmp_path / 'onnx'}", PromptedOptions()).probe()


def test_a_typo_in_a_card_names_the_key(pair_folder: Folder, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text("inptu: {size: 64}\n")
    with pytest.raises(ConfigError, match="unknown key 'inptu'; did you mean 'input'"):
        open_prompted(f"sam-onnx:{pair_folder('sam')}", PromptedOptions(card=card))


def test_an_encoder_that_prepares_bytes_itself_gets_them(tmp_path: Path, pair_folder: Folder) -> None:
    """samexporter's --use-preprocess: height x width x 3 in 0 to 255, the longer side brought to the input before."""

    class Bytes(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            planes = pixels.permute(2, 0, 1)[None] / 255
            padded = torch.nn.functional.pad(planes, (0, 64 - pixels.shape[1], 0, 64 - pixels.shape[0]))
            cells = torch.nn.functional.avg_pool2d(padded, 8)
            return cells.mean(dim=1, keepdim=True).repeat(1, 16, 1, 1)

    torch.onnx.export(
        Bytes(), (torch.rand(64, 64, 3) * 255,), tmp_path / "encoder.onnx", input_names=["input_image"],
        output_names=["image_embeddings"], dynamic_axes={"input_image": {0: "h", 1: "w"}}, dynamo=False,
    )  # fmt: skip
    (tmp_path / "decoder.onnx").write_bytes((pair_folder("sam") / "decoder.onnx").read_bytes())
    (tmp_path / "card.yaml").write_text("input: {size: 64}\n")
    model = open_prompted(f"sam-onnx:{tmp_path}", PromptedOptions(**ONE))
    embedding = model._network.encode(np.full((40, 80, 3), 200, dtype=np.uint8))["image_embeddings"].numpy()
    assert embedding.shape == (1, 16, 8, 8)
    np.testing.assert_allclose(embedding[0, 0, :4], 200 / 255, rtol=1e-5)  # 40 x 80 px become 32 x 64
    np.testing.assert_allclose(embedding[0, 0, 4:], 0)
    model.probe()
