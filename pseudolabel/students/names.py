"""The table of students; light, so that the command line can list them."""

from pseudolabel.registry import Registry

STUDENTS = Registry(
    "student",
    {
        "condinst": "pseudolabel.students.condinst:CondInstStudent",
        "mask_rcnn": "pseudolabel.students.mask_rcnn:MaskRcnnStudent",
        "query": "pseudolabel.students.query:QueryStudent",
    },
)
