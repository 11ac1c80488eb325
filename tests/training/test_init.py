"""A run that begins with a checkpoint's weights: its first loss is theirs, its model is theirs, all else is its own."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from omegaconf import OmegaConf
from peer_networks import randomise
from PIL import Image
from random_checkpoint import saved
from torture import content, metrics

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.commands.export import export
from ddpm.commands.train import train
from ddpm.config.errors import RequestError
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import quote_paths
from ddpm.config.initial import compose_run
from ddpm.sweep.work import WORKS

T, SEED, BATCH, N = 12, 3, 8, 20
MODEL = [
    "prediction=eps",
    "schedule=linear",
    "network.channels=8",
    "network.groups=4",
    "network.attention_resolutions=[4]",
    f"schedule.T={T}",
    "schedule.beta_T=0.3",
    "variance=fixed_small",
    "sampler.steps=5",
]
OWN = [
    *("data=folder", "data.path=pictures", "data.size=[8,8]", "data.channels=1", "logger=csv", f"seed={SEED}"),
    *(f"loader.batch_size={BATCH}", "sampler.steps=3", "max_steps=1", "ema.decay=0.75", "optimizer.anneal=false"),
    *("optimizer.warmup=0", "every={log: 1, validation: 9, samples: 9, checkpoint: 9}", "out=run"),
]


@pytest.fixture
def pictures(workspace):
    """Levels [n, h, w, c] of the pictures to train on, by what the folder `pictures` then holds; 20 and 10 of them."""

    def drawn(size, channels):
        draw = np.random.default_rng(0)
        levels = {}
        for split, n in (("train", N), ("test", 10)):
            (workspace / "pictures" / split).mkdir(parents=True)
            levels[split] = draw.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
            for i, image in enumerate(levels[split]):
                Image.fromarray(image.squeeze()).save(workspace / "pictures" / split / f"{i:02}.png")
        return levels["train"]

    return drawn


def start(*overrides):
    train(quote_paths(overrides))


def draws(*key):
    """The project's rule of streams, written out."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)


def first_loss(network, levels, betas):
    """||eps - eps_theta(x_t, t)||^2 of the run's first batch; `network` counts t from 0."""
    levels = levels[torch.randperm(N, generator=draws(SEED, 0))[:BATCH].numpy()].transpose(0, 3, 1, 2)
    x_0 = torch.from_numpy(levels.astype(np.float32)) / 127.5 - 1
    draw = draws(SEED, 0)
    t = torch.randint(1, len(betas) + 1, (BATCH,), generator=draw)
    noise = torch.randn(x_0.shape, generator=draw)
    alpha_bar = torch.from_numpy(np.cumprod(1 - betas))[t - 1].float().view(-1, 1, 1, 1)
    with torch.no_grad():
        out = network(alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise, t - 1)
    return float((noise - out).square().mean())


def logged(folder, key="train/loss"):
    return float(metrics(folder)[1][key])


def weights_of(folder, prefix):
    state = content(folder)["state_dict"]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def test_the_first_loss_is_that_of_the_checkpoint_s_averaged_weights(workspace, pictures, capsys):
    """The file holds averaged weights alone: a run that looked for others would not find them."""
    levels = pictures(8, 1)
    saved("ours.ckpt", *MODEL)
    start("init=ours.ckpt", *OWN)
    from ddpm import load

    assert logged(workspace / "run") == pytest.approx(
        first_loss(load("ours.ckpt").network, levels, np.linspace(1e-4, 0.3, T)), rel=1e-4
    )
    assert "begins with the weights of" in capsys.readouterr().out
    before = checkpoint.load("ours.ckpt").weights
    after, average = (weights_of(workspace / "run", f"{which}.network.") for which in ("p", "p_ema"))
    assert after.keys() == before.keys() == average.keys()
    for key, value in before.items():
        assert not torch.equal(after[key], value), key  # it has been trained
        torch.testing.assert_close(average[key], 0.75 * value + 0.25 * after[key], msg=key)
    assert content(workspace / "run")["global_step"] == 1


