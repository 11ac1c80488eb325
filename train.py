"""Train a diffusion model: `python train.py [GROUP=OPTION] [KEY=VALUE] ...`; with -m, one run for each combination."""

from omegaconf import DictConfig

from ddpm import cli, published, runs, sweep


def train(config: DictConfig) -> None:
    with cli.request():  # a wrong request ends here, before anything is written
        from ddpm import build
        from ddpm.module import fit

        images = build.dataset(config)
        data, module = build.data_module(config, images), build.module(config, images)
        evaluation = build.evaluation(config, images) if config.evaluate_after else None
        folder = runs.start(config)
    runs.say(f"run folder: {folder}", build.summary(module, config))
    trainer = build.trainer(config, folder, images)
    fit(trainer, module, data)
    if evaluation:
        about = {"ckpt": str(folder / "checkpoints" / "last.ckpt"), "config": build.plain(config)}
        folder = trainer.strategy.broadcast(folder)  # only rank 0 knows what it is called
        results = evaluation.run(module.p_ema, build.place_of(trainer), about, folder)
        if trainer.is_global_zero:
            results.published = published.compare(config, results.metrics, trainer.global_step)
            results.publish(folder, trainer.loggers, trainer.global_step)
    runs.say(*build.how_to_look(trainer), f"run folder: {folder}")


if __name__ == "__main__":
    cli.run(train, sweep.run)
