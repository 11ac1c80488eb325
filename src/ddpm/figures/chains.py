"""Walks of the reverse process, and of the forward process, in pictures."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from ddpm.diffusion.process import expand
from ddpm.figures import drawing
from ddpm.figures.context import FORWARD, LATENT, NOISED, Products, Scene, figure

EVEN = [1 - i / 12 for i in range(13)]
TOWARDS_DATA = [fraction**2 for fraction in EVEN]  # x_t changes most near t = 0
FEW = [(1 - i / 5) ** 2 for i in range(6)]  # panels of points are wide
LARGEST_GRID = 400
FILM = 400  # pixels


def _spread(scene: Scene, fractions: Sequence[float]) -> Sequence[float]:
    return [f for f in (fractions if scene.images.discrete else FEW) if f > 0]


def _check_sort(scene: Scene, *, count: int, sort: bool) -> None:
    if not sort:
        return
    if not scene.images.discrete or not scene.features().has_logits:
        raise ValueError("figure.samples.sort=true: there is no classifier to sort by; features=digits has one")
    scene.features()(torch.zeros(1, *scene.images.shape, dtype=torch.uint8))


@figure(points=True, check=_check_sort)
def samples(scene: Scene, *, count: int, sort: bool) -> Products:
    """Samples in a grid, and as an array; sorted by the class that the extractor's classifier gives them."""
    count = scene.shown(count)
    made, order = scene.samples(count), ""
    if not scene.images.discrete:
        return drawing.scatters([made], [f"{count:,} samples"], scene.caption("Samples")), made
    if sort:
        logits = scene.features().to(scene.device)(made.to(scene.device)).logits
        assert logits is not None
        confidence, label = logits.softmax(1).max(1)
        made, order = made[(label - confidence).argsort().cpu()], ", sorted by the classifier"
    grid = made[:LARGEST_GRID]
    first = f"{len(grid)} of {count:,} samples" if len(grid) < count else f"{count} samples"
    picture = drawing.labelled(grid, _columns(len(grid)), caption=scene.caption(first + order))
    return picture, made


@figure(points=True, data=True)
def forward(scene: Scene, *, count: int, t: list[int] | None) -> Products:
    """A chain x_0, ..., x_T of q; each state is drawn given the one before."""
    times = sorted({0, *scene.times(t, _spread(scene, TOWARDS_DATA))})
    draw, states = scene.draw(FORWARD), [scene.real(scene.shown(count))]
    for s, now in pairwise(times):
        beta = scene.p.q.beta(*(scene.at(time, len(states[0])) for time in (now, s)))
        x_s = states[-1]
        noise = torch.randn(x_s.shape, generator=draw, device=x_s.device)
        states.append(expand((1 - beta).sqrt(), x_s) * x_s + expand(beta.sqrt(), x_s) * noise)
    caption = scene.caption(f"The forward process q: x_t of real {scene.split} examples, by t", sampled=False)
    return scene.panels([scene.show(x) for x in states], times, caption)


@figure(points=True)
def reverse(scene: Scene, *, count: int, t: list[int] | None) -> Products:
    """A chain x_T, ..., x_0 of p."""
    times = [*scene.visited(scene.times(t, _spread(scene, TOWARDS_DATA))), 0]
    states = [scene.show(s.x_t) for _, s in scene.chain("reverse", scene.shown(count)) if s.t in times]
    return scene.panels(states, times, scene.caption("The reverse process p: x_t by t; t = 0 is the sample"))


@figure(points=True)
def progressive(scene: Scene, *, count: int, t: list[int] | None) -> Products:
    """Estimates of x_0 along the reverse chain; Figure 6."""
    times = scene.visited([*scene.times(t, _spread(scene, EVEN)), 1])
    walk = scene.chain("progressive", scene.shown(count))
    states = [scene.show(state.x_0) for now, state in walk if now in times]
    what = "Progressive generation: the estimate of x_0 from x_t, by t; that at t = 1 is the sample"
    return scene.panels(states, times, scene.caption(what))


