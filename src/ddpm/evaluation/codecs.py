"""What picture codecs need for the images of the bound."""

from typing import Any

from torch import Tensor

from ddpm.data.dataset import Dataset, Split
from ddpm.evaluation.chunks import Chunk, Chunks
from ddpm.metrics import codecs
from ddpm.progress import Bar


def measure(images: Dataset, split: Split, n: int, chunks: Chunks) -> dict[str, Any]:
    """Bits per dimension, and rate and distortion, of the first n images of a split; {} of what is not a picture.

    The images of a chunk are tiled together.
    """
    if not codecs.take(images.shape):
        return {}
    examples = images.split(split)

    with Bar(f"codecs on {split}", len(chunks.of(n)), enabled=chunks.rank.index == 0) as bar:

        def coded(chunk: Chunk) -> Tensor:
            made = codecs.rows(chunks.examples(examples, chunk)[: len(chunk.indices)])
            bar.advance(1)
            return made

        rows = chunks.rows(f"codecs {split}", n, coded)
    return {"split": split, "n": n, **codecs.summary(rows)}


def notes(found: dict[str, Any]) -> list[str]:
    """What the numbers of codecs rest on, a line each; none where nothing was coded."""
    if not found:
        return []
    lossless = found["lossless"]
    listed = ", ".join(f"{each['title']} {each['overhead_bytes']:.0f}" for each in lossless.values())
    alone = ", ".join(
        f"{each['title']} {each['each']:.4f} ({each['each_with_overhead']:.4f} with these bytes)"
        for each in lossless.values()
    )
    return [
        f"codecs: the same {found['n']:,} images, each a file or tiled, whichever takes less; without the bytes of a "
        f"file of one pixel ({listed}); Pillow {found['pillow']}",
        f"each image a file: {alone}",
    ]
