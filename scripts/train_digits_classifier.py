"""Trains the classifier behind `features=digits` and writes the asset that ships with the package.

The weights are a yardstick: FID and IS on digits are comparable only under the very same ones. They were chosen before
any diffusion model had been trained, on real digits and controlled corruptions of them alone, and are not to be made
again. The script is here to say where they come from; on another machine it gives equal weights up to rounding.

    python scripts/train_digits_classifier.py --out digits_classifier.safetensors
"""

import argparse
from math import pi
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from ddpm.data.digits import load_digits_split
from ddpm.metrics.features import DigitsClassifier

SEED = 0
EPOCHS = 100
BATCH = 100
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
SHUFFLED = 20  # pixel-shuffled digits that join each batch


def deform(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts by up to a pixel, turns by up to 10 degrees, scales by up to 10 %, softens: it stays that digit."""

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(len(x), *shape, generator=generator) - 1

    angle, scale, shift = uniform() * 10 * pi / 180, 1 + 0.1 * uniform(), uniform(2, 1) * 2 / x.shape[-1]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
    grid = F.affine_grid(torch.cat([rotation, shift], dim=2), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False)
    soft = F.avg_pool2d(F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 2, 1), 2, 1)  # 3 x 3 binomial
    return torch.lerp(x, soft, 0.5 * torch.rand(len(x), 1, 1, 1, generator=generator))


def augment(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch in [0, 1] and its one-hot labels, made into one from which doubt, too, can be learned.

    A plain classifier is sure of itself on anything, and IS with it. So a quarter of the images are blends of two,
    labelled by their shares (mixup; Zhang et al. 2018), and some digits with shuffled pixels join them, labelled as
    all classes alike: the softmax is sharp on clean digits only.
    """
    x = deform(x, generator)
    share = torch.rand(len(x), 1, generator=generator)
    share = torch.where(torch.rand(len(x), 1, generator=generator) < 0.25, share, 1.0)
    other = torch.randperm(len(x), generator=generator)
    x = torch.lerp(x[other], x, share[..., None, None])
    y = torch.lerp(y[other], y, share)
    x = x + 0.1 * torch.rand(len(x), 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
    order = torch.rand(SHUFFLED, x[0].numel(), generator=generator).argsort(dim=1)
    shuffled = x[:SHUFFLED].flatten(1).gather(1, order).view(SHUFFLED, *x.shape[1:])
    return torch.cat([x, shuffled]), torch.cat([y, torch.full((SHUFFLED, y.shape[1]), 1 / y.shape[1])])


def train(images: Tensor, labels: Tensor) -> DigitsClassifier:
    """The classifier after `EPOCHS` over uint8 `images`; a pure function of its arguments and `SEED`."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    classifier = DigitsClassifier()
    x, y = images.float() / 255, F.one_hot(labels.long(), 10).float()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).view(-1, BATCH):
            mixed, target = augment(x[batch], y[batch], generator)
            loss = F.cross_entropy(classifier(mixed * 2 - 1).logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: DigitsClassifier, images: Tensor, labels: Tensor) -> float:
    logits = classifier(images.float() / 127.5 - 1).logits
    assert logits is not None
    return (logits.argmax(dim=1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    out = parser.parse_args().out
    torch.use_deterministic_algorithms(True)
    train_images, train_labels, test_images, test_labels = load_digits_split()
    classifier = train(train_images, train_labels)
    count = sum(parameter.numel() for parameter in classifier.parameters())
    test = accuracy(classifier, test_images, test_labels)
    metadata = {
        "what": "classifier of scikit-learn's handwritten digits, for IS and FID; made by train_digits_classifier.py",
        "trained_on": f"{len(train_images)} train images, seed {SEED}, {EPOCHS} epochs",
        "test_accuracy": f"{test:.4f}",
    }
    save_file(classifier.state_dict(), out, metadata)
    print(f"test accuracy {test:.2%} on {len(test_images)} images; {count:,} parameters; {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
