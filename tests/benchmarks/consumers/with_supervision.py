"""supervision: `DetectionDataset.from_yolo` and `from_coco`."""

import supervision as sv
from common import FOLDER, Compared, Row, report, truth


def compared(sets: dict[str, sv.DetectionDataset], where: dict[str, str]) -> Row:
    by_path = {path: one for one in sets.values() for path, *_ in [(path,) for path in one.image_paths]}
    result = Compared()
    for image in truth():
        path = where[image["split"]] + "/" + image["name"]
        data = by_path[path]
        found = data.annotations[path]
        masks = [] if found.mask is None else list(found.mask)
        result.add(image, [(data.classes[number], mask) for number, mask in zip(found.class_id, masks, strict=False)])
    return result.told()


yolo = FOLDER / "yolo"
splits = [path.name for path in (yolo / "labels").iterdir()]
yolo_sets = {
    split: sv.DetectionDataset.from_yolo(
        str(yolo / "images" / split), str(yolo / "labels" / split), str(yolo / "data.yaml"), force_masks=True
    )
    for split in splits
}
coco = FOLDER / "coco"
coco_sets = {
    "train": sv.DetectionDataset.from_coco(
        str(coco / "images"), str(coco / "annotations" / "instances_train.json"), force_masks=False
    )
}
report(
    yolo=compared(yolo_sets, {split: str(yolo / "images" / split) for split in splits}),
    coco=compared(coco_sets, {split: str(coco / "images") for split in ("train", "val")}),
)
