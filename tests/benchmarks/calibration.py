"""How far a calibrated score can be believed: a run's `fuse`, calibrated, on images the calibration has not seen.

    python tests/benchmarks/calibration.py RUN --ground-truth instances.json [--out FILE.json]

Figures after calibration are of objects whose image the calibration was not learned from. The reliability curve
is drawn into the run folder.
"""

import tempfile
from pathlib import Path

from harness import report, script_parser

from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.calibrate import CalibrateConfig, calibrate


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--ground-truth", type=Path, required=True)
    given = parser.parse_args()
    run = RunPaths(given.run)
    with tempfile.TemporaryDirectory() as folder:
        config = CalibrateConfig(ground_truth=given.ground_truth, output=Path(folder) / "calibration.json")
        figures = calibrate(run, config)
    row = {key: value for key, value in figures.items() if key not in ("calibration", "picture", "threshold", "run")}
    report("calibration", [{"setting": "fused", **row}], on=read_plan(run).source.rsplit("/", 1)[-1])


if __name__ == "__main__":
    main()
