"""Whatever is typed or handed over: exit code 2, one line that says what and what to do, and nothing written."""

import io
import json
import os
import pickle
import random
import shutil
import signal
import sys
import zipfile

import pytest
import torch
import yaml
from commands import Fork
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from random_checkpoint import saved

from ddpm.__main__ import start
from ddpm.checkpoints import checkpoint
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.grammar import parse, quote_paths
from ddpm.config.saved import compose_saved
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.schedule import cosine, linear
from ddpm.training import resume
from ddpm.training.checkpointing import Signals

TRAIN = {
    "objectiv=vlb": "did you mean objective",
    "--config-dir=nowhere": "nowhere is not a folder",
    "--config-dir=empty": "holds no group: it needs a folder empty/GROUP",
    "data=digits --config-dir": "needs a folder",
    "objective=vbl": "did you mean vlb",
    "objective=simple,vlb": "add -m",
    "objective=": "objective",
    "recipe=imagenet": "options:",
    "experiment=table2": "options:",
    "data=cifar": "did you mean cifar10",
    "network=transformer": "options: iddpm, mlp, unet",
    "logger=mlflow": "options: csv, tensorboard, wandb",
    "logger=[wandb,tensorbord]": "did you mean tensorboard",
    "logger=[]": "options: csv, tensorboard, wandb",
    "logger=null": "logger=null does not exist",
    "logger.wandb.checkpoint=last": "true or false",
    "objective=[simple,vlb]": "takes one option",
    "debug=fast": "options: smoke",
    "--wat": "unknown flag",
    "-x": "unknown flag",
    "max_steps": "KEY=VALUE",
    "=3": "cannot read",
    "max_steps==3": "cannot read",
    "max_steps=[1": "cannot read",
    "max_steps={": "cannot read",
    "max_steps=0": "at least 1",
    "max_steps=-1": "at least 1",
    "name=latest": "is a folder that runs/ has already",
    "name=Sweeps/mine": "is a folder that runs/ has already",
    "name=./latest": "must be a text that can name a folder",
    "name=.": "must be a text that can name a folder",
    "validation.metrics=null": "must be a list, as validation.metrics=[fid",
    "evaluation.metrics=fid": "must be a list, as evaluation.metrics=[fid",
    "data=folder data.path=/x/${oc.env:HOME}": "a path that holds ${ cannot be used",
    "max_steps=1.5": "whole number",
    "max_steps=1e-3": "whole number",
    "max_steps=lots": "whole number",
    "max_steps=null": "max_steps=null must be a whole number",
    "max_steps=true": "max_steps=true must be a whole number",
    "max_steps=${seed}x": "whole number",
    "seed=-1": "at least 0",
    "seed=": "whole number",
    "loader.batch_size=0": "at least 1",
    "loader.batch_size=5000": "1500 training examples",
    "loader.num_workers=-1": "at least 0",
    "evaluation.split=dev": "train, test or both",
    "evaluation.chunk=0": "at least 1",
    "evaluate_after=true evaluation.kid.subsets=0": "at least 1",
    "data=folder": "data.path",
    "data.path=pictures": "data=folder or",
    "data.train_size=100": "data.train_size belongs to data=swiss_roll: add data=swiss_roll",
    "data=folder data.path=nowhere": "nowhere",
    "data=folder data.path=empty": "empty",
    "recipe=own": "data.path=FOLDER_OR_ARCHIVE",
    "recipe=own data.path=empty": "no pictures in empty",
    "recipe=own data.path=alone": "has 1 pictures, too few",
    "recipe=own data.path=copies": "holds one picture, 5 times",
    "recipe=own data.path=unsorted size=16": "which are 8x8: use size=8",
    "recipe=own data.path=unsorted size=7": "use size=6 or size=8",
    "recipe=own data.path=unsorted budget=soon": "90s, 10min, 2h or 1d",
    "recipe=own data.path=unsorted budget=2s": "too short here for pictures of 8x8: use budget=",
    "recipe=own data.path=unsorted trainer.devices=2": "use trainer.devices=1",
    "-m recipe=own data.path=unsorted size=4,8": "start these one by one",
    "recipe=own data.path=unsorted out=run": "is not empty",
    "budget=2h": "budget belongs to recipe=own: add recipe=own",
    "schedule.T=1": "at least 2",
    "schedule.T=ten": "whole number",
    "schedule=linear schedule.beta_T=2.0": "beta",
    "schedule.snr_scale=0.0": "snr_scale=0.0 must be a positive number",
    "schedule.snr_scale=big": "snr_scale=big is not a number",
    "network.patch_size=0": "whole number of at least 1",
    "network.patch_size=3": "does not divide into patches of 3x3",
    "schedule=linear schedule.beta_1=-1.0": "beta",
    "sampler.steps=0": "at least 1",
    "sampler.steps=1001": "use at most",
    "sampler.eta=2.0": "0 is deterministic",
    "sampler=ancestral sampler.spacing=even": "uniform, quadratic",
    "sampler=ancestral sampler.eta=0": "sampler.eta",
    "recipe=swiss_roll experiment=iddpm_4k_cosine_simple": "MLP has no setting dropout",
    "network.channels=33": "channels=33",
    "network.channels=0": "at least 1",
    "network.channels=1000000": "at most 65536",
    "network.channel_mult=[1,2,2,2,2]": "8x8",
    "network.depth=3": "network.depth",
    "network.dropout=2.0": "dropout",
    "network=mlp": "network=unet",
    "data=swiss_roll": "network=mlp",
    "recipe=photos data.size=[16,200]": "from 1 to [423, 128]",
    "recipe=photos data.size=null": "size=null is not a whole number or a list",
    "data=folder data.path=unsorted data.background=1.5": "background=1.5 is not a whole number or a list",
    "recipe=photos data.size=[18,15]": "use 18x14 or 18x16",
    "recipe=photos evaluate_after=true features=digits": "features=random",
    "recipe=swiss_roll condition=label": "condition=none",
    "data=folder data.path=unsorted condition=label": "has no classes",
    "condition=label condition.classes=5": "labels are 0..4",
    "condition=label condition.classes=0": "at least 1",
    "condition=label condition.drop=1.0": "[0, 1)",
    "condition=label condition.drop=-0.1": "[0, 1)",
    "condition=labels": "did you mean label",
    "condition=image condition.factor=3": "does not divide 8x8",
    "condition=image condition.factor=1": "at least 2",
    "condition=image condition.source=gray": "is gray already",
    "condition=image condition.source=blur": "downsample, gray",
    "recipe=swiss_roll condition=image": "condition=none",
    "resume=run condition=label": "was none",
    "variance=learned": "objective=hybrid",
    "objective=hybrid": "variance=learned_range",
    "objective=vlb weighting=min_snr": "weighting=none",
    "optimizer.lr=0": "positive",
    "optimizer.lr=.nan": "positive",
    "optimizer.lr=.inf": "positive",
    "optimizer.lr=fast": "positive",
    "optimizer.warmup=-1": "at least 0",
    "optimizer.momentum=1": "optimizer.momentum",
    "+optimizer.momentum=1": "optimizer.momentum",
    "optimizer=null": "optimizer",
    "ema.decay=1": "[0, 1)",
    "ema.decay=-0.1": "[0, 1)",
    "ema=0.05": "options: exponential, posthoc",
    "ema.lengths=0.05": "a list of numbers",
    "ema.lengths=[[0.05]]": "from 0.005 to 0.288",
    "ema.lengths=[0.05,0.05]": "twice",
    "ema.lengths=[0.05,0.3]": "from 0.005 to 0.288",
    "ema.lengths=[wide]": "from 0.005 to 0.288",
    "resume=run ema=posthoc": "was exponential",
    "every.log=0": "at least 1",
    "every.checkpoint=never": "whole number",
    "every.metrics=0": "at least 1",
    "every.metrics=500": "a multiple of every.validation=400",
    "every.metrics=400 validation.metrics=[fdi]": "validation.metrics: fdi unknown",
    "every.metrics=400 validation.metrics=[]": "validation.metrics is empty",
    "every.metrics=400 validation.metrics=[fid,bits_per_dim]": "leave it out",
    "every.metrics=400 validation.num_samples=9 validation.metrics=[inception_score]": "validation.num_samples=9: ",
    "every.metrics=400 features=inception": "features.weights",
    "recipe=swiss_roll every.metrics=500": "validation.metrics: fid measures images",
    "best.metric=fid": "only with every.metrics=STEPS",
    "best.metric=bund": "did you mean bound",
    "stop.patience=0": "at least 1",
    "stop.patience=soon": "whole number",
    "stop.min_delta=-1": "at least 0",
    "stop.min_delta=.nan": "at least 0",
    "stop=3": "settings of its own",
    "which=best": "of the run folder that ckpt=, init=, resume= names",
    "resume=auto out=run which=best": "leave which=best away",
    "resume=run which=best": "run has no checkpoints/best.ckpt",
    "resume=run which=first": "last or best",
    "init=run which=best": "run has no checkpoints/best.ckpt",
    "resume=monitored max_steps=2": "monitored/checkpoints/last.ckpt is refused: what it says of the best validation",
    "trainer.accumulate=129": "use 129 at least",
    "trainer.devices=8 loader.batch_size=7": "7 is too few for 8 processes",
    "trainer.num_nodes=3 trainer.devices=2 loader.batch_size=5": "5 is too few for 6 processes",
    "trainer.precision=bf16-true": "bf16-mixed",
    "trainer.precision=16-true": "bf16-mixed",
    "trainer.precision=float": "precision=float is not possible",
    "trainer.devices=-3": "devices=-3",
    "trainer.devices=0": "devices=0",
    "trainer.accelerator=abacus": "Available names",
    "trainer.strategy=alone": "strategy=alone",
    "evaluate_after=true evaluation.metrics=[fdi]": "fdi",
    "evaluate_after=true evaluation.num_samples=1": "at least 2",
    "evaluate_after=true features=inception": "features.weights",
    "out=run": "is not empty",
    "out=/proc/nowhere": "/proc",
    "out=text.ckpt": "text.ckpt is a file, and no folder: choose another",
    "out=text.ckpt/run": "text.ckpt is a file",
    "recipe=own data.path=unsorted out=text.ckpt/run": "text.ckpt is a file",
    "init=nowhere": "does not exist",
    "init=empty": "not a run folder",
    "init=text.ckpt": "not a checkpoint",
    "init=code.ckpt": "refused",
    "init=environment.ckpt": "is an interpolation",
    "init=run prediction=mu": "has prediction=eps",
    "init=run experiment=table2_mu_simple": "trained from nothing",
    "init=run": "sampler.steps=100 exceeds schedule.T=20",
    "init=run objective=hybrid sampler.steps=5": "variance=learned_range",
    "-m init=run seed=1,1": "the same run twice",
    "resume=run init=run": "init=run (was null): that would be another run",
    "resume=nowhere": "does not exist",
    "resume=empty": "no config.yaml",
    "resume=text.ckpt": "no config.yaml",
    "resume=auto": "out=FOLDER",
    "resume=run out=elsewhere": "leave out=",
    "resume=run prediction=mu": "was eps",
    "resume=run network.channels=64": "was 32",
    "resume=run schedule.T=30": "was 20",
    "resume=run schedule=cosine": "was linear",
    "resume=run variance=fixed_small": "was fixed_large",
    "resume=run data=mnist network.channels=64": "was digits",
    "resume=run optimizer.lr=1": "optimizer.lr=1",
    "resume=run ema.decay=0.5": "was 0.98",
    "resume=run seed=2": "was 1",
    "resume=run loader.batch_size=32": "was 16",
    "resume=run trainer.precision=bf16-mixed": "was 32-true",
    "resume=run recipe=cifar10": "was digits",
    "resume=run experiment=table2_mu_simple": "a run keeps what it began with",
    "resume=run max_steps=1": "start a new run",
    "resume=run max_steps=7": "start a new run",
    "resume=auto out=run max_steps=7": "start a new run",
    "resume=auto out=run optimizer.lr=1": "that would be another run",
    "resume=auto out=run recipe=cifar10": "a run keeps what it began with",
    "resume=damaged": "cut short",
    "resume=hostile": "not one of conf",
    "resume=interpolated": "is an interpolation",
    "resume=python_yaml": "cannot be read",
    "resume=aliases": "refers to itself",
    "resume=list_yaml": "not a configuration",
    "resume=partial": "no section 'data'",
    "resume=linked": "leads out of",
    "+logger.wandb.color=red": "logger.wandb.color is no setting",
    "-m resume=run seed=1,2": "leave -m away",
    "-m resume=nowhere": "not a sweep's folder",
    "-m resume=sweep": "repeat the sweep's command",
    "resume=sweep": "add -m",
    "-m seed=1,1": "the same run twice",
    "-m optimizer.lr=interval(0.1,0.2)": "hydra/sweeper=optuna",
    "-m seed=1,2 hydra/launcher=jobs": "options: basic, joblib",
    "-m seed=1,2 hydra/sweeper=optima": "did you mean optuna",
    "-m seed=1,2 hydra/launcher=submitit_slurm": "no sbatch here",
    "-m seed=1,2 hydra/launcher=submitit_local hydra.launcher.submitit_folder=jobs": "finds its jobs again",
    "-m seed=1,2 leave_running=true": "needs hydra/launcher=submitit_slurm",
    "-m seed=1,2 leave_running=perhaps": "true or false",
    "-m seed=1,2 hydra/launcher=joblib hydra.launcher.n_job=2": "n_job",
    "-m seed=1,2 hydra/launcher=joblib hydra.launcher.n_jobs=1,2": "not its own",
    "-m seed=1 hydra/sweeper=optuna": "nothing to search",
    "-m seed=1,2 hydra/sweeper=optuna evaluate_after=false": "evaluate_after=true",
    "-m seed=1,2 hydra/sweeper=optuna optimized_metric=fdi": "evaluation.metrics",
    "-m seed=1,2 hydra/sweeper=optuna optimized_metric=inception_score": "direction=maximize",
    "-m optimizer.lr=interval(-1,1) hydra/sweeper=optuna": "positive",
    "-m variance=fixed_large,lerned": "did you mean learned",
    "-m seed=1,2 objective=simple,": "cannot read",
    "-m out=run": "a sweep makes its own",
    "hydra.run.dir=run": "has no effect here",
    "-m seed=1,2 hydra.sweep.dir=run": "has no effect here",
    "-m objective=simpel,vlb": "did you mean simple",
    "-m experiment=glob(nothing*)": "matches nothing",
    "-m variance=learned,learned_range": "every cell",
    "-m seed=1,2 --wat": "unknown flag",
    "-m seed=1,2 logger=[wandb,tensorbord]": "did you mean tensorboard",
}
EVALUATE = {
    "ckpt=run ema=0.05": "its exponential average alone; train with ema=posthoc",
    "": "ckpt= is missing",
    "ckpt=": "ckpt= is missing",
    "ckpt=nowhere": "does not exist",
    "ckpt=.": "not a run folder",
    "ckpt=empty": "not a run folder",
    "ckpt=run which=best": "run has no checkpoints/best.ckpt",
    "ckpt=run which=": "last or best",
    "ckpt=empty which=best": "ckpt=empty is none",
    "ckpt=half.ckpt which=best": "ckpt=half.ckpt is none",
    "ckpt=nowhere which=last": "does not exist",
    "ckpt=text.ckpt": "not a checkpoint",
    "ckpt=half.ckpt": "cut short",
    "ckpt=code.ckpt": "refused",
    "ckpt=legacy.ckpt": "not a checkpoint",
    "ckpt=bomb.ckpt": "compressed",
    "ckpt=vast.ckpt": "larger than the file",
    "ckpt=run keep=npz evaluation.metrics=[bits_per_dim]": "draws none",
    "ckpt=list.ckpt": "no known layout: it holds a list",
    "ckpt=kinds.ckpt": "wrong kind",
    "ckpt=loop.ckpt": "does not exist",
    "ckpt=target.ckpt": "not one of conf",
    "ckpt=lacking.ckpt": "no section 'schedule'",
    "ckpt=environment.ckpt": "is an interpolation",
    "ckpt=run objective=vlb": "checkpoint's",
    "ckpt=run metric=kid": "all are loaded",
    "ckpt=run condition=label": "checkpoint's",
    "ckpt=run guidance=cfg": "guidance=auto or guidance=none",
    "ckpt=run guidance=auto": "guidance.weak= is missing",
    "ckpt=run guidance=auto guidance.weak=nowhere": "does not exist",
    "ckpt=run guidance=auto guidance.weak=text.ckpt": "not a checkpoint",
    "ckpt=run guidance=auto guidance.weak=run guidance.scale=.nan": "number",
    "ckpt=run guidance=auto guidance.weak=run guidance.scale=much": "a number",
    "ckpt=run guidance=auto guidance.weak=run guidance.interval=[9,3]": "two t of 1..T",
    "ckpt=run guidance=auto guidance.weak=run guidance.interval=[9,300]": "goes beyond schedule.T=20",
    "ckpt=run guidance=auto guidance.weak=roll": "with other images",
    "ckpt=run wat=1": "there is no setting 'wat'",
    "ckpt=run network.chanels=8": "did you mean network.channels",
    "ckpt=run figures=[samples] figure.samples.label=3": "was told no classes",
    "ckpt=run figures=[samples] figure.samples.label=-3": "must be a class",
    "ckpt=run figures=[samples] figure.samples.label=some": "must be a class",
    "ckpt=run figures=[guidance]": "was told no classes",
    "ckpt=run figures=[guidance] figure.guidance.scales=[]": "list of numbers",
    "ckpt=run figures=[guidance] figure.guidance.labels=3": "list of classes",
    "ckpt=run seed=1,2": "several values",
    "ckpt=run evaluation.metrics=[fdi]": "fdi",
    "ckpt=run evaluation.metrics=[]": "is empty",
    "ckpt=run evaluation.num_samples=9": "10 or more",
    "ckpt=run evaluation.samples=3": "did you mean",
    "ckpt=run evaluation.precision=8-bit": "bf16-mixed",
    "ckpt=run features=inception": "features.weights",
    "ckpt=run sampler=dim": "did you mean ddim",
    "ckpt=run logger=[csv,wandbb]": "did you mean wandb",
    "ckpt=run sampler.steps=5000": "use at most",
    "ckpt=run sampler.eta=2.0": "0 is deterministic",
    "ckpt=run sampler=unipc sampler.steps=2": "must be at least 3, for this order",
    "ckpt=run sampler=deis sampler.steps=4": "must be at least 5, for this order",
    "ckpt=run sampler=dpm_solver sampler.order=4": "order=4 is not one of 2, 3",
    "ckpt=run sampler=dpm_solver_2s sampler.steps=2": "must be at least 3",
    "ckpt=run sampler=heun sampler.steps=2": "two for a step",
    "ckpt=run sampler=heun sampler.S_min=200.0": "leave nothing of the schedule",
    "ckpt=run sampler=sa_solver sampler.S_min=200.0 sampler.S_max=null": "leave nothing of the schedule",
    "ckpt=run sampler=sa_solver sampler.corrector=5": "corrector=5 is not one of 0, 1, 2, 3, 4",
    "ckpt=run sampler=sa_solver sampler.tau=-1.0": "0 is deterministic",
    "ckpt=run sampler=heun sampler.S_max=0.001": "leave nothing of the schedule",
    "ckpt=run sampler=heun sampler.S_min=3.0 sampler.S_max=2.0": "the first below the second",
    "ckpt=run sampler=heun sampler.S_churn=-1.0": "at least 0",
    "ckpt=run sampler.spacing=even": "uniform, quadratic, log_snr, karras",
    "ckpt=run sampler.times=nowhere.json": "nowhere.json",
    "ckpt=run sampler.times=empty": "empty",
    "ckpt=run sampler.times=text.ckpt": "no file of times",
    "ckpt=run sampler.steps=null sampler.times=rising.json": "do not descend from T=20",
    "ckpt=run sampler.steps=null sampler.times=late.json": "do not descend from T=20",
    "ckpt=run sampler.steps=null sampler.times=long.json": "times of T=40, and here T=20",
    "ckpt=run sampler.steps=null sampler.times=cosine.json": "another schedule",
    "ckpt=run sampler.steps=null sampler.times=half.json": "no file of times",
    "ckpt=run sampler.steps=7 sampler.times=good.json": "use steps=4",
    "ckpt=run sampler=deis sampler.steps=null sampler.times=good.json": "steps=4 must be at least 5, for this order",
    "ckpt=run sampler=heun sampler.steps=9 sampler.times=good.json": "use steps=7",
    "ckpt=run trainer.devices=-3": "devices=-3",
    "-m ckpt=run,other seed=1": "are of one checkpoint",
    "ckpt=run evaluation.metrics=fid": "must be a list",
    "ckpt=run out=empty/../run": "is not empty",
    "ckpt=run -x": "unknown flag",
}


