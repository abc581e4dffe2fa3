"""Write scikit-image's bundled photographs into a folder: `python benchmarks/sample_photos.py FOLDER`."""

import sys
from pathlib import Path

from PIL import Image
from skimage import data

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def main() -> None:
    """Write the photographs as JPEG."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python benchmarks/sample_photos.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.jpg", quality=95)
    print(f"{len(PHOTOS)} photographs in {folder}")


if __name__ == "__main__":
    main()
