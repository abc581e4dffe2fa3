"""Synthetic scenes: textured objects of many shapes and sizes on textured backgrounds, with exact masks.

Enough to train and test on without any download; a network trained on them finds real objects poorly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

# Colours that tell one kind of object from another.
KINDS = {"red": (215, 40, 40), "green": (40, 190, 60), "blue": (50, 70, 225), "yellow": (230, 215, 40)}


@dataclass(frozen=True)
class Scene:
    """The scene of number `seed`; the same number always gives the same picture.

    A scene of a `kind`, an index into `KINDS`, has objects of one colour.
    """

    seed: int
    size: tuple[int, int] = (240, 320)
    kind: int | None = None

    @property
    def name(self) -> str:
        """`scenes/<seed>`, or `scenes/<kind>/<seed>`."""
        return f"scenes/{self.label}{'/' if self.label else ''}{self.seed:06d}"

    @property
    def label(self) -> str:
        """The name of the kind."""
        return "" if self.kind is None else list(KINDS)[self.kind]

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) bool, one to three objects."""
        rng = np.random.default_rng(self.seed)
        image = _texture(rng, self.size)
        mask = np.zeros(self.size, dtype=np.bool_)
        for _ in range(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])):
            alpha = _shape(rng, self.size)
            inside = _texture(rng, self.size, away_from=image.mean(axis=(0, 1)))
            if self.kind is not None:
                inside += np.array(list(KINDS.values())[self.kind]) - inside.mean(axis=(0, 1))
            image = image * (1 - alpha[..., None]) + inside * alpha[..., None]
            mask |= alpha > 0.5
        noisy = image + rng.normal(0, rng.uniform(0, 6), image.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8), mask


def scenes(count: int, *, seed: int = 0) -> list[Scene]:
    """`count` scenes; lists of different `seed` share none."""
    return [Scene(seed * 1_000_000 + index) for index in range(count)]


def scenes_of_kinds(count: int, *, seed: int = 0) -> list[Scene]:
    """`count` scenes, their kinds in turn."""
    return [Scene(seed * 1_000_000 + index, kind=index % len(KINDS)) for index in range(count)]


def _texture(
    rng: np.random.Generator, size: tuple[int, int], away_from: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """(H, W, 3) in 0..255: a colour gradient with noise at three scales, its mean away from `away_from`."""
    colour = rng.uniform(20, 235, 3)
    while away_from is not None and np.abs(colour - away_from).sum() < 150:
        colour = rng.uniform(20, 235, 3)
    y, x = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    slope = (x * np.cos(angle) + y * np.sin(angle))[..., None] * rng.uniform(-30, 30, 3)
    image: NDArray[np.float64] = colour + slope
    for cells in (4, 16, 48):
        coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        field = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        image = image + np.asarray(field)[..., None] * rng.uniform(0, 14) * rng.uniform(0.5, 1, 3)
    return image


def _shape(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W) in [0, 1]: a smooth-edged ellipse, polygon, star or blob, its radius .08 to .45 of the shorter side."""
    height, width = size
    radius = min(size) * rng.uniform(0.08, 0.45)
    centre = rng.uniform(0.25, 0.75, 2) * (width, height)
    count, wobble = [
        (60, 0.0),
        (int(rng.integers(3, 8)), 0.0),
        (2 * int(rng.integers(4, 8)), 0.5),
        (60, 0.3),
    ][rng.integers(4)]
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 2 * np.pi)
    if count == 60:
        waves = sum(rng.normal(0, wobble / k) * np.cos(k * angles + rng.uniform(0, 6)) for k in range(2, 5))
        distances = radius * (1 + waves) * np.ones(count)
    else:
        distances = radius * np.where(np.arange(count) % 2, 1 - wobble, 1.0)
    stretch = np.array([1.0, rng.uniform(0.45, 1)])
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (np.stack([np.cos(angles), np.sin(angles)], 1) * distances[:, None] * stretch) @ rotation.T + centre
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=255)
    soft = canvas.filter(ImageFilter.GaussianBlur(0.8))
    alpha: NDArray[np.float64] = np.asarray(soft, dtype=np.float64) / 255
    return alpha
