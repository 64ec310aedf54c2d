"""The table of export profiles: to add one, a file with its class, and a line here."""

from pseudolabel.registry import Registry

PROFILES = Registry(
    "export profile",
    {
        "yolo": "pseudolabel.formats.yolo:YoloProfile",
        "coco": "pseudolabel.formats.coco_folder:CocoProfile",
        "roboflow": "pseudolabel.formats.roboflow:RoboflowProfile",
        "label-studio": "pseudolabel.formats.label_studio:LabelStudioProfile",
        "cvat": "pseudolabel.formats.cvat:CvatProfile",
        "label-tiff": "pseudolabel.formats.label_tiff:LabelTiffProfile",
        "huggingface": "pseudolabel.formats.huggingface:HuggingfaceProfile",
        "voc": "pseudolabel.formats.voc:VocProfile",
        "panoptic": "pseudolabel.formats.panoptic:PanopticProfile",
        "labelme": "pseudolabel.formats.labelme:LabelmeProfile",
        "detectron2": "pseudolabel.formats.coco_readers:Detectron2Profile",
        "mmdet": "pseudolabel.formats.coco_readers:MmdetProfile",
        "fiftyone": "pseudolabel.formats.coco_readers:FiftyoneProfile",
    },
)
