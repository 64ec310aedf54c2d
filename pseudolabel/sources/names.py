"""Which files are those of images, by name or by their first bytes.

Names of formats that cannot be read count, too, so that these files are seen to be refused.
"""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".heic", ".heif", ".avif", ".svg", ".pdf", ".eps", ".ps", ".psd", ".fits", ".fit", ".jp2", ".j2k", ".jxl"),
    *(".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".dds", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw"),
    *(".mp4", ".mov"),
)

SIGNATURE_BYTES = 12
_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)


def named_like_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def has_known_signature(first_bytes: bytes) -> bool:
    """Whether a file that begins so claims to be of one of `images.FORMATS`; `SIGNATURE_BYTES` are enough to tell."""
    is_webp = first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP"
    return is_webp or first_bytes.startswith(_SIGNATURES)
