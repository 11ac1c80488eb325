"""Evaluation: the same numbers for any number of processes, chunks and interruptions; what it writes and refuses."""

import json
import math
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from commands import in_processes
from evaluated import SMALL, evaluated, made, process
from PIL import Image

from ddpm import build
from ddpm.config.compose import compose
from ddpm.data.digits import Digits
from ddpm.data.pixels import to_unit
from ddpm.diffusion import budget
from ddpm.diffusion.likelihood import evaluate_bound
from ddpm.evaluation.bound import BOUND, ESTIMATE, PILOT
from ddpm.evaluation.chunks import Chunks
from ddpm.evaluation.samples import SAMPLES, Samples
from ddpm.hardware import prepare_for_evaluation
from ddpm.launch import Rank
from ddpm.library import sample
from ddpm.metrics.inception_score import InceptionScore
from ddpm.processes import RunFailedError
from ddpm.randomness import generator
from ddpm.runs import folders
from ddpm.samplers.ddim import DDIM

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The evaluation by one process, what it keeps along the way included."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, evaluated("evaluation.fid_split=both", "evaluation.split=both", folder=folder)


def kept(folder, what):
    return {file.name: np.load(file) for file in sorted(folder.glob(f"{folders.UNFINISHED}/*/{what}/*.npy"))}


@pytest.mark.parametrize("world_size", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_any_number_of_processes_gives_the_same_bits(alone, tmp_path, monkeypatch, world_size):
    """101 images are 6 chunks, the last of them short: uneven for 2 processes, and for 3."""
    folder, results = alone
    monkeypatch.chdir(tmp_path)
    quick = evaluated("evaluation.metrics=[bits_per_dim]", "evaluation.bits_per_dim.evaluations=9").metrics
    in_processes(world_size, process, world_size, tmp_path)
    for what in ("samples", "bound test", "bound train", "codecs test"):
        ours, theirs = kept(folder, what), kept(tmp_path / f"processes{world_size}", what)
        assert list(ours) == list(theirs) == [f"{k:06d}.npy" for k in range(6)]
        assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours), what
    assert np.array_equal(Image.open(tmp_path / f"{world_size}.png"), results.pictures["samples"])
    for rank in range(world_size):
        found = json.loads((tmp_path / f"{world_size}-{rank}.json").read_text())
        assert found["fingerprint"] == results.protocol["fingerprint"]
        for name, whole in (("full", results.metrics), ("quick", quick), ("real", results.real)):
            assert found[name].keys() == whole.keys()
            for metric, parts in whole.items():
                for part, value in parts.items():
                    expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-9)
                    assert found[name][metric][part] == expected, (metric, part)


def test_threads_change_no_bit(alone, workspace):
    p, evaluation = made()
    prepare_for_evaluation(p.network, bf16=False)
    chunks = Chunks(20, 0, Rank(0, 1, CPU))
    torch.set_num_threads(2)
    try:
        samples = Samples(p, evaluation.sampler, evaluation.images.shape, chunks, nullcontext).of(chunks.of(20)[0])
        x_0 = to_unit(evaluation.images.split("test").__getitems__(list(range(20))))
        bound = evaluate_bound(p, x_0, generator(CPU, 0, 2, 0))
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(samples, kept(alone[0], "samples")["000000.npy"])
    assert np.array_equal(bound.terms, kept(alone[0], "bound test")["000000.npy"][:, 1:21])


def test_an_interrupted_evaluation_goes_on_where_it_stopped(alone, tmp_path, workspace, capsys):
    folder, results = alone
    whole = folder / folders.UNFINISHED
    (name,) = [path.name for path in whole.iterdir()]
    for file in ("samples/000000.npy", "samples/000003.npy", "bound test/000001.npy"):
        target = tmp_path / folders.UNFINISHED / name / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((whole / name / file).read_bytes())
    cut = tmp_path / folders.UNFINISHED / name / "bound test" / "000002.npy"
    cut.write_bytes((whole / name / "bound test" / "000002.npy").read_bytes()[:500])

    p, evaluation = made("evaluation.fid_split=both", "evaluation.split=both")
    calls = []
    p.network.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    again = evaluation.run(p, Rank(0, 1, CPU), {"ckpt": "none"}, tmp_path)
    assert again.metrics == results.metrics
    assert "are done already" in capsys.readouterr().out
    chunks, T, steps = 6, 20, 4
    expected = (chunks - 2) * steps + (2 * chunks - 1) * T  # what was kept is not repeated
    chain_and_trial = steps + 2
    assert len(calls) == expected + chain_and_trial