REPORT = {
    "": "which runs?",
    "out=reports": "which runs?",
    "nowhere": "nowhere is not a folder",
    "text.ckpt": "is not a folder",
    "run nowhere": "nowhere is not a folder",
    "empty": "no run in empty",
    "run out=text.ckpt": "text.ckpt is a file",
    "run out=/proc/nowhere": "/proc",
    "run --wat": "unknown flag",
    "run to=reports": "to=reports is not a folder",
}


STEPS = {
    "ckpt=run": "steps= must be a whole number of at least 2",
    "steps=5": "ckpt= is missing",
    "ckpt=nowhere steps=5": "does not exist",
    "ckpt=run steps=1": "at least 2",
    "ckpt=run steps=few": "whole number",
    "ckpt=run steps=2000": "use at most",
    "ckpt=run steps=5 chains=1": "chains=1 must be",
    "ckpt=run steps=5 fine=5": "fine=5 must be more than steps=5",
    "ckpt=run steps=2 sampler=unipc": "must be at least 3, for this order",
    "ckpt=run steps=5 sampler=heun sampler.S_churn=9.0": "churn",
    "ckpt=run steps=5 to=nowhere/times.json": "a new file in a folder that is there",
    "ckpt=run steps=5 to=text.ckpt": "a new file",
    "ckpt=run steps=5 objective=vlb": "checkpoint's",
    "ckpt=run steps=5 sampler.steps=7": "sampler.steps= is what is learned here",
    "ckpt=run steps=5 sampler.times=good.json": "sampler.times= is what is learned here",
}
DIAGNOSE = {key: value for key, value in REPORT.items() if "out=" not in key and "to=" not in key}
INSPECT = {
    "": "data.path=FOLDER_OR_ARCHIVE",
    "data.path=empty": "no pictures in empty",
    "data.path=nowhere": "nowhere",
    "data.path=unsorted budget=2s": "use budget=",
    "data.path=unsorted out=run": "is not empty",
    "data.path=unsorted sizes=8": "did you mean",
    "recipe=digits": "recipe=own",
}


