import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F

from ddpm.data.digits import load_digits_split
from ddpm.metrics import features
from ddpm.metrics.features import DIGITS_WEIGHTS, Digits, TorchFidelity
from ddpm.metrics.fid import frechet_distance
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.statistics import FeatureStatistics

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def digits():
    return Digits()


@pytest.fixture(scope="module")
def split():
    return load_digits_split()


def test_the_shipped_classifier_knows_digits(digits, split):
    *_, images, labels = split
    assert (digits(images).logits.argmax(1) == labels).float().mean() >= 0.985
    assert DIGITS_WEIGHTS.stat().st_size < 1_000_000


def test_the_yardstick_stays_as_it_was(digits, split):
    """Numbers on digits compare only under these very weights: a change here makes all older ones worthless."""
    train, _, test, _ = split
    assert digits.protocol["weights"] == "0a65563a76a73c23e99eb915cbd071d3d203951caf0043ce56b6d66e825b9174"
    fid, score = judged(digits, train, test)
    assert math.isclose(fid, 9.66775, rel_tol=1e-3)
    assert math.isclose(score, 9.64426, rel_tol=1e-4)


def judged(extractor, images, test):
    found = extractor(images)
    score = InceptionScore()
    score.begin(extractor.width)
    score.update(found, torch.arange(len(images)))
    fid = frechet_distance(FeatureStatistics.of(found.pool), FeatureStatistics.of(extractor(test).pool))
    return fid, score.compute(len(images))["inception_score"]["value"]


def blurred(x, amount, generator):
    soft = F.avg_pool2d(F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 2, 1), 2, 1)
    return torch.lerp(x, soft, amount)


def noisy(x, amount, generator):
    return x + 255 * amount * torch.randn(x.shape, generator=generator)


def with_pixels_missing(x, amount, generator):
    return x * (torch.rand(x.shape, generator=generator) >= amount)


def blended_in_pairs(x, amount, generator):
    return torch.lerp(x, x[torch.randperm(len(x), generator=generator)], amount)


def with_some_shuffled(x, amount, generator):
    order = torch.rand(len(x), 64, generator=generator).argsort(1)
    hit = torch.rand(len(x), 1, 1, 1, generator=generator) < amount
    return torch.where(hit, x.flatten(1).gather(1, order).view(x.shape), x)


@pytest.mark.parametrize(
    ("corrupted", "amounts"),
    [
        (blurred, (0.25, 0.5, 1.0)),
        (noisy, (0.05, 0.1, 0.2, 0.4)),
        (with_pixels_missing, (0.05, 0.1, 0.2, 0.4)),
        (blended_in_pairs, (0.1, 0.2, 0.3, 0.5)),
        (with_some_shuffled, (0.02, 0.05, 0.1, 0.3, 1.0)),
    ],
)
def test_worse_digits_score_worse(digits, split, corrupted, amounts):
    train, _, test, _ = split
    scores = [judged(digits, train, test)]
    for amount in amounts:
        x = corrupted(train.float(), amount, torch.Generator().manual_seed(1))
        scores.append(judged(digits, x.round().clamp(0, 255).to(torch.uint8), test))
    fids, inception_scores = zip(*scores, strict=True)
    assert list(fids) == sorted(fids)
    assert list(inception_scores) == sorted(inception_scores, reverse=True)


def test_missing_classes_score_worse(digits, split):
    train, labels, test, _ = split
    scores = [judged(digits, train[labels >= first], test) for first in (0, 1, 2, 5)]
    fids, inception_scores = zip(*scores, strict=True)
    assert list(fids) == sorted(fids)
    assert list(inception_scores) == sorted(inception_scores, reverse=True)