def test_what_was_kept_for_other_weights_is_not_used(alone, tmp_path, workspace):
    folder, results = alone
    shutil.copytree(folder / folders.UNFINISHED, tmp_path / folders.UNFINISHED)
    other = evaluated("evaluation.fid_split=both", "evaluation.split=both", "seed=2", folder=tmp_path)
    assert other.metrics["fid"] != results.metrics["fid"]
    assert other.about["weights_sha256"] != results.about["weights_sha256"]


def test_what_was_kept_under_another_protocol_is_not_used(alone, tmp_path, workspace):
    folder, results = alone
    shutil.copytree(folder / folders.UNFINISHED, tmp_path / folders.UNFINISHED)
    other = evaluated("evaluation.fid_split=both", "evaluation.metrics=[fid]", "sampler.steps=5", folder=tmp_path)
    assert other.metrics["fid"]["reference"] == results.metrics["fid"]["reference"]
    assert other.metrics["fid"]["value"] != results.metrics["fid"]["value"]
    assert other.about["weights_sha256"] == results.about["weights_sha256"]


def test_another_chunk_size_changes_rounding_only(workspace):
    values = []
    for chunk in (20, 33):
        p, _ = made(f"evaluation.chunk={chunk}")
        draw = generator(CPU, 0)
        x_T = torch.randn(20, 1, 8, 8, generator=draw)
        whole = x_T if chunk == 20 else torch.cat([x_T, torch.zeros(13, 1, 8, 8)])
        *_, last = build.sampler(compose([*SMALL, "sampler.eta=0.0"]))(p, whole, draw)
        values.append(last.x_t[:20])
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("T", "draws"), [(20, 1), (100, 2)])
def test_the_bound_is_that_of_the_mathematics(workspace, capsys, T, draws):
    """Chunks, padding, files and units around it change nothing: the same draws, by hand; of 100 steps x_1 has two."""
    small = (f"schedule.T={T}", "network.channels=8")
    p, evaluation = made(*small)
    images = to_unit(evaluation.images.split("test").__getitems__(list(range(40))))
    draw = [generator(CPU, 0, 2, k) for k in range(2)]
    chunks = [evaluate_bound(p, images[20 * k :][:20], draw[k], draws_of_x_1=draws) for k in range(2)]
    by_hand = torch.cat([chunk.nats for chunk in chunks])
    found = evaluated(*small, "evaluation.metrics=[bits_per_dim]", "evaluation.bits_per_dim.images=40")
    metric = found.metrics["bits_per_dim"]
    assert found.protocol["bound"].get("draws_of_x_1", 1) == draws
    assert f"40 test images x {T + draws - 1} = " in " ".join(capsys.readouterr().out.split())
    bits = by_hand.double() / (64 * math.log(2))
    assert metric["value"] == pytest.approx(float(bits.mean()), rel=1e-6)
    assert metric["stderr"] == pytest.approx(float(bits.std() / math.sqrt(40)), rel=1e-5)
    assert metric["value"] == pytest.approx(metric["rate"] + metric["distortion"], rel=1e-9)
    assert metric["n"] == 40
    prior, terms, squares = (
        torch.cat([getattr(chunk, part) for chunk in chunks]).double().numpy()
        for part in ("prior", "terms", "squared_error")
    )
    nats = 64 * math.log(2)
    assert metric["prior"] == pytest.approx(prior.mean() / nats, rel=1e-5)
    assert metric["distortion"] == pytest.approx(terms[:, 0].mean() / nats, rel=1e-5)
    left = [prior.mean() + terms[:, t:].sum(1).mean() for t in range(1, T + 1)]  # of the terms above t
    for name, expected in {
        "t": np.arange(1, T + 1),
        "term": terms.mean(0) / nats,
        "term_stderr": terms.std(0, ddof=1) / nats / math.sqrt(40),
        "rate_bits_per_dim": np.array(left) / nats,
        "rmse": 127.5 * np.sqrt(squares.mean(0)),
    }.items():
        assert found.curves[name] == pytest.approx(list(expected), rel=1e-4), name


