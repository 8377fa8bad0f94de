"""One image file as an array of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xpnet.datasets.files import opened
from xpnet.errors import DatasetError, optional_import

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 2**24  # 4096 x 4096
ORIENTATION = 0x0112  # of EXIF; 1 is upright


def read_image(path: Path, color: bool, background: int | None, max_pixels: int) -> np.ndarray:
    """The image, ``uint8 (height, width)`` or, with ``color``, ``(height, width, 3)``."""
    library = optional_import("PIL.Image", "data")
    with opened(path) as file:
        try:
            with library.open(file, formats=FORMATS) as image:
                check(image, path, max_pixels)
                return pixels(image, path, color, background)
        except DatasetError:
            raise
        except library.DecompressionBombError as error:
            raise DatasetError(
                f"{path}: expected an image of at most {max_pixels:,} pixels, found more: {error}"
            ) from error
        except Exception as error:  # what Pillow raises for a damaged file may be of any kind
            raise DatasetError(
                f"{path}: expected a whole image in one of the formats {', '.join(FORMATS)}, found a damaged or other file "
                f"({type(error).__name__}: {error}). Replace it."
            ) from error


def check(image: Any, path: Path, max_pixels: int) -> None:
    """Refuse by its header, before it is decoded, an image that is too large or has more than 8 bits a channel."""
    width, height = image.size
    if width * height > max_pixels:
        raise DatasetError(
            f"{path}: expected an image of at most {max_pixels:,} pixels, found {width} x {height}. "
            f"Make it smaller, or pass max_pixels={width * height}."
        )
    if image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in image.tile):
        raise DatasetError(
            f"{path}: expected 8 bits a channel, found more (Pillow's mode {image.mode}). Which values mean black and "
            "white is not known: scale them to 0 to 255 and save the image again."
        )


def pixels(image: Any, path: Path, color: bool, background: int | None) -> np.ndarray:
    """The image as it is seen: turned upright, and on a background where it is transparent."""
    turned = image.getexif().get(ORIENTATION, 1) != 1
    upright = optional_import("PIL.ImageOps", "data").exif_transpose(image) if turned else image
    if upright.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema()[0] < 255:
            if background is None:
                raise DatasetError(
                    f"{path}: expected an image without transparent pixels, found some. Pass background=255 to see them "
                    "on white, 0 on black, or another gray value."
                )
            canvas = optional_import("PIL.Image", "data").new("RGBA", upright.size, (background,) * 3 + (255,))
            canvas.alpha_composite(upright)
            upright = canvas
    return np.asarray(upright.convert("RGB" if color else "L"))
