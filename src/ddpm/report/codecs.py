"""What picture codecs need for the images of the bound, as results.json says it, beside the numbers of a report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ddpm.messages import printable
from ddpm.report import reading
from ddpm.report.run import Curve, ReportedRun


@dataclass(frozen=True)
class Codecs:
    """The codecs' numbers for some images.

    Attributes:
        images: which they are, in words.
        lossless: bits per dimension, by the codec's title.
        curves: distortion over rate, by the codec's title.
    """

    images: str
    pillow: str
    lossless: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)


def read(run: ReportedRun, content: dict[str, Any]) -> Codecs | None:
    """The codecs' part of a results.json; None if it has none.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: it is damaged.
    """
    found = content.get("codecs")
    if not found:
        return None
    n = reading.finite(found["n"]) or 0
    images = f"{n:,.0f} {found['split']} images of {run.protocol.get('data', 'unknown data')}"
    made = Codecs(printable(images), printable(str(found["pillow"])))
    for each in found["lossless"].values():
        if (value := reading.finite(each["value"])) is not None:
            made.lossless[printable(str(each["title"]))] = value
    for each in found["lossy"].values():
        table = {axis: [reading.finite(value) for value in each[axis]] for axis in ("rate_bits_per_dim", "rmse")}
        if (curve := reading.curve(table, "rate_bits_per_dim", "rmse"))[0]:
            made.curves[printable(str(each["title"]))] = curve
    return made


def notes(runs: Sequence[ReportedRun]) -> list[str]:
    """A sentence for each set of images that codecs have coded."""
    said = []
    for found in _distinct(runs):
        needs = ", ".join(f"{title} {value:.4f}" for title, value in found.lossless.items())
        said.append(
            f"Beside bits/dim, codecs without loss: {needs}; the same {found.images}; without the bytes of a file of "
            f"one pixel, Pillow {found.pillow}."
        )
    return said


def curves(runs: Sequence[ReportedRun]) -> list[tuple[str, Curve]]:
    """Distortion over rate of every codec, for each set of images."""
    return [curve for found in _distinct(runs) for curve in found.curves.items()]


def _distinct(runs: Sequence[ReportedRun]) -> list[Codecs]:
    by_content = {repr(run.codecs): run.codecs for run in runs if run.finished and run.codecs}
    return list(by_content.values())