def test_samples_are_those_of_the_sampler(alone):
    """Nothing is done to them but rounding to the nearest of 256 levels; chunk 5 is short."""
    p, evaluation = made()
    prepare_for_evaluation(p.network, bf16=False)
    for k, n in ((0, 20), (5, 1)):
        draw = generator(CPU, 0, 1, k)
        *_, last = evaluation.sampler(p, torch.randn((20, 1, 8, 8), generator=draw), draw, clip=True)
        levels = np.clip(np.rint((last.x_t.double().numpy() + 1) * 127.5), 0, 255)[:n]
        assert np.array_equal(kept(alone[0], "samples")[f"{k:06d}.npy"], levels)


class Faint(DDIM):
    """A sampler ends here in a state that is not its last estimate of x_0, as none of those that ship does."""

    def step(self, *arguments):
        return super().step(*arguments) / 2


def test_samples_are_the_last_states():
    p, _ = made()
    chunks = Chunks(20, 0, Rank(0, 1, CPU))
    samples = Samples(p, Faint(steps=4), (1, 8, 8), chunks, nullcontext).of(chunks.of(20)[0])
    draw = generator(CPU, 0, 1, 0)
    *_, last = Faint(steps=4)(p, torch.randn((20, 1, 8, 8), generator=draw), draw, clip=True)
    assert torch.equal(samples.float(), ((last.x_t + 1) * 127.5).round().clamp(0, 255))
    assert samples.min() > 60  # half of what is clipped to [-1, 1]


def test_the_picture_of_the_process_shows_states_of_one_chain_from_noise_to_sample():
    p, evaluation = made("sampler.steps=20")
    shown = Samples(p, evaluation.sampler, (1, 8, 8), Chunks(20, 0, Rank(0, 1, CPU)), nullcontext).chain()
    draw = generator(CPU, 0, 1, 0)
    x_T = torch.randn((6, 1, 8, 8), generator=draw)
    states = [x_T, *(state.x_t for state in evaluation.sampler(p, x_T, draw, clip=True))]
    places = [0, 3, 6, 9, 11, 13, 15, 17, 18, 19, 20]  # more and more of them towards the end
    assert len(shown) == len(places)
    for picture, k in zip(shown, places, strict=True):
        assert torch.equal(picture.float(), ((states[k] + 1) * 127.5).round().clamp(0, 255)), k


def test_draws_of_different_purposes_are_different():
    assert len({SAMPLES, BOUND, PILOT, ESTIMATE}) == 4


def test_both_splits_and_their_gap(alone):
    metrics = alone[1].metrics
    assert metrics["bits_per_dim"]["split"] == "test"
    assert metrics["bits_per_dim_train"]["split"] == "train"
    gap = metrics["bits_per_dim"]["value"] - metrics["bits_per_dim_train"]["value"]
    assert metrics["bits_per_dim_gap"]["value"] == pytest.approx(gap)
    assert metrics["fid"]["reference"] == "train"
    assert metrics["fid_test"]["reference"] == "test"
    assert metrics["fid"]["reference_n"] == 1500
    error = math.hypot(metrics["bits_per_dim"]["stderr"], metrics["bits_per_dim_train"]["stderr"])
    assert metrics["bits_per_dim_gap"]["stderr"] == pytest.approx(error)
    assert metrics["precision"]["reference_n"] == metrics["kid"]["reference_n"] == 101
    assert 0 <= metrics["precision"]["value"] <= 1


def frechet_distance(a, b):
    """Heusel et al. 2017, in numpy: the trace of the root by eigenvalues of the product."""
    means, covariances = zip(*((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)), strict=True)
    roots = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    return float(
        ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1]) - 2 * np.sqrt(roots).sum()
    )


