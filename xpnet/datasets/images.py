"""Reads an image file as an array of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xpnet.datasets.files import opened
from xpnet.errors import DatasetError, optional_import

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 2**24  # 4096 x 4096
ORIENTATION = 0x0112  # the EXIF tag; 1 means upright


def read_image(path: Path, color: bool, background: int | None, max_pixels: int) -> np.ndarray:
    """Return the image as ``uint8 (height, width)``, or with ``color`` as ``(height, width, 3)``."""
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
                f"{path}: expected an image of at most {max_pixels:,} pixels. Make it smaller. Received: more ({error})"
            ) from error
        except Exception as error:  # Pillow raises exceptions of any type for a damaged file
            raise DatasetError(
                f"{path}: expected a complete image in one of the formats {', '.join(FORMATS)}. Replace the file. "
                f"Received: a damaged file, or another format ({type(error).__name__}: {error})"
            ) from error


def check(image: Any, path: Path, max_pixels: int) -> None:
    """Before decoding, refuse an image whose header says that it is too large or has more than 8 bits per channel."""
    width, height = image.size
    if width * height > max_pixels:
        raise DatasetError(
            f"{path}: expected an image of at most {max_pixels:,} pixels. Make it smaller, or pass "
            f"max_pixels={width * height}. Received: {width} x {height}"
        )
    if image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in image.tile):
        raise DatasetError(
            f"{path}: expected 8 bits per channel, because the values of black and white are unknown otherwise. Scale the "
            f"values to 0 to 255 and save the image again. Received: more bits (Pillow's mode {image.mode})"
        )


def pixels(image: Any, path: Path, color: bool, background: int | None) -> np.ndarray:
    """Return the image as viewers show it: upright, and on a background where it is transparent."""
    turned = image.getexif().get(ORIENTATION, 1) != 1
    upright = optional_import("PIL.ImageOps", "data").exif_transpose(image) if turned else image
    if upright.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema()[0] < 255:
            if background is None:
                raise DatasetError(
                    f"{path}: expected an image without transparent pixels. Pass background=255 for a white background, 0 "
                    "for black, or another gray value. Received: transparent pixels"
                )
            canvas = optional_import("PIL.Image", "data").new("RGBA", upright.size, (background,) * 3 + (255,))
            canvas.alpha_composite(upright)
            upright = canvas
    return np.asarray(upright.convert("RGB" if color else "L"))