@figure(points=True)
def film(scene: Scene, *, count: int, frames: int) -> Products:
    """The reverse chain as an animation."""
    visited = [*scene.sampler.steps(scene.T), 0]
    shown = {visited[round(i * (len(visited) - 1) / (frames - 1))] for i in range(frames)}
    states = [(s.t, scene.show(s.x_t)) for _, s in scene.chain("film", scene.shown(count)) if s.t in shown]

    def frame(t: int, x_t: Tensor) -> Image:
        if scene.images.discrete:
            return drawing.labelled(x_t, _columns(len(x_t)), caption=f"t = {t} of {scene.T}", width=FILM)
        return drawing.drawn(drawing.scatters([x_t], [f"t = {t} of {scene.T}"], ""), round(FILM / drawing.COLUMN))

    return (drawing.Film([frame(t, x_t) for t, x_t in states]),)


def _check_stochastic(scene: Scene, *, count: int, t: list[int] | None) -> None:
    if not scene.sampler.stochastic:
        raise ValueError(
            "figures=[shared_latents] shows what is random given x_t, and with this sampler nothing is: "
            "use sampler=ancestral, or sampler=ddim sampler.eta=1"
        )


def latents(scene: Scene, times: Sequence[int]) -> dict[int, Float[Tensor, "1 *event"]]:
    """One chain's x_t at these t."""
    return {state.t: state.x_t for _, state in scene.chain("latents", 1) if state.t in times}


@figure(check=_check_stochastic)
def shared_latents(scene: Scene, *, count: int, t: list[int] | None) -> Products:
    """Samples of p(x_0 | x_t) for several t of one chain; Figure 7."""
    times = scene.visited(scene.times(t, [1.0, 0.75, 0.5, 0.25, 0.1]))
    rows = []
    for now, x_t in latents(scene, times).items():
        shared = x_t.expand(count, *x_t.shape[1:])
        x_0 = scene.decode(f"shared_latents, t = {now}", shared, scene.draw(LATENT, now), now)
        rows.append(torch.cat([x_t, x_0]))
    labels = [f"t = {now}" for now in times]
    caption = scene.caption("Samples of p(x_0 | x_t) that share the x_t at their left, which are of one chain")
    pictures = scene.show(torch.cat(rows))
    above = ["$x_t$", *([""] * (count // 2)), "$x_0$", *([""] * (count - count // 2 - 1))]
    return (drawing.labelled(pictures, count + 1, caption=caption, above=above, beside=labels),)


@figure(data=True)
def denoise(scene: Scene, *, count: int, t: list[int] | None) -> Products:
    """Real images with noise, and the network's posterior mean E[x_0 | x_t], from one evaluation for each t."""
    times = sorted(scene.times(t, [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0]))
    x_0 = scene.real(count)
    count = len(x_0)
    noise = scene.noise(count, scene.draw(NOISED))
    columns = [torch.stack([x_0, x_0], 1)]
    for now in times:
        at = scene.at(now, count)
        x_t = scene.p.q.diffuse(x_0, at, noise)
        columns.append(torch.stack([x_t, scene.p(x_t, at, clip=True).x_0], 1))
    rows = torch.stack(columns, 2).flatten(0, 2)  # image, then x_t or estimate, then t
    what = f"Real {scene.split} images with noise, x_t, and the estimate of x_0 from it by one evaluation, by t"
    return (
        drawing.labelled(
            scene.show(rows),
            len(columns),
            caption=scene.caption(what, sampled=False),
            above=["0", *map(str, times)],
            beside=["$x_t$", r"$\hat{x}_0$"] * count,
            corner="t",
        ),
    )


def _columns(n: int) -> int:
    """Of a grid without holes, if that can be nearly square, rather wide than high."""
    even = max(c for c in range(1, n + 1) if n % c == 0 and c * c <= 2 * n) if n > 3 else n
    return even if 2 * even * even >= n else round((1.5 * n) ** 0.5)
