"""A trained SISeg model, asked for one image at a time: what `infer-siseg` works with."""

from pathlib import Path
from typing import TYPE_CHECKING

from pseudolabel.errors import InputError, RejectError
from pseudolabel.pipelines.run.paths import RunPaths

if TYPE_CHECKING:
    import numpy as np

    from pseudolabel.siseg.instances import FieldMaps


def siseg_files(run: RunPaths, weights: Path | None) -> dict[str, Path]:
    """The model, the run's own if none is named, and the YAML beside it.

    Raises:
        InputError: nobody has trained one in this run.
    """
    path = weights or run.model("siseg")
    if weights is None and not path.exists():
        raise InputError(f"{path}: no such file; train it with  pseudolabel train-siseg {run.typed}")
    return {"siseg": path, "card": path.with_suffix(".yaml")}


class FieldPredictor:
    """Displacement and boundary of an image."""

    def __init__(self, weights: Path, *, device: str, threads: int, flip: bool) -> None:
        import torch

        from pseudolabel.siseg.model import load_siseg

        torch.set_num_threads(threads)
        self._network, card = load_siseg(weights, device=device)
        self._scale, self._flip = card.scale, flip

    def __call__(self, pixels: "np.ndarray") -> "FieldMaps":
        """The fields of an RGB image.

        Raises:
            RejectError: a value is not finite.
        """
        import numpy as np

        from pseudolabel.siseg.model import predict_fields

        fields = predict_fields(self._network, pixels, scale=self._scale, flip=self._flip)
        if not (np.isfinite(fields.displacement).all() and np.isfinite(fields.boundary).all()):
            raise RejectError("non_finite", "the network's fields")
        return fields
