"""Grids of times, files of them, and times that are learned."""

import json
import shlex
from itertools import pairwise

import pytest
import torch
from oracle import optimal
from peer_samplers import Q, states, x_T
from random_checkpoint import saved

from ddpm import build
from ddpm.commands.steps import steps
from ddpm.config.compose import compose
from ddpm.config.grammar import parse, quote_paths
from ddpm.data.digits import Digits
from ddpm.diffusion.prediction import X0
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import SPACINGS, Ancestral
from ddpm.diffusion.schedule import cosine, linear, quadratic
from ddpm.diffusion.variance import FixedSmall
from ddpm.samplers import times as files
from ddpm.samplers.ddim import DDIM
from ddpm.samplers.deis import DEIS
from ddpm.samplers.dpm_solver import DPMSolver, DPMSolver2S
from ddpm.samplers.heun import Heun
from ddpm.samplers.learned import Chains, noise_along, search, tries
from ddpm.samplers.unipc import UniPC


@pytest.mark.parametrize("schedule", [linear, quadratic])
def test_log_snr_and_karras_are_even_in_what_they_say(schedule):
    q, n = ForwardProcess(schedule(4000)), 9
    log_snr = q.snr(torch.tensor(DDIM(n, spacing="log_snr").steps(q))).log()
    rho = q.snr(torch.tensor(DDIM(n, spacing="karras").steps(q))) ** (-1 / 2 / 7)
    for values in (log_snr, rho):
        even = torch.linspace(values[0], values[-1], n, dtype=torch.float64)
        inner = even.diff().abs().mean()
        assert (values - even).abs().max() < 0.05 * inner


def test_karras_times_are_those_of_his_formula():
    """Each time is the one whose sigma is nearest to the formula's; Karras et al. 2022, Eq. (5)."""
    sigma = (1 / Q.alpha_bar - 1).sqrt()
    n, low, high = 12, sigma[1] ** (1 / 7), sigma[1000] ** (1 / 7)
    wanted = [(high + i / (n - 1) * (low - high)) ** 7 for i in range(n)]
    for t, wish in zip(DDIM(n, spacing="karras").steps(Q), wanted, strict=True):
        assert sigma[t - 1] < wish * (1 + 1e-9)
        assert wish * (1 - 1e-9) < (sigma[t + 1] if t < 1000 else sigma[t] * 1.01)


def test_times_stand_in_the_place_of_the_grid():
    grid = UniPC(6).steps(Q)
    for ours, theirs in zip(states(UniPC(6, times=grid), x_T()), states(UniPC(6), x_T()), strict=True):
        assert torch.equal(ours, theirs)
    assert Heun(None, times=[1000, 300, 4]).steps(Q) == [1000, 300, 300, 4, 4]
    assert Heun(4, times=[1000, 300, 4]).steps(Q) == [1000, 300, 300, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(None, times=[]), "must descend"),
        (lambda: DDIM(None, times=[1000, 10, 10]), "must descend"),
        (lambda: DDIM(None, times=[1000, 10, 0]), "must descend"),
        (lambda: DDIM(4, times=[1000, 10]), "use steps=2"),
        (lambda: DDIM(None, times=[900, 10]).steps(Q), "another T"),
        (lambda: UniPC(None, 3, times=[1000, 10, 1]), "at least 4, for this order"),
        (lambda: DPMSolver(3, 3), "at least 4, for this order"),
        (lambda: DPMSolver(order=1), "order=1 is not one of 2, 3"),
        (lambda: DPMSolver(eta=1.1), r"eta=1.1 must lie in \[0, 1\]"),
        (lambda: DPMSolver2S(2), "at least 3, for this order"),
        (lambda: DEIS(4), "at least 5, for this order"),
        (lambda: DEIS(order=4), "order=4 is not one of 1, 2, 3"),
        (lambda: Heun(2), "two for a step of Heun's, one for the last"),
        (lambda: Heun(S_churn=float("inf")), "S_churn=inf and S_noise=1.0 must be numbers of at least 0"),
        (lambda: Heun(S_noise=-0.1), "S_churn=0.0 and S_noise=-0.1 must be"),
        (lambda: Heun(7, times=[1000, 10]), "use steps=3"),
        (lambda: Heun(7, S_churn=1.0, S_min=200.0).steps(Q), "leave nothing of the schedule"),
        (lambda: Heun(7, S_churn=1.0, S_max=0.001).steps(Q), "leave nothing of the schedule"),
    ],
)
def test_refuses_times_that_are_none(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_file_of_times_is_read_back_for_its_schedule_alone(tmp_path):
    file = tmp_path / "times.json"
    file.write_text(json.dumps(files.described([1000, 400, 7], Q)))
    assert files.read(file, Q) == [1000, 400, 7]
    every = tmp_path / "every.json"
    every.write_text(json.dumps(files.described(range(1000, 0, -1), Q)))
    assert files.read(every, Q) == list(range(1000, 0, -1))
    for other in (linear(1000, beta_T=0.0201), cosine(1000), linear(999)):
        with pytest.raises(ValueError, match=r"another schedule|times of T=1000"):
            files.read(file, ForwardProcess(other))
    content = {**files.described([1000, 400, 7], Q), "alpha_bar": [float("nan")] * 3}
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="another schedule"):
        files.read(file, Q)


