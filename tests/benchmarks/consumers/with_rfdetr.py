"""rfdetr: its own COCO data set on the folder of a split."""

from common import FOLDER, Compared, report, truth
from rfdetr.datasets.coco import CocoDetection

root = FOLDER / "roboflow"
data = {}
for folder in ("train", "valid"):
    annotations = root / folder / "_annotations.coco.json"
    dataset = CocoDetection(root / folder, annotations, transforms=None, include_masks=True)
    names = {one["id"]: one["name"] for one in dataset.coco.dataset["categories"]}
    for place, number in enumerate(dataset.ids):
        data[dataset.coco.imgs[number]["file_name"]] = (dataset, place, names)
result = Compared()
for image in truth():
    dataset, place, names = data[image["name"]]
    _, target = dataset[place]
    ids = target["labels"].tolist()
    to_name = getattr(dataset, "label2cat", None)
    known = [names[to_name[one]] if to_name else names.get(one, names.get(one + 1)) for one in ids]
    result.add(image, list(zip(known, target["masks"].numpy().astype(bool), strict=True)))
report(roboflow=result.told())
