"""Writers of what leaves a run: COCO files and one file per export profile."""