@pytest.mark.parametrize("k", range(3))
def test_a_schedule_that_differs_at_one_of_the_times_is_another(tmp_path, k):
    """The file is off by a thousandth of alpha_bar, 4e-8 at t = T; or it has one too few, or one too many."""
    content = files.described([1000, 400, 7], Q)
    whole = content["alpha_bar"]
    for alpha_bar in ([a * (1.001 if j == k else 1) for j, a in enumerate(whole)], whole[:k], whole + whole[: k + 1]):
        (tmp_path / "x.json").write_text(json.dumps({**content, "alpha_bar": alpha_bar}))
        with pytest.raises(ValueError, match=r"times of another schedule: its alpha_bar is not this one's"):
            files.read(tmp_path / "x.json", Q)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        '{"T": 1000}',
        '{"T": 1000, "times": 3, "alpha_bar": []}',
        '{"T": "x", "times": [1], "alpha_bar": [1]}',
        '{"T": 1000, "times": [true], "alpha_bar": [1]}',
        '{"T": 1000, "times": [], "alpha_bar": []}',
        "[" * 100_000,
        json.dumps(files.described([1000, 400], Q)) + " " * (1 << 21),
    ],
    ids=map(str, range(11)),
)
def test_what_is_no_file_of_times_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is no file of times"):
        files.read(tmp_path / "x.json", Q)


@pytest.mark.parametrize("times", [[1000, 400, 400], [1000, 7, 400], [900, 400], [1000, 400, 0], [1000, -1]])
def test_times_in_a_file_descend_from_T(tmp_path, times):
    (tmp_path / "x.json").write_text(json.dumps(files.described(times, Q)))
    with pytest.raises(ValueError, match="do not descend from T=1000"):
        files.read(tmp_path / "x.json", Q)


class Constant(torch.nn.Module):
    def forward(self, x, t):
        return torch.full_like(x, 0.4)


@pytest.mark.parametrize("sampler", [DDIM, Ancestral], ids=["DDIM", "Ancestral"])
def test_chains_of_the_same_noise_meet_whatever_their_times_if_x_0_is_known(sampler):
    """With a constant estimate, q(x_s | x_t, x_0) of a long step is exactly that of the short ones it is made of."""
    q = ForwardProcess(linear(60, beta_T=0.3))
    p = ReverseProcess(Constant(), q, X0(), FixedSmall())
    noise = noise_along(q, x_T(), torch.Generator().manual_seed(3))
    ends = []
    for times in ([60, 42, 9, 3], [*range(60, 2, -1)]):
        made = DDIM(None, 1.0, times=times) if sampler is DDIM else Ancestral(None, times=times)
        ends.append([s.x_t for s in made(p, x_T(), torch.Generator(), noise_of=noise) if s.t in (9, 3)])
    for few, many in zip(*ends, strict=True):
        torch.testing.assert_close(few, many, rtol=1e-9, atol=1e-9)


def test_the_noise_of_any_step_is_standard_normal():
    noise = noise_along(Q, torch.zeros(4000, 1), torch.Generator().manual_seed(0))
    for t, s in ((1000, 999), (1000, 1), (300, 20)):
        assert noise(t, s).std().item() == pytest.approx(1, abs=0.04)
        assert noise(t, s).mean().item() == pytest.approx(0, abs=0.06)
    together = torch.cat([noise(900, 500), noise(500, 100)], 1)
    assert together.T.corrcoef()[0, 1].abs() < 0.05


