"""Write scikit-image's bundled photographs: `python benchmarks/sample_photos.py FOLDER [GROUP]`.

GROUP gets a group for co-saliency: the cat by itself, and joined with other photographs.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
_HALF = (300, 240)


def main() -> None:
    """Write the photographs, and the group, as JPEG."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python benchmarks/sample_photos.py FOLDER [GROUP]")
    photos = {name: Image.fromarray(getattr(data, name)()) for name in PHOTOS}
    write(Path(sys.argv[1]), photos)
    if len(sys.argv) == 3:
        write(Path(sys.argv[2]), group(photos))


def group(photos: dict[str, Image.Image]) -> dict[str, Image.Image]:
    """Pictures that have the cat in common."""
    halves: dict[str, NDArray[np.uint8]] = {name: np.asarray(photo.resize(_HALF)) for name, photo in photos.items()}
    return {
        "cat": photos["chelsea"],
        "cat-coffee": Image.fromarray(np.hstack([halves["chelsea"], halves["coffee"]])),
        "rocket-cat": Image.fromarray(np.hstack([halves["rocket"], halves["chelsea"]])),
        "coffee-over-cat": Image.fromarray(np.vstack([halves["coffee"], halves["chelsea"]])),
    }


def write(folder: Path, pictures: dict[str, Image.Image]) -> None:
    """As `folder/<name>.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.jpg", quality=95)
    print(f"{len(pictures)} photographs in {folder}")


if __name__ == "__main__":
    main()
