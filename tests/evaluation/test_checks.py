"""What cannot be measured is refused before anything is."""

import pytest
from evaluated import made

from ddpm.config.errors import RequestError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.metrics=[fdi]"], "fdi unknown; known are"),
        (["evaluation.metrics=[]"], "is empty"),
        (["evaluation.metrics=[bound_nats]"], "measures points"),
        (["evaluation.num_samples=9"], "10 or more"),
        (["evaluation.num_samples=49"], "kid needs 50 or more"),
        (["evaluation.num_samples=400", "evaluation.kid.subset_size=300"], "has 297 images: kid needs 300"),
        (["evaluation.num_samples=1", "evaluation.metrics=[fid]"], "at least 2"),
        (["evaluation.bits_per_dim.evaluations=5"], "at least 6"),
        (["evaluation.precision=bf16-true"], "use 32-true or bf16-mixed"),
        (["evaluation.bits_per_dim.decoder=logistic"], "tanh"),
        (["evaluation.fid_split=validation"], "train, test or both"),
        (["recipe=swiss_roll", "sampler.steps=5", "evaluation.metrics=[fid]"], "swiss_roll is points"),
    ],
)
def test_what_cannot_be_measured_is_refused(overrides, message):
    with pytest.raises((ValueError, RequestError), match=message):
        made(*overrides)