def test_the_search_finds_the_nearest_times_and_asks_no_more_often_than_it_says():
    wanted, asked = [1000, 703, 401, 120, 60], []

    def distance(times):
        asked.append(times)
        assert times[0] == 1000
        assert all(a > b for a, b in pairwise([*times, 0]))
        return float(sum(abs(a - b) for a, b in zip(times, wanted, strict=True)))

    found, far = search([1000, 750, 500, 250, 1], distance)
    assert far == distance(found) < 0.1 * distance([1000, 750, 500, 250, 1])
    assert len(asked) - 2 <= tries(5)


def test_the_search_moves_each_time_by_shares_of_the_ways_to_its_neighbours():
    """To the nearest whole number; where nothing helps, each share is tried once."""
    asked = []
    search([160, 86, 22], lambda times: asked.append(times) or 1.0)
    moved = [sum(times) - 268 for times in asked[1:]]  # one of them at a time
    wanted = [share * way for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16) for way in (160 - 86, 22 - 86, 86 - 22, 0 - 22)]
    assert len(moved) == len(wanted)
    assert all(abs(found - wish) <= 0.5 for found, wish in zip(moved, wanted, strict=True))


def test_the_search_asks_as_often_as_it_says_if_every_move_helps():
    asked = []
    search([2**80, 2**79, 2**40], lambda times: asked.append(times) or -float(len(asked)))
    assert len(asked) == tries(3)


def test_chains_of_a_stochastic_sampler_share_their_noise():
    p, draw = optimal(Q, X0(), FixedSmall()), torch.Generator().manual_seed(0)
    sampler = Ancestral(None, times=[1000, 700, 300, 20])
    chains = Chains(p, x_T(), draw, sampler)
    assert chains.distance(sampler) == 0
    *_, other = sampler(p, x_T(), draw)
    assert not torch.equal(other.x_t, chains.ends)
    assert Chains(p, x_T(), draw, UniPC(4)).noise is None


def test_a_distance_is_the_mean_of_root_mean_squares(monkeypatch):
    chains = Chains(optimal(Q, X0(), FixedSmall()), x_T(), torch.Generator().manual_seed(0), UniPC(4))
    chains.ends = torch.zeros(2, 4)
    monkeypatch.setattr(chains, "ends_of", lambda _: torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 2.0, 0.0]]))
    assert chains.distance(UniPC(4)) == pytest.approx((3 + 1) / 2)


@pytest.mark.long
def test_times_that_are_learned_are_nearer_on_other_noise():
    p = optimal(Q, X0(), FixedSmall(), 0.3, 0.05)

    def chains(seed):
        draw = torch.Generator().manual_seed(seed)
        return Chains(p, torch.randn(16, 1, generator=draw, dtype=torch.float64), draw, UniPC(40))

    learning, other = chains(0), chains(1)
    start = UniPC(4).steps(Q)
    times, _ = search(start, lambda times: learning.distance(UniPC(4, times=times)))
    assert other.distance(UniPC(4, times=times)) < 0.5 * other.distance(UniPC(4, times=start))


@pytest.mark.long
def test_ddpm_steps_writes_what_sampler_times_takes(workspace, capsys, monkeypatch):
    small = ["network.channels=8", "network.groups=4", "schedule.T=40", "condition=label", "sampler.steps=4"]
    saved("a.ckpt", *small)
    asked = ["ckpt=a.ckpt", "steps=3", "chains=2", "fine=6", "sampler=dpm_solver_sde", "to='a, b.json'"]
    prepared = []
    monkeypatch.setattr(Digits, "prepare", lambda images: prepared.append(images))
    file = steps([*asked, "sampler.spacing=quadratic", "trainer.accelerator=cpu"])
    assert prepared
    words = shlex.split(capsys.readouterr().out.partition("use them: ")[2])
    assert words[-4:] == [
        "sampler=dpm_solver_sde",
        "trainer.accelerator=cpu",
        "sampler.steps=3",
        f"sampler.times='{file}'",
    ]
    (times,) = [override.value() for override in parse(quote_paths(words[-1:]))]
    assert times == str(file)
    content = json.loads(file.read_text())
    distance = content["distance"]["held_out"]
    assert set(distance) == {*SPACINGS, "learned"}
    assert content["distance"]["learning"]["learned"] <= min(content["distance"]["learning"].values())
    config = compose([*small, "sampler=dpm_solver_sde", "sampler.steps=null", words[-1]])
    assert build.sampler(config).steps(ForwardProcess(linear(40))) == content["times"]
