"""What all checks of a run cost: the share of CPU time that digests, counts, seals and fsyncs take in a whole run.

    python tests/benchmarks/checks.py IMAGES BOXES.json

Runs `shard`, `infer-colors` and `fuse` in one process and prints the seconds within each check, without those of
checks inside it, beside the whole.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pseudolabel.images as images
from pseudolabel.pipelines import runner
from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.planning import plan
from pseudolabel.pipelines.run import commit, seals, stage_config
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.work import acceptance, job

CHECKS: list[tuple[Any, str]] = [
    (commit, "_digest"),
    (commit, "verify_part"),
    (commit, "fsync"),
    (plan, "_sha256"),
    (plan, "count_shard"),
    (job, "count_shard"),
    (runner, "example"),
    (runner, "seal"),
    (runner, "is_current"),
    (runner, "save_config"),
    (acceptance.Acceptance, "check"),
    (acceptance.Acceptance, "add"),
    (images, "content_digest"),
    (seals, "content_sha256"),
    (stage_config, "_sha256"),
]


def main() -> None:
    spent: dict[str, float] = defaultdict(float)
    inside: list[float] = []
    for owner, name in CHECKS:
        setattr(owner, name, _timed(getattr(owner, name), spent, inside))
    with tempfile.TemporaryDirectory() as folder:
        shard = {"images": sys.argv[1], "annotations": sys.argv[2], "shards": 4}
        sections = {"run": f"{folder}/run", "shard": shard, "infer-colors": {}, "fuse": {"upright": False}}
        began = time.process_time()
        for _ in run_chain(parse_chain(sections, where="checks"), RunOptions("inline")):
            pass
        whole = time.process_time() - began
    for name, seconds in sorted(spent.items(), key=lambda pair: -pair[1]):
        print(f"{name:24}{seconds:8.3f} s{seconds / whole:9.3%}")
    print(f"{'all checks':24}{sum(spent.values()):8.3f} s{sum(spent.values()) / whole:9.3%} of {whole:.1f} s")


def _timed(function: Callable[..., Any], spent: dict[str, float], inside: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        inside.append(0.0)
        began = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds = time.process_time() - began
            spent[function.__qualname__] += seconds - inside.pop()
            if inside:
                inside[-1] += seconds

    return timed


if __name__ == "__main__":
    main()
