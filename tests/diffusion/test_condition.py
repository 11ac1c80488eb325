import torch
from torch import nn

from ddpm.diffusion.condition import DROPPED, Condition
from ddpm.diffusion.prediction import X0
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedSmall

BOTH = Condition(torch.tensor([2, 0, 1]), torch.ones(3, 2, 4, 4))


def test_only_those_that_are_named_are_dropped():
    some = BOTH.dropped(torch.tensor([True, False, True]))
    assert some.labels.tolist() == [DROPPED, 0, DROPPED]
    assert some.image.flatten(1).sum(1).tolist() == [0, 32, 0]
    everything = BOTH.dropped()
    assert everything.labels.tolist() == [DROPPED] * 3
    assert not everything.image.any()
    assert everything.image.shape == BOTH.image.shape


def test_no_class_has_the_label_of_those_that_are_told_none():
    assert DROPPED < 0


def test_the_parts_are_those_that_there_are():
    assert BOTH.parts.keys() == {"labels", "image"}
    assert Condition(image=BOTH.image).dropped().parts.keys() == {"image"}
    assert Condition(BOTH.labels).map(lambda part: part[:1]).labels.tolist() == [2]


class Told(nn.Module):
    """Answers the labels that it is told."""

    def forward(self, x, t, told):
        return told.labels.to(x)[:, None].expand(x.shape)


def test_a_process_that_is_given_a_condition_tells_its_network():
    p = ReverseProcess(Told(), ForwardProcess(linear(10)), X0(), FixedSmall())
    assert p.given(None) is p
    given = p.given(BOTH)
    assert given.network.network is p.network
    for part in ("q", "prediction", "variance", "decoder"):
        assert getattr(given, part) is getattr(p, part)
    assert given(torch.zeros(3, 2), torch.full((3,), 5)).x_0.tolist() == [[2, 2], [0, 0], [1, 1]]