def test_the_model_is_the_checkpoint_s_and_the_rest_the_run_s(workspace, pictures):
    pictures(8, 1)
    own = ("optimizer.lr=0.5", "seed=9", "sampler=ddim", "ema.decay=0.1")
    saved("ours.ckpt", "prediction=v", *MODEL[1:], *own)
    start("init=ours.ckpt", *OWN, "weighting=min_snr", "prediction=v", f"schedule.T={T}", "network.dropout=0.1")
    config = OmegaConf.load("run/config.yaml")
    theirs = checkpoint.load("ours.ckpt").config
    assert config.network == {**theirs["network"], "dropout": 0.1}
    for section in ("schedule", "prediction", "variance"):
        assert config[section] == theirs[section]
        assert config.choices[section] == theirs["choices"][section]
    assert (config.choices.data, config.choices.weighting, config.seed) == ("folder", "min_snr", SEED)
    assert (config.optimizer.lr, config.ema.decay, config.choices.sampler) == (5e-3, 0.75, "dpm_solver_sde")
    assert config.init == "ours.ckpt"


def test_a_diffusers_folder_is_begun_with_in_diffusers_own_loss(workspace, pictures):
    """The loss is computed by their network; the run has its shape, from its config.json."""
    levels = pictures(32, 3)
    theirs = UNet2DModel(
        sample_size=32,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    randomise(theirs, seed=1).save_pretrained("theirs")
    DDPMScheduler(num_train_timesteps=T, variance_type="fixed_large").save_pretrained("theirs")
    start("init=theirs", *OWN, "data.size=[32,32]", "data.channels=3", "schedule=linear", "network.dropout=0.0")
    expected = first_loss(lambda x, t: theirs(x, t).sample, levels, np.linspace(1e-4, 0.02, T))
    assert logged(workspace / "run") == pytest.approx(expected, rel=1e-4)
    config = OmegaConf.load("run/config.yaml")
    assert (config.network.channels, config.network.frequency_shift, config.choices.variance) == (8, 1, "fixed_large")
    assert config.choices.recipe == "digits"  # of the run itself


def test_what_another_codebase_s_file_states_is_not_contradicted(workspace, pictures):
    pictures(8, 1)
    saved("ours.ckpt", *MODEL)
    export(["ckpt=ours.ckpt", "to=theirs"])
    with pytest.raises(RequestError, match=r"schedule.T cannot change: .* states schedule.T=12"):
        start("init=theirs", *OWN, "schedule.T=20")
    assert not (workspace / "run").exists()


def test_other_sizes_of_images_have_attention_where_the_weights_have_it(workspace, pictures):
    levels = pictures(16, 1)
    saved("ours.ckpt", *MODEL)
    with pytest.raises(RequestError, match=r"data of shape 1x16x16 .*network.attention_resolutions=.*unexpected"):
        start("init=ours.ckpt", *OWN, "data.size=[16,16]", "network.attention_resolutions=[]")
    assert not (workspace / "run").exists()
    start("init=ours.ckpt", *OWN, "data.size=[16,16]", "network.attention_resolutions=[8]")
    from ddpm import load

    network = load("ours.ckpt").network
    assert logged(workspace / "run") == pytest.approx(first_loss(network, levels, np.linspace(1e-4, 0.3, T)), rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prediction=x0"], "prediction=x0: the model of init=ours.ckpt has prediction=eps"),
        (["schedule.T=13"], "schedule.T=13: the model of init=ours.ckpt has schedule.T=12"),
        (["schedule=cosine"], "has schedule=linear"),
        (["variance=fixed_large"], "has variance=fixed_small"),
        (["network=iddpm"], "has network=unet"),
        (["network.channels=16"], "has network.channels=8"),
        (["++network.heads=2"], "network.heads=2: the model of init=ours.ckpt has network.heads=null"),
        (["experiment=table2_eps_simple"], "trained from nothing"),
        (["data.channels=3"], "does not fit data of shape 3x8x8 .*of another shape"),
        (["objective=hybrid"], "variance=fixed_small is fixed"),
        (["sampler.steps=13"], "exceeds schedule.T=12"),
        (["init=nowhere.ckpt"], "nowhere.ckpt does not exist"),
        (["init=hf://nobody"], "not of the form"),
    ],
)
def test_what_does_not_agree_is_one_line_and_nothing_written(workspace, pictures, overrides, message):
    pictures(8, 1)
    saved("ours.ckpt", *MODEL)
    with pytest.raises(RequestError, match=message) as refusal:
        start("init=ours.ckpt", *OWN, *overrides)
    assert "\n" not in str(refusal.value)
    assert not (workspace / "run").exists()


def test_a_learned_variance_asks_for_its_objective(workspace, pictures):
    pictures(8, 1)
    saved("ours.ckpt", *MODEL, "variance=learned_range", "objective=hybrid")
    with pytest.raises(RequestError, match="objective=simple gives a learned variance no gradient"):
        start("init=ours.ckpt", *OWN)
    start("init=ours.ckpt", *OWN, "objective=hybrid")
    assert OmegaConf.load("run/config.yaml").choices.variance == "learned_range"
    WORKS["train"].compose(["init='ours.ckpt'", "objective=hybrid"])  # a sweep leaves the question to its cells


