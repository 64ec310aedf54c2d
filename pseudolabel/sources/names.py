"""Which names are those of images, also of formats that cannot be read, so that they are seen to be refused."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".heic", ".heif", ".avif", ".svg", ".pdf", ".eps", ".ps", ".psd", ".fits", ".fit", ".jp2", ".j2k", ".jxl"),
    *(".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".dds", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw"),
    *(".mp4", ".mov"),
)


def named_like_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
