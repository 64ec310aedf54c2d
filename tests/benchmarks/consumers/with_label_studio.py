"""label-studio-sdk: its own decoder of brushes and its own parser of the label config."""

import json

from common import FOLDER, Compared, report, truth
from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
from label_studio_sdk.converter.brush import decode_rle

config = parse_config((FOLDER / "label-studio" / "label_config.xml").read_text())
tasks = json.loads((FOLDER / "label-studio" / "tasks.json").read_text())
result, boxes = Compared(), 0
for image, task in zip(truth(), tasks, strict=True):
    found = []
    for one in task["predictions"][0]["result"]:
        assert one["value"][one["type"]][0] in config[one["from_name"]]["labels"]
        boxes += one["type"] == "rectanglelabels"
        if one["type"] == "brushlabels":
            values = decode_rle(one["value"]["rle"])
            mask = values.reshape(one["original_height"], one["original_width"], 4)[:, :, 3] > 0
            found.append((one["value"]["brushlabels"][0], mask))
    result.add(image, found)
report(**{"label-studio": result.told(boxes=boxes)})
