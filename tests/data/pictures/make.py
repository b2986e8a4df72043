"""Makes the pictures of this folder, in this folder, with Pillow 13. Tests read the files and need no Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
# Red on the left, black on the right, a green square in the upper left.
picture = np.zeros((40, 60, 3), np.uint8)
picture[:, :30] = (255, 0, 0)
picture[:8, :8] = (0, 255, 0)
for orientation in range(1, 9):
    # Pillow writes EXIF's orientation as the boxes `irot` and `imir`.
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(picture).save(HERE / f"orientation{orientation}.avif", exif=exif, quality=90)
greys = [Image.fromarray(np.full((20, 30, 3), level, np.uint8)) for level in (10, 200, 90)]
for name in ("animation.webp", "animation.png", "animation.avif"):
    greys[0].save(HERE / name, save_all=True, append_images=greys[1:], duration=100)
