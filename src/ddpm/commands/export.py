"""A checkpoint for other tools.

    ddpm export ckpt=PATH to=DIR [format=diffusers|safetensors] [push=hf://OWNER/NAME [private=true]] [KEY=VALUE] ...

`ckpt` is whatever evaluate.py takes, `which=best` included, with the same settings for what a foreign file leaves open;
DIR is new or empty. `diffusers` makes a folder for DDPMPipeline.from_pretrained; `safetensors` the averaged weights and
their configuration in one file, which `ckpt=` reads. Both come with a model card that holds the last evaluation of this
checkpoint. `push` sends the folder to the Hugging Face Hub, as a commit to a model that is there or to a new one.
"""

from pathlib import Path

from ddpm import build
from ddpm.checkpoints import card, checkpoint, hub
from ddpm.checkpoints import export as formats
from ddpm.config.errors import RequestError, request_errors
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import path_of, quote_paths, split_keys
from ddpm.config.which import with_chosen
from ddpm.files import whole_content, write_whole
from ddpm.messages import say
from ddpm.processes import RunFailedError
from ddpm.runs import folders

FORMATS = ("diffusers", "safetensors")


def export(overrides: list[str]) -> None:
    with request_errors():  # a wrong request ends here, before anything is written
        own, others = split_keys(overrides, ("to", "format", "push", "private"))
        kind, to, push, private = (own.get(key) for key in ("format", "to", "push", "private"))
        kind = kind or "diffusers"
        if kind not in FORMATS:
            raise RequestError(f"format={kind} is not one of {', '.join(FORMATS)}")
        if not to:
            raise RequestError("to= is missing: to=DIR, a folder that is new or empty")
        if private not in (None, "True", "False"):
            raise RequestError(f"private={private} must be true or false")
        if private and not push:
            raise RequestError("private= is for push=, and there is none: add push=hf://OWNER/NAME")
        others = with_chosen(others)
        saved = checkpoint.load(path_of("ckpt", others))
        config = compose_evaluation(saved.config, others)
        dataset = build.dataset(config)
        p = build.trained(saved, config, dataset)
        jsons = formats.diffusers_configs(p, config, dataset.shape) if kind == "diffusers" else {}
        user = hub.check_push(push) if push else ""
        folder = folders.claim(Path(to), "to")
    with whole_content(folder) as new:  # else what one that failed has left would be in the way of the next
        if kind == "diffusers":
            formats.write_diffusers(new, p, config, jsons)
        else:
            formats.write_safetensors(new, p, config, saved.step)
        write_whole(new / "README.md", card.card(saved, config, p, dataset.shape, kind))
    say(f"exported: {folder}")
    if push:
        try:
            say(f"pushed by {user}: {hub.push(folder, push, private=private == 'True')}")
        except hub.HubError as error:
            raise RunFailedError(
                f"{error}; the folder is whole, and goes there with: {hub.by_hand(folder, push)}"
            ) from error


def main(arguments: list[str]) -> int:
    export(quote_paths(arguments))
    return 0