class Hostile:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A finished run of two steps, and what strangers might send."""
    cwd = tmp_path_factory.mktemp("user")
    small = ["experiment=table2_eps_simple", "debug=smoke", "network.channel_mult=[1]", "max_steps=2"]
    Fork("train.py", *small, "logger=csv", "out=run", cwd=cwd).wait()
    saved(cwd / "roll", "recipe=swiss_roll")
    (cwd / "empty").mkdir()
    a = ForwardProcess(linear(20)).alpha_bar.tolist()
    for name, T, times, alpha_bar in (
        ("good", 20, [20, 15, 7, 2], a),
        ("rising", 20, [20, 7, 15], a),
        ("late", 20, [15, 7, 2], a),
        ("long", 40, [40, 1], [*a] * 2),
        ("cosine", 20, [20, 15, 2], ForwardProcess(cosine(20)).alpha_bar.tolist()),
        ("half", 20, [20, 7.5, 1], {20: 1.0, 7.5: 1.0, 1: 1.0}),
    ):
        content = {"T": T, "times": times, "alpha_bar": [alpha_bar[t] for t in times]}
        (cwd / f"{name}.json").write_text(json.dumps(content))
    (cwd / "unsorted").mkdir()
    for k in range(20):
        Image.new("L", (8, 8), k).save(cwd / "unsorted" / f"{k}.png")
    for name, count in (("alone", 1), ("copies", 5)):
        (cwd / name).mkdir()
        for k in range(count):
            Image.new("L", (8, 8)).save(cwd / name / f"{k}.png")
    (cwd / "loop.ckpt").symlink_to("loop.ckpt")
    (cwd / "text.ckpt").write_text("not a checkpoint")
    last = cwd / "run/checkpoints/last.ckpt"
    (cwd / "half.ckpt").write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    ours = torch.load(last, weights_only=True)
    torch.save({**ours, "state_dict": Hostile(open, str(cwd / "was here"), "w")}, cwd / "code.ckpt")
    (cwd / "legacy.ckpt").write_bytes(pickle.dumps(Hostile(os.mkdir, str(cwd / "was here"))))
    shutil.copytree(cwd / "run", cwd / "monitored")
    torch.save({**ours, "monitor": {"best": "4"}}, cwd / "monitored/checkpoints/last.ckpt")
    torch.save([ours], cwd / "list.ckpt")
    torch.save({**ours, "state_dict": [1]}, cwd / "kinds.ckpt")
    torch.save({**ours, "state_dict": {"p_ema.network.w": torch.zeros(1).expand(10**13)}}, cwd / "vast.ckpt")
    with zipfile.ZipFile(last) as plain, zipfile.ZipFile(cwd / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
        bomb.writestr("archive/data/99999", bytes(1 << 26))
    config = ours["config"]
    torch.save(
        {**ours, "config": {**config, "sampler": {"_target_": "os.system", "command": "x"}}}, cwd / "target.ckpt"
    )
    torch.save({**ours, "config": {k: v for k, v in config.items() if k != "schedule"}}, cwd / "lacking.ckpt")
    vars_ = {**config, "schedule": {**config["schedule"], "T": "${oc.env:HOME}"}}
    torch.save({**ours, "config": vars_}, cwd / "environment.ckpt")
    for name, text in {
        "damaged": yaml.safe_dump(config),
        "hostile": yaml.safe_dump({**config, "network": {"_target_": "ddpm.data.digits.torch.load", "f": "x"}}),
        "interpolated": yaml.safe_dump({**config, "max_steps": "${oc.env:HOME}"}),
        "python_yaml": "seed: !!python/object/apply:os.mkdir ['was here']",
        "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "list_yaml": "[1, 2]",
        "partial": yaml.safe_dump({k: v for k, v in config.items() if k != "data"}),
        "linked": yaml.safe_dump(config),
    }.items():
        (cwd / name / "checkpoints").mkdir(parents=True)
        (cwd / name / "config.yaml").write_text(text)
        (cwd / name / ".lock").touch()
    (cwd / "sweep").mkdir()
    (cwd / "sweep/sweep.json").write_text('{"overrides"')
    (cwd / "damaged/checkpoints/last.ckpt").write_bytes((cwd / "half.ckpt").read_bytes())
    (cwd / "linked/metrics.csv").symlink_to("/etc/hostname")
    return cwd


@pytest.mark.parametrize(
    ("script", "request_", "message"),
    [
        pytest.param(script, *case, marks=[pytest.mark.slow] * (case[1] in [*cases.values()][:place]))
        for script, cases in (
            ("train", TRAIN),
            ("evaluate", EVALUATE),
            ("report", REPORT),
            ("diagnose", DIAGNOSE),
            ("steps", STEPS),
            ("inspect", INSPECT),
        )
        for place, case in enumerate(cases.items())  # slow is all but the first that has the same answer
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(workplace, monkeypatch, capsys, script, request_, message):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *request_.split()])
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *of: None if name == "sbatch" else which(name, *of))
    accepted = f"{request_} was accepted, and trains"  # for minutes, if it were let
    monkeypatch.setattr(Signals, "on_train_start", lambda *of: pytest.fail(accepted))
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    before = sorted((path, path.lstat().st_mtime_ns) for path in workplace.rglob("*") if path.is_file())
    try:
        with pytest.raises(SystemExit) as end:
            start(script)
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2, line
    assert line.startswith("error: ")
    assert message in line
    assert sorted((path, path.lstat().st_mtime_ns) for path in workplace.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize(
    "call", [(os.system, "touch here"), (open, "here", "w"), (eval, "open('here', 'w')"), (torch.load, "x"),
             (getattr, "os", "system"), (bytearray, 10**14), (compose, [])],
)  # fmt: skip
def test_no_pickle_is_executed(workspace, call):
    torch.save({"state_dict": Hostile(*call), "config": {}, "global_step": 1}, "hostile.ckpt")
    with pytest.raises(ValueError, match=r"hostile\.ckpt"):
        checkpoint.load("hostile.ckpt")
    assert [path.name for path in workspace.iterdir()] == ["hostile.ckpt"]


def test_a_tree_that_contains_itself_or_has_no_end_is_no_crash(workspace):
    content = {"state_dict": {}, "config": {}, "global_step": 1}
    content["state_dict"]["self"] = content
    torch.save(content, "cycle.ckpt")
    assert checkpoint.load("cycle.ckpt").step == 1
    deep = b"]" * 200_000 + b"a" * 199_999  # a list in a list in a list
    with zipfile.ZipFile("deep.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + deep + b".")
        archive.writestr("archive/version", "3")
    with pytest.raises(ValueError, match=r"deep\.ckpt"):
        checkpoint.load("deep.ckpt")


@pytest.fixture(scope="module")
def small():
    buffer = io.BytesIO()
    torch.save({"state_dict": {"w": torch.arange(9)}, "config": {"a": [1]}, "global_step": 3}, buffer)
    return buffer.getvalue()


def complained(kind, call):
    """What it complained of, if it did; any other exception is a failure."""
    try:
        call()
    except kind as error:
        return str(error)
    return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), data=st.data())
def test_no_damage_crashes_the_reader(small, tmp_path, seed, data):
    """Cut, overwritten, or noise: an error that names the file, or (of damage that no sum covers) the content."""
    dice, file = random.Random(seed), tmp_path / "x.ckpt"
    damaged = bytearray(small[: data.draw(st.integers(0, len(small)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
    file.write_bytes(bytes(damaged))
    complaint = complained(ValueError, lambda: checkpoint.load(file))
    assert complaint is None or str(file) in complaint


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin1")))
def test_no_configuration_crashes_the_reader(tmp_path, text):
    (tmp_path / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    complaint = complained(RequestError, lambda: compose_saved(resume.saved_config(tmp_path), []))
    assert complaint is not None
    assert "\n" not in complaint


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20))
def test_no_override_crashes_the_parser(text):
    for override in (text, f"seed={text}", f"data.path={text}", f"resume={text}"):
        assert "\n" not in (complained(RequestError, lambda o=override: parse(quote_paths([o]))) or "")
