"""Train a model of a run once: skipped where the same training is done, refused where another one stands there."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pseudolabel.config import Config, result_relevant
from pseudolabel.encoders.resolve import resolve_backbone_weights
from pseudolabel.errors import IncompleteError, StaleOutputError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.graph import TRAINERS, Trainer, load_target
from pseudolabel.pipelines.run.commit import DamagedPartError, read_footer
from pseudolabel.pipelines.run.fingerprint import file_sha256, fingerprint
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import read_plan


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How a training command ended."""

    stage: str
    model: str
    sha256: str
    trained: bool  # False: the same training stood there already

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_training(run: RunPaths, name: str, config: Config, *, overwrite: bool = False) -> TrainingSummary:
    """The model of a training command, trained now unless the same training is done already.

    torchrun and srun call this in every process; the first one writes, and the others have no `sha256` to tell.

    Raises:
        StaleOutputError: a model of another config or other data is there and `overwrite` is off.
        IncompleteError: a table that it reads is not complete.
    """
    trainer = TRAINERS[name]
    weights = run.model(trainer.model)
    wanted = _wanted(run, name, trainer, config)
    found = _provenance(weights)
    if weights.exists() and found.get("wanted") == wanted and found.get("sha256") == file_sha256(weights):
        return TrainingSummary(name, str(weights), found["sha256"], trained=False)
    if weights.exists() and found.get("wanted") != wanted and not overwrite:
        raise StaleOutputError(f"{weights} was trained otherwise: {_difference(found, wanted)}: use --overwrite")
    from pseudolabel.training.processes import is_first_process, part, wait_for_all

    load_target(trainer.function)(run, _with_resolved_backbone(config))
    digest = ""
    if is_first_process():
        digest = file_sha256(weights)
        write_text_atomically(_provenance_path(weights), json.dumps({"wanted": wanted, "sha256": digest}, indent=1))
    wait_for_all()
    part()
    return TrainingSummary(name, str(weights), digest, trained=True)


def _with_resolved_backbone(config: Config) -> Config:
    """The config with a backbone that can be built anywhere, after a look that its weights are here."""
    backbone, weights = (getattr(config, name, None) for name in ("backbone", "backbone_weights"))
    if backbone is None or weights is None:
        return config
    found = resolve_backbone_weights(backbone, weights)
    return config.model_copy(update={"backbone": found.name, "backbone_weights": found.weights})


def _wanted(run: RunPaths, name: str, trainer: Trainer, config: Config) -> dict[str, Any]:
    weights = {key: file_sha256(path) for key, path in getattr(config, "weight_files", dict)().items()}
    tables = {table: _table_fingerprint(run, table) for table in getattr(config, "tables", lambda: ("manifest",))()}
    values = result_relevant(config)
    return {
        "config": values,
        "weights": weights,
        "tables": tables,
        "fingerprint": fingerprint(name, trainer.version, values, weights, tables),
    }


def _table_fingerprint(run: RunPaths, table: str) -> str:
    plan = read_plan(run)
    prints = {}
    for shard in range(plan.num_shards):
        try:
            prints[str(shard)] = read_footer(run.part(table, shard, plan.num_shards)).fingerprint
        except (FileNotFoundError, DamagedPartError):
            raise IncompleteError(
                f"{run.table(table)}: shard {shard:05d} is missing or damaged; run the stage that writes {table} first"
            ) from None
    return fingerprint(table, 0, {}, {}, prints)


def _provenance_path(weights: Path) -> Path:
    return weights.with_suffix(".provenance.json")


def _provenance(weights: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(_provenance_path(weights).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    before = found.get("wanted") or {}
    changes = []
    for part in ("config", "weights", "tables"):
        old, new = before.get(part, {}), wanted[part]
        for key in sorted({**old, **new}):
            if old.get(key) != new.get(key):
                changes.append(
                    f"{key} {old.get(key)} -> {new.get(key)}" if part == "config" else f"{part} {key} changed"
                )
    return "; ".join(changes) or "nobody wrote down how"
