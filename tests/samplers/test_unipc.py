import pytest
import torch
from diffusers import UniPCMultistepScheduler
from oracle import optimal

from ddpm.config.compose import compose
from ddpm.diffusion.prediction import X0, Epsilon
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedSmall
from ddpm.samplers.ddim import DDIM
from ddpm.samplers.unipc import UniPC

Q = ForwardProcess(linear(1000))


class Wavy(torch.nn.Module):
    """An estimate of x_0 that is no Gaussian's."""

    def forward(self, x, t_from_0):
        return torch.sin(2 * x + t_from_0[:, None] / 1000)


def states(sampler, x_T):
    p = ReverseProcess(Wavy(), Q, X0(), FixedSmall())
    return [state.x_t for state in sampler(p, x_T, torch.Generator(), clip=False)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers', of numpy 2
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_is_what_diffusers_does_up_to_the_last_steps(order, variant):
    """Theirs lowers the order of the last steps, to the last of which ours goes by the estimate of x_0."""
    x_T = torch.randn(5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampler = UniPC(8, order, variant)
    times = [t - 1 for t in sampler.steps(Q)]
    theirs = UniPCMultistepScheduler(
        1000, beta_start=1e-4, beta_end=0.02, solver_order=order, solver_type=variant, predict_x0=True,
        final_sigmas_type="zero", prediction_type="sample",
    )  # fmt: skip
    theirs.set_timesteps(8)
    sigmas = ((1 - Q.alpha_bar[1:]) / Q.alpha_bar[1:]).sqrt()
    theirs.timesteps = torch.tensor(times)
    theirs.sigmas = torch.cat([sigmas[times], torch.zeros(1, dtype=torch.float64)])
    x, expected, network = x_T, [], Wavy()
    for t in theirs.timesteps:
        x = theirs.step(network(x, t.expand(5)), t, x).prev_sample
        expected.append(x)
    found = states(sampler, x_T)
    for k, (ours, want) in enumerate(zip(found[:-order], expected, strict=False)):
        torch.testing.assert_close(ours, want, rtol=1e-6, atol=1e-7, msg=f"step {k}")


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.long
def test_more_steps_come_nearer_to_the_limit(order):
    """Held against DDIM in all thousand, at the last finite SNR."""
    x_T = torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = states(DDIM(1000), x_T)

    def error(steps):
        sampler = UniPC(steps, order)
        *_, late, _ = sampler.steps(Q)
        return float((states(sampler, x_T)[-3] - exact[999 - late]).abs().mean())

    assert error(10) > 50 * error(40)


def test_the_optimal_network_samples_the_data():
    p = optimal(ForwardProcess(linear(100, rescale=True)), Epsilon(), FixedSmall(), 0.3, 0.25)
    x_T = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))
    *_, last = UniPC(10)(p, x_T, torch.Generator(), clip=False)
    assert last.x_t.mean().item() == pytest.approx(0.3, abs=0.008)
    assert last.x_t.std().item() == pytest.approx(0.25, abs=0.02)


def test_what_there_is_not():
    with pytest.raises(ValueError, match="order=4 is not one of 1, 2, 3"):
        UniPC(order=4)
    with pytest.raises(ValueError, match="variant='bh3' is not one of bh1, bh2"):
        UniPC(variant="bh3")


def test_it_is_an_option_of_the_command_line():
    config = compose(["sampler=unipc", "sampler.order=3"], "evaluate")
    assert (config.sampler.steps, config.sampler.order, config.sampler.variant) == (10, 3, "bh2")
