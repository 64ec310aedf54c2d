"""ultralytics: its own data set and loader of `yolo segment train`, and its own filling of polygons."""

from pathlib import Path

import numpy as np
from common import FOLDER, Compared, report, truth
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset, polygon2mask
from ultralytics.utils.ops import resample_segments

data = check_det_dataset(str(FOLDER / "yolo" / "data.yaml"))
config = get_cfg(overrides={"task": "segment", "imgsz": 640, "rect": False, "cache": False})
labels = {}
tensors = 0
for split in ("train", "val"):
    dataset = build_yolo_dataset(config, data[split], batch=1, data=data, mode="val")
    labels |= {Path(row["im_file"]).name: row for row in dataset.labels}
    tensors += sum(bool(dataset[place]["masks"].any()) for place in range(min(4, len(dataset))))
exact, resampled = Compared(), Compared()
for image in truth():
    row = labels[Path(image["name"]).name]
    height, width = image["size"]
    names = [data["names"][int(number)] for number in row["cls"][:, 0]]
    for result, segments in ((exact, row["segments"]), (resampled, resample_segments([*row["segments"]], n=1000))):
        pixels = [segment * np.array([width, height], dtype=np.float32) for segment in segments]
        masks = [polygon2mask((height, width), [one], color=1).astype(bool) for one in pixels]
        result.add(image, list(zip(names, masks, strict=True)))
report(yolo=exact.told(loader_gave_masks=tensors), yolo_1000_points=resampled.told())
