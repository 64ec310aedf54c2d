"""`detectron2`, `mmdet`, `fiftyone`: COCO's layout, and what to type so that these tools read its masks."""

from pathlib import Path

from pseudolabel.formats.coco_folder import CocoProfile


class _CocoReader(CocoProfile):
    def _first(self, out: Path) -> tuple[Path, Path]:
        return out / self.json_path(self.about.splits[0]).relative_to(self.folder), out / "images"


class Detectron2Profile(_CocoReader):
    """Its config has to say that masks are no polygons."""

    def next_step(self, out: Path) -> str:
        path, images = self._first(out)
        register = f'register_coco_instances("mine", {{}}, "{path}", "{images}")'
        return f'{register}; cfg.INPUT.MASK_FORMAT = "bitmask"; cfg.DATASETS.TRAIN = ("mine",)'


class MmdetProfile(_CocoReader):
    """Its pipeline has to load masks as bitmaps."""

    def next_step(self, out: Path) -> str:
        path, images = self._first(out)
        classes = tuple(one.name for one in self.about.categories)
        dataset = f"type='CocoDataset', ann_file='{path}', data_prefix=dict(img='{images}/')"
        loading = "dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=True)"
        return (
            f"train_dataloader.dataset = dict({dataset}, metainfo=dict(classes={classes})), its pipeline with {loading}"
        )


class FiftyoneProfile(_CocoReader):
    """It reads the score as `confidence`, and attributes as fields."""

    def next_step(self, out: Path) -> str:
        path, images = self._first(out)
        where = f'data_path="{images}", labels_path="{path}", label_types=["segmentations"]'
        return f"fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.COCODetectionDataset, {where})"