def test_real_images_are_held_against_the_other_split(alone):
    """The floor of README: as many real images as there are samples, never against their own split."""
    _, results = alone
    _, evaluation = made()
    images = {split: evaluation.images.split(split) for split in ("train", "test")}
    features = {
        split: evaluation.extractor(of.__getitems__(list(range(len(of))))).pool.double().numpy()
        for split, of in images.items()
    }
    for name, reference, shown in (("fid", "train", "test"), ("fid_test", "test", "train")):
        assert results.real[name]["reference"] == reference
        assert results.real[name]["n"] == 101
        by_hand = frechet_distance(features[shown][:101], features[reference])
        assert results.real[name]["value"] == pytest.approx(by_hand, rel=1e-3)
    score = InceptionScore()  # which is held against nothing: of those that train
    score.begin(64)
    score.update(evaluation.extractor(images["train"].__getitems__(list(range(101)))), torch.arange(101))
    expected = score.compute(101)["inception_score"]
    for part, value in {**expected, "n": 101, "splits": 10}.items():
        assert results.real["inception_score"][part] == pytest.approx(value, rel=1e-4)


def test_an_estimate_is_near_the_bound_and_says_what_it_is(alone, workspace, capsys):
    found = evaluated("evaluation.metrics=[bits_per_dim]", "evaluation.bits_per_dim.evaluations=12")
    metric, full = found.metrics["bits_per_dim"], alone[1].metrics["bits_per_dim"]
    assert metric["evaluations"] == 12
    assert metric["value"] == pytest.approx(metric["rate"] + metric["distortion"], rel=1e-6)
    assert metric["prior"] == pytest.approx(full["prior"], rel=1e-5)
    assert abs(metric["value"] - full["value"]) < 4 * math.hypot(metric["stderr_of_estimate"], 0.01)
    found.print()
    assert "unbiased estimate" in " ".join(capsys.readouterr().out.split())
    assert found.protocol["fingerprint"] != alone[1].protocol["fingerprint"]


def test_the_error_of_an_estimate_is_told_by_its_two_halves(workspace):
    """The mean of two independent draws has half the deviation of their difference; here over 40 images."""
    settings = ["evaluation.bits_per_dim.images=40", "evaluation.bits_per_dim.evaluations=12"]
    p, evaluation = made()
    images = to_unit(evaluation.images.split("test").__getitems__(list(range(40))))
    chunks = (images[:20], images[20:])
    pilot, half = budget.split_budget(12)
    explored = [budget.explore(p, x_0, pilot, generator(CPU, 0, 3, k)) for k, x_0 in enumerate(chunks)]
    design = budget.Design.of(budget.Visits(*map(torch.cat, zip(*explored, strict=True))), p.q.T)
    found = [budget.estimate(p, x_0, design, half, generator(CPU, 0, 4, k)) for k, x_0 in enumerate(chunks)]
    halves = torch.cat([each.distortion_nats + each.rate_nats for each in found]).double().numpy()
    difference = (halves[:, 0] - halves[:, 1]) / (64 * math.log(2))
    metric = evaluated("evaluation.metrics=[bits_per_dim]", *settings).metrics["bits_per_dim"]
    assert metric["stderr_of_estimate"] == pytest.approx(math.hypot(*difference) / 2 / 40, rel=1e-4)


@pytest.mark.slow
def test_the_error_of_an_estimate_is_the_deviation_of_repeated_ones(workspace):
    """Over 16 seeds the deviation is known to 18 %: three of these are allowed."""
    settings = ["evaluation.metrics=[bits_per_dim]", "evaluation.bits_per_dim.evaluations=8", "network.channels=8"]
    found = [evaluated(*settings, f"evaluation.seed={k}").metrics["bits_per_dim"] for k in range(16)]
    deviation = np.std([each["value"] for each in found], ddof=1)
    stated = math.sqrt(np.mean([each["stderr_of_estimate"] ** 2 for each in found]))
    assert 1 / 1.55 < stated / deviation < 1.55


@pytest.mark.slow
def test_an_estimate_outlines_the_curves_of_the_bound(workspace):
    """At every t: the term, the rate from there on and the error of the x_0 estimate."""
    settings = ["schedule.T=100", "evaluation.metrics=[bits_per_dim]"]
    whole = evaluated(*settings).curves
    outlined = evaluated(*settings, "evaluation.bits_per_dim.evaluations=100").curves
    assert outlined.keys() == whole.keys()
    for name, tolerance in (("t", 0), ("term", 0.15), ("rate_bits_per_dim", 0.05), ("rmse", 0.05)):
        ours, theirs = (np.array(curves[name]) for curves in (outlined, whole))
        assert ours.shape == (100,)
        assert np.median(np.abs(ours / theirs - 1)) <= tolerance, name
        assert abs(ours[0] / theirs[0] - 1) <= tolerance, name
    assert 0 < np.median(outlined["term_stderr"]) < np.median(outlined["term"])


