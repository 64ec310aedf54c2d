"""Pictures of what SISeg does with an image: field, boundary, centroids, instances before and after the walk."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from pseudolabel.siseg.instances import FieldMaps, Found

Rgb = UInt8[np.ndarray, "h w 3"]
_PANEL_HEIGHT = 280
_CAPTION_HEIGHT = 18
_LEGEND_WIDTH = 88
_DARK = 128  # a picture whose brightest hundredth is below this is shown brightened
_DOT_SCALE = 4  # pixels of the picture of arrivals per cell
_GOLDEN = 0.61803398875


def draw_sheet(image: UInt8[np.ndarray, "H W 3"], fields: FieldMaps, found: Found) -> Rgb:
    """Six captioned panels and the colour wheel: image, displacement, boundary, centroids, instances twice.

    An instance keeps its colour from before the walk to after it.
    """
    image = _visible(image)
    reach = max(float(np.quantile(np.hypot(*fields.displacement), 0.98)), 1.0)
    before = separate_pieces(found.before_walk)
    after = named_alike(before, separate_pieces(found.after_walk))
    count = len(found.instances)
    upper = {
        "image": image,
        "displacement, colours as in the wheel": color_field(fields.displacement / reach),
        "boundary, white = certain": np.repeat(np.rint(fields.boundary * 255).astype(np.uint8)[..., None], 3, axis=2),
    }
    lower = {
        "where cells of objects arrive": _arrivals(image, found),
        "instances before the walk": color_names(before),
        f"after the walk: {count} instance{'s' if count != 1 else ''}": color_names(after),
    }
    rows = [[_panel(*entry, image.shape[:2]) for entry in panels.items()] for panels in (upper, lower)]
    rows[0].append(_legend(f"1 = {reach:.1f} cells"))
    rows[1].append(np.full_like(rows[0][-1], 255))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def color_field(field: Float[np.ndarray, "2 h w"]) -> Rgb:
    """Directions (dy, dx) as hues, lengths up to 1 as saturation: white is no displacement."""
    angle = (np.arctan2(field[0], field[1]) / (2 * np.pi)) % 1
    return _hsv(angle, np.minimum(np.hypot(field[0], field[1]), 1), np.ones_like(angle))


def color_wheel(size: int) -> Rgb:
    """The legend of `color_field`: each place has the colour of the displacement that leads there from the centre."""
    cells = np.mgrid[:size, :size] - (size - 1) / 2
    field = cells / (size / 2)
    wheel = color_field(field)
    wheel[np.hypot(field[0], field[1]) > 1] = 255
    return wheel


def separate_pieces(names: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """A number from 0 for every 4-connected piece of cells of one name, as instances are read; -1 stays."""
    pieces = np.full(names.shape, -1, np.int32)
    for name in np.unique(names[names >= 0]):
        parts, _ = ndimage.label(names == name)
        pieces = np.where(parts > 0, parts + pieces.max(), pieces)
    return pieces


def named_alike(names: Int[np.ndarray, "h w"], pieces: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """`pieces` under the name that most of their cells have in `names`, each name once; the rest get new ones."""
    result = np.full(pieces.shape, -1, np.int32)
    sizes = np.bincount(pieces[pieces >= 0])
    free, unused = set(names[names >= 0].tolist()), int(names.max()) + 1
    for piece in np.argsort(-sizes, kind="stable"):
        inside = pieces == piece
        counts = np.bincount(names[inside & (names >= 0)], minlength=1)
        if int(counts.argmax()) in free and counts.max() > 0:
            result[inside] = counts.argmax()
            free.discard(int(counts.argmax()))
        else:
            result[inside] = unused
            unused += 1
    return result


def color_names(names: Int[np.ndarray, "h w"]) -> Rgb:
    """A colour per instance, black for -1."""
    hue = (names * _GOLDEN) % 1
    value = np.where(names < 0, 0.0, 0.75 + 0.25 * (names % 2))
    return _hsv(hue, np.where(names < 0, 0.0, 0.55 + 0.15 * (names % 3)), value)


def _arrivals(image: Rgb, found: Found) -> Rgb:
    """Where cells of objects end, as dots on the dimmed picture: the more cells, the larger."""
    height, width = found.before_walk.shape
    picture = Image.fromarray((image // 3).astype(np.uint8)).resize((width * _DOT_SCALE, height * _DOT_SCALE))
    if found.centroids is None:
        return np.asarray(picture)
    rows, columns = found.centroids[:, found.before_walk >= 0]
    counts = np.bincount(rows * width + columns, minlength=height * width)
    draw = ImageDraw.Draw(picture)
    for place in np.flatnonzero(counts):
        y, x = (_DOT_SCALE * (part + 0.5) for part in divmod(int(place), width))
        radius = _DOT_SCALE * (0.4 + 0.25 * np.log10(counts[place]))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="white")
    return np.asarray(picture)


def _visible(image: Rgb) -> Rgb:
    """A dark picture, as microscopes make them, brightened until its brightest hundredth is white."""
    bright = max(float(np.quantile(image, 0.99)), 1.0)
    if bright >= _DARK:
        return image
    brightened: Rgb = np.minimum(image.astype(np.float32) * (255 / bright), 255).astype(np.uint8)
    return brightened


def _legend(caption: str) -> Rgb:
    """The colour wheel beside the panels, where it hides nothing."""
    sheet = Image.new("RGB", (_LEGEND_WIDTH, _PANEL_HEIGHT + _CAPTION_HEIGHT), "white")
    size = _LEGEND_WIDTH - 8
    sheet.paste(Image.fromarray(color_wheel(size)), (4, _CAPTION_HEIGHT))
    ImageDraw.Draw(sheet).text((4, _CAPTION_HEIGHT + size + 2), caption, fill="black")
    return np.asarray(sheet)


def _panel(caption: str, pixels: Rgb, size_hw: tuple[int, ...]) -> Rgb:
    width = round(_PANEL_HEIGHT * size_hw[1] / size_hw[0])
    sheet = Image.new("RGB", (width + 4, _PANEL_HEIGHT + _CAPTION_HEIGHT), "white")
    sheet.paste(Image.fromarray(pixels).resize((width, _PANEL_HEIGHT), Image.Resampling.NEAREST), (2, _CAPTION_HEIGHT))
    ImageDraw.Draw(sheet).text((3, 3), caption, fill="black")
    return np.asarray(sheet)


def _hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> Rgb:
    planes = np.stack([hue, saturation, value], axis=-1)
    return np.array(Image.fromarray(np.rint(planes * 255).astype(np.uint8), mode="HSV").convert("RGB"))
