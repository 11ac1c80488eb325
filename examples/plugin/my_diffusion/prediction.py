"""A prediction: the difference of noise and data, as flow matching has it."""

from ddpm.diffusion.prediction import Prediction
from ddpm.diffusion.process import Batch, ForwardProcess, Time


class Direction(Prediction):
    """The network predicts noise - x_0. With x_t = a x_0 + s noise, x_0 is then (x_t - s output) / (a + s)."""

    symbol = "ε - x₀"

    def target(self, q: ForwardProcess, x_0: Batch, noise: Batch, t: Time) -> Batch:
        return noise - x_0

    def x_0(self, q: ForwardProcess, output: Batch, x_t: Batch, t: Time) -> Batch:
        a, s = q.signal(t, x_t), q.noise_scale(t, x_t)
        return (x_t - s * output) / (a + s)
