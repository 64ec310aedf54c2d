"""Options of trainings that tests wait for."""

TEACHER = {
    "backbone": "tiny",
    "backbone_weights": "none",
    "crop_px": 32,
    "epochs": 1.0,
    "least_steps": 1,
    "device": "cpu",
    "threads": 1,
}