@pytest.mark.parametrize("again", [["resume=run"], ["init=ours.ckpt", *OWN, "resume=auto"]])
def test_resuming_needs_no_checkpoint_to_begin_with(workspace, pictures, again):
    pictures(8, 1)
    saved("ours.ckpt", *MODEL)
    start("init=ours.ckpt", *OWN, "max_steps=3", "out=whole")
    start("init=ours.ckpt", *OWN)
    (workspace / "ours.ckpt").unlink()
    start(*again, "max_steps=3")
    assert content(workspace / "run")["global_step"] == 3
    run, whole = (weights_of(workspace / name, "p.") for name in ("run", "whole"))
    for key, value in whole.items():
        assert torch.equal(run[key], value), key


def test_a_run_that_was_cut_off_before_its_first_checkpoint_begins_there_again(workspace, pictures):
    pictures(8, 1)
    saved("ours.ckpt", *MODEL)
    start("init=ours.ckpt", *OWN)
    loss = logged(workspace / "run")
    for file in (workspace / "run" / "checkpoints").iterdir():
        file.unlink()
    (workspace / "run" / "metrics.csv").unlink()
    start("resume=run")
    assert logged(workspace / "run") == loss
    with pytest.raises(RequestError, match=r"init=other.ckpt \(was ours.ckpt\): that would be another run"):
        start("resume=run", "init=other.ckpt")


def test_a_stranger_s_file_says_the_model_and_nothing_else(workspace, pictures, capsys):
    pictures(8, 1)
    saved("ours.ckpt", *MODEL)
    foreign = torch.load("ours.ckpt", weights_only=True)
    foreign["config"] |= {"out": "/elsewhere", "init": "theirs.ckpt", "seed": 99}
    foreign["config"]["data"]["root"] = "/elsewhere"
    foreign["config"]["trainer"]["devices"] = 77
    torch.save(foreign, "ours.ckpt")
    start("init=ours.ckpt", *OWN)
    text = (workspace / "run" / "config.yaml").read_text()
    assert not [word for word in ("/elsewhere", "theirs.ckpt", "devices: 77", "seed: 99") if word in text]
    for message, key, value in [
        ("interpolation", "T", "${oc.env:HOME}"),
        ("not one of conf/'s targets", "_target_", "os.system"),
    ]:
        forged = json.loads(json.dumps(foreign["config"]))
        forged["schedule"][key] = value
        torch.save({**foreign, "config": forged}, "forged.ckpt")
        with pytest.raises(RequestError, match=message):
            start("init=forged.ckpt", *OWN, "out=forged")
    assert not (workspace / "forged").exists()


def test_nothing_is_held_against_values_of_runs_that_began_with_nothing(workspace):
    from ddpm.config.compose import compose
    from ddpm.report import published

    config = compose(["recipe=cifar10"])
    entry = {"fid": {"value": 3.17}}
    assert published.compare(config, entry, config.max_steps)[0]["verdict"] == "PASS"
    config.init = "ours.ckpt"
    assert "init=ours.ckpt" in published.compare(config, entry, config.max_steps)[0]["verdict"]


def test_of_two_checkpoints_the_last_that_is_said_counts():
    """A second init= takes the place of the first, as a second value of any setting does."""
    asked = []

    def config_of(path):
        asked.append(path)
        raise RequestError("there is none")

    with pytest.raises(RequestError, match="there is none"):
        compose_run(["init=first.ckpt", "seed=3", "init=second.ckpt"], config_of)
    assert asked == ["second.ckpt"]


def test_of_another_codebase_s_file_of_few_steps_the_model_alone_is_taken(workspace):
    saved("ours.ckpt", "schedule=linear", "prediction=eps", "schedule.T=20", "sampler=ancestral", "sampler.steps=5")
    export(["ckpt=ours.ckpt", "to=theirs"])
    config = compose_run(["init=theirs", "recipe=digits", "sampler.steps=9"], lambda path: checkpoint.load(path).config)
    assert (config.schedule.T, config.choices.prediction, config.sampler.steps) == (20, "eps", 9)
    asked = ["sampler.steps=9", "guidance=auto", "guidance.weak=theirs"]
    config = compose_evaluation(checkpoint.load("theirs").config, asked)
    assert build.guidance(config, build.dataset(config)).evaluations == 2
