"""datumaro: what CVAT's import of "COCO 1.0" is a fork of, and its readers of VOC."""

import zipfile
from pathlib import PurePosixPath

import datumaro as dm
from common import FOLDER, Compared, Row, report, truth


def compared(path: str, format: str, *, crowds: bool) -> Row:
    data = dm.Dataset.import_from(path, format)
    names = [one.name for one in data.categories()[dm.AnnotationType.label]]
    items = {item.id: item for item in data}
    result, attributes, boxes = Compared(), set(), 0
    for image in truth():
        item = items[str(PurePosixPath(image["name"]).with_suffix(""))]
        masks = [one for one in item.annotations if one.type == dm.AnnotationType.mask]
        boxes += sum(one.type == dm.AnnotationType.bbox for one in item.annotations)
        attributes |= {name for one in item.annotations for name in one.attributes}
        result.add(image, [(names[one.label], one.image.astype(bool)) for one in masks], crowds=crowds)
    known = sorted(attributes & {"score", "decision", "source_bbox", "is_crowd"})
    return result.told(boxes=boxes, attributes=known)


with zipfile.ZipFile(FOLDER / "cvat" / "cvat.zip") as archive:
    archive.extractall(FOLDER / "cvat-unzipped")
report(
    cvat=compared(str(FOLDER / "cvat-unzipped"), "coco", crowds=True),
    coco=compared(str(FOLDER / "coco"), "coco", crowds=True),
    voc=compared(str(FOLDER / "voc"), "voc", crowds=False),
)