def test_features_of_an_image_are_its_own(digits, split):
    test = split[2]
    together, apart = digits(test), [digits(part) for part in test.split(7)]
    torch.testing.assert_close(together.pool, torch.cat([part.pool for part in apart]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.logits, torch.cat([part.logits for part in apart]), rtol=1e-5, atol=1e-5)


def test_features_are_float32_whatever_surrounds_them(digits, split):
    test = split[2]
    plain = digits(test)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(digits(test).pool, plain.pool)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not plain.pool.requires_grad


def test_the_digits_classifier_takes_digits_only(digits):
    for shape in ((3, 32, 32), (1, 16, 16)):
        with pytest.raises(ValueError, match=f"takes 1x8x8 images, not {'x'.join(map(str, shape))}"):
            digits(torch.zeros(2, *shape, dtype=torch.uint8))


@pytest.mark.slow
def test_the_script_makes_such_a_classifier(tmp_path):
    made = tmp_path / "classifier.safetensors"
    script = ROOT / "scripts" / "train_digits_classifier.py"
    command = [sys.executable, str(script), "--out", str(made)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # faster, the network being so small
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread).stdout
    accuracy = float(output.removeprefix("test accuracy ").partition("%")[0])
    assert accuracy >= 98.5
    assert made.stat().st_size == DIGITS_WEIGHTS.stat().st_size


# --- torch-fidelity's extractors --------------------------------------------------------------------------------------


@pytest.mark.long
def test_other_weights_are_named(inception_weights):
    digest = hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=r"is not the published file .* features\.trust=true"):
        TorchFidelity(weights=inception_weights)
    extractor = TorchFidelity(weights=inception_weights, trust=True)
    assert not extractor.trusted
    assert extractor.name == f"inception-v3-compat-{digest[:8]}"
    assert extractor.protocol == {
        "extractor": extractor.name,
        "layer": "2048",
        "logits": "logits_unbiased",
        "resize": "bilinear 299 as TensorFlow 1",
        "weights": digest,
    }
    assert (extractor.width, extractor.has_logits) == (2048, True)
    with pytest.raises(ValueError, match="not 4 channels"):
        extractor(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))
    gray = torch.randint(256, (1, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(extractor(gray).pool, extractor(gray.repeat(1, 3, 1, 1)).pool)


def test_published_weights_are_trusted_and_found_where_torch_keeps_them(inception_weights, tmp_path, monkeypatch):
    digest = hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    published = features.Published("https://example.org/weights.pth", digest)
    monkeypatch.setitem(features.PUBLISHED, "inception-v3-compat", published)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights.pth").symlink_to(inception_weights)
    extractor = TorchFidelity()
    assert extractor.trusted
    assert extractor.name == extractor.protocol["extractor"] == "inception-v3-compat"


def test_without_network_it_says_which_file_to_put_where(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(ValueError, match=r"weights-inception-2015-12-05-6726825d\.pth at .*features\.weights=PATH"):
        TorchFidelity()
    assert str(tmp_path / "checkpoints") in refusal(name="clip-rn50")


def test_a_download_is_checked_and_made_once(tmp_path, monkeypatch):
    asked = []

    def download(url, path, sha256):
        asked.append((url, sha256))
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for name, file in (("vgg16", "weights.pth"), ("clip-rn50", "clip-rn50-abc.pt")):
        published = features.Published("https://example.org/weights.pth", "abc")
        for _ in range(2):
            assert features._downloaded(name, published) == tmp_path / "hub/checkpoints" / file
    assert asked == [("https://example.org/weights.pth", "abc")] * 2


def test_another_file_than_the_published_one_is_out_of_reach(tmp_path, monkeypatch):
    def download(*_):
        raise RuntimeError('invalid hash value (expected "abc", got "def")')

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(features.OutOfReachError, match=r"could not be fetched .*invalid hash value"):
        features._downloaded("vgg16", features.PUBLISHED["vgg16"])
    assert issubclass(features.OutOfReachError, ValueError)  # which ends a request in a line


def test_what_torch_fidelity_cannot_fetch_is_out_of_reach():
    def unreachable(*_, **__):
        raise RuntimeError("no network\nand more")

    with pytest.raises(features.OutOfReachError, match=r"^dinov2 could not be fetched: no network$"):
        features._fetched_by_torch_fidelity(unreachable, "dinov2", [])


def test_a_digest_is_of_names_and_values_whatever_their_order():
    def network(**values):
        made = torch.nn.Module()
        for name, value in values.items():
            made.register_buffer(name, torch.tensor(value))
        return made

    digest = features._digest(network(a=[1.0, 2.0], b=3))
    assert digest == features._digest(network(b=3, a=[1.0, 2.0]))
    others = [network(a=[1.0, 2.5], b=3), network(a=[1.0, 2.0], c=3), network(a=[1.0, 2.0]), network(a=[1.0], b=3)]
    assert digest not in map(features._digest, others)


def test_features_that_are_not_at_hand_are_asked_for_in_vain():
    with pytest.raises(ValueError, match="the features of vgg16 are not at hand"):
        features.Missing("vgg16")(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def refusal(**arguments):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller looks at the message
        TorchFidelity(**arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_hostile_file_is_refused_without_being_run(tmp_path):
    torch.save({"fc.weight": Hostile(tmp_path / "was_run")}, tmp_path / "weights.pth")
    assert "more than tensors" in refusal(weights=tmp_path / "weights.pth", trust=True)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("content", [{"fc.weight": 3}, [torch.zeros(3)]])
def test_what_is_no_state_dict_is_said_to_be_none(content, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(content, tmp_path / "weights.pth")
    assert (
        refusal(weights="~/weights.pth", trust=True) == f"features.weights={tmp_path}/weights.pth holds no state dict"
    )


def test_files_that_hold_no_such_weights(tmp_path, inception_weights):
    cut = tmp_path / "cut.pth"
    cut.write_bytes(inception_weights.read_bytes()[:1_000_000])
    text, other = tmp_path / "text.pth", tmp_path / "other.pth"
    text.write_text("not weights")
    torch.save({"fc.weight": torch.zeros(3)}, other)
    assert "damaged" in refusal(weights=cut, trust=True)
    assert "damaged" in refusal(weights=text, trust=True)
    assert "does not hold the weights of inception-v3-compat" in refusal(weights=other, trust=True)
    assert "cannot be read" in refusal(weights=tmp_path / "absent.pth")
    assert "cannot be read" in refusal(weights=tmp_path)


def test_an_unknown_extractor_is_refused_with_the_known_ones():
    assert "clip-rn50, " in refusal(name="resnet")


def test_what_cannot_be_checked_needs_trust(inception_weights):
    assert "features.trust=true" in refusal(name="dinov2-vit-s-14")
    assert "takes no file" in refusal(name="dinov2-vit-s-14", weights=inception_weights, trust=True)


@pytest.mark.long
def test_importing_is_cheap():
    """Libraries that take seconds to import are for those who use them."""
    heavy = {"torch_fidelity", "torchmetrics", "torchvision", "lightning", "sklearn"}
    code = f"import sys, ddpm.metrics.features; print({heavy} & {{*sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "set()"
