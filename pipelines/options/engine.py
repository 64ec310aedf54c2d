"""Where the shards of a command run: the engines by name, and what each can be told."""

from dataclasses import dataclass

from pseudolabel.registry import Registry

ENGINES = Registry(
    "engine",
    {
        "local": "pseudolabel.pipelines.engines.local:LocalEngine",
        "inline": "pseudolabel.pipelines.engines.inline:InlineEngine",
        "slurm": "pseudolabel.pipelines.engines.slurm:SlurmEngine",
        "ray": "pseudolabel.pipelines.engines.ray:RayEngine",
    },
)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where to run and how; nothing of it can change a result.

    Args:
        workers: processes at once on this machine or in the Ray cluster, running tasks of a Slurm array; 0 = as many
            as there is room for.
        shards_per_task: shards of one Slurm task, which share one start and one loaded model.
        wait: False hands the work over and returns.
        sbatch_args: passed to sbatch as they are, such as `--partition=gpu`.
        ray_address: of a running cluster; `local` starts one on this machine.
    """

    name: str = "local"
    workers: int = 0
    shards_per_task: int = 1
    wait: bool = True
    sbatch_args: tuple[str, ...] = ()
    ray_address: str = "local"
