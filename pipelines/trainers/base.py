"""Train a model of a run once: skipped where the same training is done, refused where another one stands there."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pseudolabel.config import result_relevant
from pseudolabel.encoders.resolve import resolve_backbone_weights
from pseudolabel.errors import IncompleteError, StaleOutputError
from pseudolabel.files import sweep_temporaries, write_text_atomically
from pseudolabel.pipelines.graph import TRAINERS
from pseudolabel.pipelines.makers import maker_of
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import DamagedPartError, read_footer
from pseudolabel.pipelines.run.fingerprint import file_sha256, fingerprint
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.seals import check_seal, seal
from pseudolabel.pipelines.trainers.segmenter_encoder import with_settled_weights
from pseudolabel.registry import load_target
from pseudolabel.training.config import TrainConfig

_FOLDER_CHARS = 12  # of a fingerprint, in the name of the folder of logs and checkpoints


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How a training command ended."""

    stage: str
    model: str
    sha256: str
    trained: bool  # False: the same training stood there already

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_training(run: RunPaths, name: str, config: TrainConfig, *, overwrite: bool = False) -> TrainingSummary:
    """The model of a training command, trained now unless the same training is done already.

    torchrun and srun call this in every process; the first one writes, and the others have no `sha256` to tell.

    Raises:
        StaleOutputError: a model of another config, other data or another version is there and `overwrite` is off.
        IncompleteError: a table that it reads is not complete.
    """
    trainer = TRAINERS[name]
    read_plan(run)  # before all else: a folder without one is no run
    config = with_settled_weights(run, name, config)
    weights = run.model(trainer.model)
    wanted = training_identity(run, name, config)
    found = _provenance(weights)
    if weights.exists() and found.get("wanted") == wanted and _is_whole(run, weights, found):
        return TrainingSummary(name, str(weights), found["sha256"], trained=False)
    if weights.exists() and found.get("wanted") != wanted and not overwrite:
        raise StaleOutputError(f"{weights} was trained otherwise: {_difference(found, wanted)}: use --overwrite")
    from pseudolabel.training.processes import is_first_process, part, wait_for_all

    sweep_temporaries(weights.parent)
    folder = run.logs(name) / wanted["fingerprint"][:_FOLDER_CHARS]
    load_target(trainer.function)(run, _with_resolved_backbone(config), folder)
    digest = ""
    if is_first_process():
        digest = file_sha256(weights)
        write_text_atomically(_provenance_path(weights), json.dumps({"wanted": wanted, "sha256": digest}, indent=1))
        for path in weights.parent.glob(f"{weights.stem}.*"):
            seal(run, path)
    wait_for_all()
    part()
    return TrainingSummary(name, str(weights), digest, trained=True)


def _is_whole(run: RunPaths, weights: Path, found: dict[str, Any]) -> bool:
    """Whether the weights and the files beside them are what the training wrote."""
    try:
        check_seal(run, weights.with_suffix(".yaml"))
        return bool(found.get("sha256") == check_seal(run, weights).sha256)
    except DamagedPartError:
        return False


def _with_resolved_backbone(config: TrainConfig) -> TrainConfig:
    """The config with a backbone that can be built anywhere, after a look that its weights are here."""
    found = resolve_backbone_weights(config.backbone, config.backbone_weights)
    return config.model_copy(update={"backbone": found.name, "backbone_weights": found.weights})


def training_identity(run: RunPaths, name: str, config: TrainConfig) -> dict[str, Any]:
    """All that decides the weights of a training, and its hash, `fingerprint`.

    The hash names the folder of checkpoints too, so that one is only ever continued by the training that wrote it.

    Raises:
        IncompleteError: a table that it reads is not complete.
        InputError: a file of weights is not there.
    """
    values, version = result_relevant(config), TRAINERS[name].version
    weights = {key: file_sha256(path) for key, path in config.weight_files().items()}
    tables = {table: _table_fingerprint(run, table) for table in config.tables()}
    return {
        "version": version,
        "config": values,
        "weights": weights,
        "tables": tables,
        "fingerprint": fingerprint(name, version, values, weights, tables),
    }


def _table_fingerprint(run: RunPaths, table: str) -> str:
    plan = read_plan(run)
    prints = {}
    for shard in range(plan.num_shards):
        try:
            prints[str(shard)] = read_footer(run.part(table, shard, plan.num_shards)).identity
        except (FileNotFoundError, DamagedPartError):
            raise IncompleteError(
                f"{run.table(table)}: shard {shard:05d} is missing or damaged; {maker_of(run, table)}"
            ) from None
    return fingerprint(table, 0, {}, {}, prints)


def _provenance_path(weights: Path) -> Path:
    return weights.with_suffix(".provenance.json")


def _provenance(weights: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(_provenance_path(weights).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    before = found.get("wanted")
    if not before:
        return "nobody wrote down how"
    parts = [(part, before.get(part, {}), wanted[part]) for part in ("config", "weights", "tables")]
    parts.insert(0, ("config", {"version": before.get("version")}, {"version": wanted["version"]}))
    return "; ".join(
        f"{key} {old.get(key)} -> {new.get(key)}" if part == "config" else f"{part} {key} changed"
        for part, old, new in parts
        for key in sorted({**old, **new})
        if old.get(key) != new.get(key)
    )
