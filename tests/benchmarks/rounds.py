"""What a round of self-training gains: drawn scenes labelled and learned as `run` does with `rounds: N`.

In every further round the student of the round before is one source of candidates more, for scenes that it has learned
from. Rows: the labels' mean IoU and AP on those scenes, the student's AP on others, and each one's gain over the round
before.

    python tests/benchmarks/rounds.py --models RUNS/demo/models     # about four minutes of one core, a segmenter given
    python tests/benchmarks/rounds.py --scenes 60 --steps 500 --seeds 0,1,2
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from harness import report, script_parser

from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.demo.chain import STUDENT, label_sections
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.demo.segmenter import make_demo_data, train_demo_segmenter
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.runner import RunOptions

TEST_SEED = 90_001  # the scenes of tests/benchmarks/student_retention.py


def sections(folder: Path, models: Path, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The run file: the demo's, with as many rounds as asked for."""
    data, test = folder / "data" / "scenes", folder / "test"
    truth = str(data / "instances.json")
    student = {
        **STUDENT,
        "backbone_weights": str(models / "encoder.safetensors"),
        "epochs": arguments.steps * STUDENT["batch_size"] / arguments.scenes,
        "validation": str(test / "instances.json"),
        "validation_images": str(test / "images"),
        "validate_every": 0,
        "seed": seed,
    }
    labelled = label_sections(data, models / "segmenter")
    return {**labelled, "train-student": student, "evaluate": {"ground_truth": truth}, "rounds": arguments.rounds}


def rows(folder: Path, models: Path, arguments: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """One row per round."""
    content = {"run": str(folder / f"run-{seed}"), **sections(folder, models, arguments, seed)}
    last: dict[str, Any] = {}
    for summary in run_chain(parse_chain(content, where="rounds"), RunOptions(EngineOptions(name="inline"))):
        last = summary
    return [{"case": "drawn", "seed": seed, "steps": arguments.steps, **one} for one in last["rounds"]]


def parse() -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--scenes", type=int, default=16, help="drawn scenes to label and to learn from")
    parser.add_argument("--test-scenes", type=int, default=12, help="other scenes, for the student's AP")
    parser.add_argument("--steps", type=int, default=120, help="of the student, four images each")
    parser.add_argument("--models", type=Path, help="the models/ folder of a demo; default: a segmenter is trained")
    parser.add_argument("--keep", type=Path, help="folder in which everything stays, from which another call goes on")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    seeds = [int(one) for one in arguments.seeds.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        data = make_demo_data(folder / "data", scenes=arguments.scenes)
        write_dataset(folder / "test", arguments.test_scenes, TEST_SEED)
        models = (arguments.models or folder / "models").resolve()
        if not (models / "encoder.safetensors").exists():
            train_demo_segmenter(data, models)
        found = [row for seed in seeds for row in rows(folder, models, arguments, seed)]
    sizes = f"{arguments.scenes} drawn scenes, {arguments.test_scenes} others for the student"
    report("rounds", found, on=f"condinst on a small encoder, {sizes}", seeds=seeds)


if __name__ == "__main__":
    main()
