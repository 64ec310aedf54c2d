"""What a mask of `sam:` costs beside the bare encoder: 10 boxes an image, on a SAM with random weights.

    python tests/benchmarks/prompted_speed.py --out docs/results/prompted_speed.json

The decoder has SAM's own size (256 channels, masks of a quarter of the input). Beside the smallest published encoder,
ViT-B at 1024 px, there is a much smaller one, which makes the share of decoder and masks large enough to tell settings
apart. `time beside the encoder` is CPU time of the whole
prediction over that of transformers' `get_image_embeddings` alone, measured in turns; `bare model` is encoder and
decoder of transformers for the same 10 boxes, as often as there are views, without reading a mask.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import interleaved, report, script_parser
from transformers import SamConfig, SamImageProcessor, SamModel

from pseudolabel.prompted.base import PromptedOptions, Prompts
from pseudolabel.prompted.sam import open_sam

BOXES = 10
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "mlp_dim": 1536,
         "global_attn_indexes": [2, 5, 8, 11]}  # fmt: skip
# the side of its input, what it changes of SAM's ViT-B, and pairs of views and boxes at once
ENCODERS: dict[str, tuple[int, dict[str, Any], tuple[tuple[int, int], ...]]] = {
    "small": (512, SMALL, ((1, 8), (1, 10), (5, 8), (5, 10), (5, 32))),
    "ViT-B": (1024, {}, ((1, 10), (5, 10))),
}


def random_sam(folder: Path, side_px: int, changes: dict[str, Any]) -> Path:
    """A folder of transformers with a random model."""
    torch.manual_seed(0)
    config = SamConfig(
        vision_config={"image_size": side_px, "patch_size": 16, **changes},
        prompt_encoder_config={"image_size": side_px, "image_embedding_size": side_px // 16},
    )
    SamModel(config).save_pretrained(folder)
    SamImageProcessor(size={"longest_edge": side_px}, pad_size={"height": side_px, "width": side_px}).save_pretrained(
        folder
    )
    return folder


def prompts() -> Prompts:
    """A picture of noise and boxes of a tenth to half of its sides."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.15, 0.5, (BOXES, 2)) * (640, 480)
    corners = rng.uniform(0, 1, (BOXES, 2)) * ((640, 480) - sides)
    pixels = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    return Prompts(pixels, np.concatenate([corners, corners + sides], axis=1))


def rows_of(encoder: str, asked: Prompts, repeats: int) -> list[dict[str, Any]]:
    """CPU seconds behind one encoder, each setting's in turns with the others'."""
    side_px, changes, settings = ENCODERS[encoder]
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_sam(Path(scratch), side_px, changes)
        models = {
            f"views {views}, {at_once} at once": open_sam(
                str(folder), PromptedOptions(closer_px=0, views=views, boxes_at_once=at_once)
            )
            for views, at_once in settings
        }
    network: Any = next(iter(models.values()))._network
    pixels = network._processor(torch.from_numpy(asked.pixels).permute(2, 0, 1), return_tensors="pt")["pixel_values"]

    def bare() -> None:
        with torch.inference_mode():
            network._model.get_image_embeddings(pixels)

    def bare_model(views: int) -> None:
        embedding = network.encode(asked.pixels)
        for _ in range(views):
            network.decode(embedding, asked.boxes_xyxy.astype(np.float32))

    functions: Any = {"bare encoder": bare}
    functions |= {f"bare model, {views} x 10 boxes": (lambda views=views: bare_model(views)) for views in (1, 5)}
    functions |= {name: (lambda model=model: model.predict(asked)) for name, model in models.items()}
    seconds = interleaved(functions, repeats)
    bare_s = seconds["bare encoder"]
    return [
        {"encoder": f"{encoder}, {side_px} px", "setting": name, "cpu_s": round(value, 3),
         "time beside the encoder": round(value / bare_s, 2)}
        for name, value in seconds.items()
    ]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    parser = script_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows = [row for encoder in ENCODERS for row in rows_of(encoder, prompts(), given.repeats)]
    report("prompted_speed", rows, on=f"{BOXES} boxes on a picture of 640x480, SAM with random weights, one thread")


if __name__ == "__main__":
    main()
