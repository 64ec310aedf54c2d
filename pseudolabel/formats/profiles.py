"""The table of export profiles, and the tools that read one of them as it is."""

from pseudolabel.registry import Registry

PROFILES = Registry(
    "export profile",
    {
        "yolo": "pseudolabel.formats.yolo:YoloProfile",
        "coco": "pseudolabel.formats.coco_folder:CocoProfile",
        "label-tiff": "pseudolabel.formats.label_tiff:LabelTiffProfile",
    },
)
