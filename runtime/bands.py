"""Pictures in pieces of a few rows, which stay in the cache, so that large ones need no temporary of their size."""

from collections.abc import Iterator

# Half of a usual L2 cache, less what a piece is turned into.
_BAND_BYTES = 1 << 18


def row_bands(height: int, row_bytes: int) -> Iterator[slice]:
    """Slices that cover `height` rows of `row_bytes` in order, each of at least one row."""
    step = max(1, _BAND_BYTES // max(row_bytes, 1))
    return (slice(top, min(top + step, height)) for top in range(0, height, step))
