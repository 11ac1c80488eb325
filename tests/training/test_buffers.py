"""A user's network with buffers: running statistics are its averages' too, and constants stay what they are."""

import sys

import pytest
import torch
from torture import assert_same, content

import ddpm
from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.config import groups
from ddpm.config.errors import RequestError
from ddpm.config.evaluation import compose_evaluation

CODE = """
import torch
from torch import nn
from ddpm.networks.network import Network

class Buffered(Network):
    event_ndim = 3

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.register_buffer("frequencies", torch.tensor([1e5, 0.1]))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("latest", torch.zeros(1), persistent=False)
        self.conv_in = nn.utils.parametrizations.spectral_norm(nn.Conv2d(in_channels, 8, 3, padding=1))
        self.norm = nn.BatchNorm2d(8)
        self.conv_out = nn.Conv2d(8, out_channels, 3, padding=1)

    def forward(self, x, t):
        if self.training:
            self.seen = self.seen + len(x)
            self.latest = x.detach()
        phase = (t[:, None] / self.frequencies).sin().sum(1)[:, None, None, None]
        return self.conv_out(self.norm(self.conv_in(x)).relu() + phase)
"""
SETTINGS = ["debug=smoke", "optimizer.anneal=false", "network=buffered", "logger=csv", "ema=posthoc", "max_steps=6"]
STATISTICS = {
    *("seen", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
    *("conv_in.parametrizations.weight.0._u", "conv_in.parametrizations.weight.0._v"),
}


@pytest.fixture
def own(workspace, monkeypatch):
    """The network as the option `buffered` of a folder of the user's."""
    monkeypatch.setenv(groups.OWN, str(workspace / "conf"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (workspace / "conf" / "network").mkdir(parents=True)
    (workspace / "conf" / "network" / "buffered.yaml").write_text("_target_: own_buffered.Buffered\n")
    (workspace / "own_buffered.py").write_text(CODE)
    groups._roots.cache_clear()
    yield workspace
    groups._roots.cache_clear()


def of(run, prefix):
    state = content(run)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def test_its_averages_have_the_statistics_of_the_newest_step(own):
    ddpm.train(*SETTINGS, "out=run")
    raw = of(own / "run", "p.network.")
    assert raw["norm.num_batches_tracked"] == 6
    assert raw["seen"] == 6 * 16
    for prefix in ("p_ema.network.", "power_averages.0.", "power_averages.1."):
        kept = of(own / "run", prefix)
        for name in STATISTICS:
            assert torch.equal(kept[name], raw[name]), (prefix, name)
        assert not torch.equal(kept["conv_out.weight"], raw["conv_out.weight"])
    assert not torch.equal(raw["norm.running_mean"], torch.zeros(8))


def test_it_goes_on_to_the_bit(own):
    ddpm.train(*SETTINGS, "out=whole")
    ddpm.train(*SETTINGS, "max_steps=3", "out=run")
    ddpm.train("resume=run", "max_steps=6")
    assert_same(content(own / "run")["state_dict"], content(own / "whole")["state_dict"])


@pytest.mark.parametrize("words", [[], ["ema=0.1"]])
def test_it_is_evaluated_with_the_statistics_and_constants_of_the_checkpoint(own, words):
    ddpm.train(*SETTINGS, "out=run")
    saved = checkpoint.load(own / "run")
    config = compose_evaluation(saved.config, words)
    network = build.trained(saved, config, build.dataset(config)).network
    assert network.norm.num_batches_tracked == 6
    assert network.frequencies.tolist() == pytest.approx([1e5, 0.1])
    for name, value in of(own / "run", "p_ema.network.").items():
        same = torch.equal(network.state_dict()[name], value)
        assert same == (not words or name in {*STATISTICS, "frequencies"}), name


@pytest.mark.parametrize(
    ("values", "what"),
    [("[-float('inf'), 0.1]", "numbers that are not finite"), ("[1j, 0.1]", "does not hold real numbers")],
)
def test_what_no_checkpoint_can_hold_is_refused_before_anything_is_trained(own, values, what):
    (own / "own_refused.py").write_text(CODE.replace("[1e5, 0.1]", values).replace("Buffered", "Refused"))
    (own / "conf" / "network" / "buffered.yaml").write_text("_target_: own_refused.Refused\n")
    with pytest.raises(RequestError, match=rf"cannot be saved: frequencies.*{what}.*persistent=False"):
        ddpm.train(*SETTINGS, "out=run")
    sys.modules.pop("own_refused")
    assert not (own / "run").exists()


def test_a_batch_in_parts_is_refused_where_statistics_are_taken(own):
    with pytest.raises(RequestError, match=r"statistics of a batch \(norm, a BatchNorm2d\), .* in 2 parts"):
        ddpm.train(*SETTINGS, "trainer.accumulate=2", "out=run")
    assert not (own / "run").exists()
