"""Pictures of what SISeg does with an image: field, boundary, centroids, instances before and after the walk."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from pseudolabel.siseg.instances import FieldMaps, Found

Rgb = UInt8[np.ndarray, "h w 3"]
_PANEL_HEIGHT = 280
_CAPTION_HEIGHT = 18
_GOLDEN = 0.61803398875


def draw_sheet(
    image: UInt8[np.ndarray, "H W 3"], fields: FieldMaps, found: Found, centroids: Int[np.ndarray, "2 h w"]
) -> Rgb:
    """Six captioned panels: image, displacement with its colour wheel, boundary, centroids, instances twice."""
    reach = max(float(np.quantile(np.hypot(*fields.displacement), 0.98)), 1.0)
    panels = {
        "image": image,
        f"displacement, full colour = {reach:.1f} cells": _with_wheel(color_field(fields.displacement / reach)),
        "boundary": np.repeat(np.rint(fields.boundary * 255).astype(np.uint8)[..., None], 3, axis=2),
        "cells that arrive at each cell": _arrivals(centroids),
        "instances before the walk": color_names(separate_pieces(found.before_walk)),
        "instances after the walk": color_names(separate_pieces(found.after_walk)),
    }
    drawn = [_panel(caption, panel, image.shape[:2]) for caption, panel in panels.items()]
    return np.concatenate([np.concatenate(drawn[:3], axis=1), np.concatenate(drawn[3:], axis=1)], axis=0)


def color_field(field: Float[np.ndarray, "2 h w"]) -> Rgb:
    """Directions (dy, dx) as hues, lengths up to 1 as saturation: white is no displacement."""
    angle = (np.arctan2(field[0], field[1]) / (2 * np.pi)) % 1
    return _hsv(angle, np.minimum(np.hypot(field[0], field[1]), 1), np.ones_like(angle))


def color_wheel(size: int) -> Rgb:
    """The legend of `color_field`: each place has the colour of the displacement that leads there from the centre."""
    cells = np.mgrid[:size, :size] - (size - 1) / 2
    field = cells / (size / 2)
    wheel = color_field(field)
    wheel[np.hypot(field[0], field[1]) > 1] = 128
    return wheel


def separate_pieces(names: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """A number from 0 for every 4-connected piece of cells of one name, as instances are read; -1 stays."""
    pieces = np.full(names.shape, -1, np.int32)
    for name in np.unique(names[names >= 0]):
        parts, _ = ndimage.label(names == name)
        pieces = np.where(parts > 0, parts + pieces.max(), pieces)
    return pieces


def color_names(names: Int[np.ndarray, "h w"]) -> Rgb:
    """A colour per instance, black for -1."""
    hue = (names * _GOLDEN) % 1
    value = np.where(names < 0, 0.0, 0.75 + 0.25 * (names % 2))
    return _hsv(hue, np.where(names < 0, 0.0, 0.55 + 0.15 * (names % 3)), value)


def _arrivals(centroids: Int[np.ndarray, "2 h w"]) -> Rgb:
    """How many cells end at each cell, on a logarithmic scale."""
    height, width = centroids.shape[1:]
    counts = np.bincount((centroids[0] * width + centroids[1]).ravel(), minlength=height * width)
    level = np.log1p(counts) / np.log1p(max(int(counts.max()), 1))
    return np.repeat(np.rint(level.reshape(height, width, 1) * 255).astype(np.uint8), 3, axis=2)


def _with_wheel(panel: Rgb) -> Rgb:
    size = max(min(panel.shape[:2]) // 4, 8)
    panel = panel.copy()
    panel[-size:, :size] = color_wheel(size)
    return panel


def _panel(caption: str, pixels: Rgb, size_hw: tuple[int, ...]) -> Rgb:
    width = round(_PANEL_HEIGHT * size_hw[1] / size_hw[0])
    sheet = Image.new("RGB", (width + 4, _PANEL_HEIGHT + _CAPTION_HEIGHT), "white")
    sheet.paste(Image.fromarray(pixels).resize((width, _PANEL_HEIGHT), Image.Resampling.NEAREST), (2, _CAPTION_HEIGHT))
    ImageDraw.Draw(sheet).text((3, 3), caption, fill="black")
    return np.asarray(sheet)


def _hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> Rgb:
    planes = np.stack([hue, saturation, value], axis=-1)
    return np.array(Image.fromarray(np.rint(planes * 255).astype(np.uint8), mode="HSV").convert("RGB"))