def test_bfloat16_is_near_float32(workspace):
    """Images and points: the network computes in it, and nothing else."""
    for settings, metric, near in (
        (["evaluation.metrics=[fid,bits_per_dim]"], "bits_per_dim", 0.01),
        (["recipe=swiss_roll", "evaluation.metrics=[bound_nats]", "evaluation.chunk=50", "network.channels=16"],
         "bound_nats", 0.05),
    ):  # fmt: skip
        wide, narrow = (
            evaluated(*settings, "evaluation.bits_per_dim.images=20", f"evaluation.precision={precision}")
            for precision in ("32-true", "bf16-mixed")
        )
        assert narrow.metrics[metric]["value"] == pytest.approx(wide.metrics[metric]["value"], rel=near)
        assert narrow.metrics[metric]["value"] != wide.metrics[metric]["value"]
        assert narrow.protocol["fingerprint"] != wide.protocol["fingerprint"]
        assert narrow.about["weights_sha256"] == wide.about["weights_sha256"]


@pytest.mark.parametrize("evaluations", ["null", "9"])
def test_every_evaluation_of_the_network_is_in_the_precision_asked_for(evaluations, workspace):
    asked = f"evaluation.bits_per_dim={{images: 20, evaluations: {evaluations}}}"
    small = ["network.channels=8", "evaluation.num_samples=20", "evaluation.metrics=[fid,bits_per_dim]"]
    p, evaluation = made(*small, asked, "evaluation.precision=bf16-mixed")
    narrow = []
    p.network.register_forward_hook(lambda *_: narrow.append(torch.is_autocast_enabled("cpu")))
    evaluation.run(p, Rank(0, 1, CPU), {})
    steps, trial = 4, 2
    assert narrow == [True] * (trial + 2 * steps + (20 if evaluations == "null" else 9))  # a chunk and the chain


def test_statistics_of_the_reference_are_computed_once(workspace):
    statistics = workspace / "runs" / "statistics"
    fid = "evaluation.metrics=[fid]"
    first = evaluated(fid).metrics
    (file,) = statistics.iterdir()
    before = file.stat().st_mtime_ns
    assert evaluated(fid).metrics == first
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:100])
    assert evaluated(fid).metrics == first
    evaluated(fid, "evaluation.chunk=30")
    assert len(list(statistics.iterdir())) == 2


def test_statistics_of_other_images_and_other_features_are_others(workspace, monkeypatch):
    fid, kept = "evaluation.metrics=[fid]", workspace / "runs" / "statistics"
    few = [fid, "evaluation.num_samples=2"]
    evaluated(*few, "evaluation.fid_split=test")
    monkeypatch.setattr(Digits, "state", "a file of the same name and size, written anew")
    evaluated(*few, "evaluation.fid_split=test")
    assert len(list(kept.iterdir())) == 2
    evaluated(*few, "evaluation.fid_split=train")
    assert len(list(kept.iterdir())) == 3
    p, evaluation = made(*few, "evaluation.fid_split=test")
    evaluation.extractor.protocol["weights"] = "others under the same name"
    evaluation.run(p, Rank(0, 1, CPU), {})
    assert len(list(kept.iterdir())) == 4


def test_samples_that_are_not_numbers_are_not_measured():
    """They would be black pictures, and have metrics."""
    p, evaluation = made("evaluation.metrics=[fid]")
    next(p.network.parameters()).fill_(math.nan)
    with pytest.raises(RunFailedError, match=r"nothing is measured: 20 of 20 samples are not numbers \(nan\)"):
        evaluation.run(p, Rank(0, 1, CPU), {})
    with pytest.raises(ValueError, match="2 of 2 samples are not numbers"):
        sample(p, (2, 1, 8, 8), DDIM(4))
