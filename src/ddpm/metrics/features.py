"""Feature extractors behind one signature: what IS, FID, KID and precision/recall look at instead of pixels.

Weights are data, never code: a file is unpickled by torch's restricted loader or not at all. What cannot be told from
the published weights is used only when asked for (`trust`), and says so in its name from then on.
"""

import hashlib
import io
import pickle
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from ddpm.data.pixels import to_unit

DIGITS_WEIGHTS = Path(__file__).parents[1] / "assets" / "digits_classifier.safetensors"


class Features(NamedTuple):
    """`pool` for FID, KID and precision/recall; `logits`, without the last layer's bias, for IS; `labels`, where known.

    The bias would only shift the marginal towards the classifier's prior, and IS is by custom computed without.
    """

    pool: Float[Tensor, " b d"]
    logits: Float[Tensor, " b k"] | None
    labels: Int64[Tensor, " b"] | None = None  # the class that each image is, or was to be


class FeatureExtractor(nn.Module, ABC):
    """uint8 images -> Features, in float32 whatever the precision around it.

    Attributes:
        name: with untrusted weights, the beginning of their SHA-256 is part of it.
        protocol: what the features depend on; goes into the fingerprint of every number made from them.
        trusted: the weights are the published ones.
        width: d of `Features.pool`.
        has_logits: the extractor classifies, so that there is an IS.
        classifies: the name of the dataset whose classes its logits are, in their order.
    """

    name: str
    protocol: dict[str, str | int]
    trusted: bool
    width: int
    has_logits: bool
    classifies: str | None = None

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Features:
        with _exact_float32(images.device):
            return self.extract(images)

    @abstractmethod
    def extract(self, images: UInt8[Tensor, "b c h w"]) -> Features:
        """The features, on the device of `images`.

        Raises:
            ValueError: images that this extractor does not take.
        """


class OutOfReachError(ValueError):
    """The weights of an extractor cannot be fetched, and nothing else is wrong."""


class Missing(FeatureExtractor):
    """What stands for an extractor whose weights cannot be had, where nothing that is measured needs them."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.protocol = name, {"extractor": name, "weights": "not at hand"}
        self.trusted, self.width, self.has_logits = True, 1, False

    def extract(self, images: UInt8[Tensor, "b c h w"]) -> Features:
        raise ValueError(f"the features of {self.name} are not at hand")


class DigitsClassifier(nn.Module):
    """The network behind `Digits`. No normalisation layers, so that an image's features are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.SiLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.SiLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.SiLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 64), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10, bias=False)

    def forward(self, x: Float[Tensor, "b 1 8 8"]) -> Features:
        pool = self.trunk(x)
        return Features(pool, self.head(pool))


class Digits(FeatureExtractor):
    """The classifier of scikit-learn's digits that ships with this package (scripts/train_digits_classifier.py).

    Its FID and IS compare with themselves only, never with published numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = self.classifies = "digits"
        self.protocol = {
            "extractor": self.name,
            "layer": "64 units before the last layer",
            "logits": "unbiased",
            "resize": "none",
            "weights": hashlib.sha256(DIGITS_WEIGHTS.read_bytes()).hexdigest(),
        }
        self.trusted, self.width, self.has_logits = True, 64, True
        self.classifier = DigitsClassifier()
        self.classifier.load_state_dict(load_file(DIGITS_WEIGHTS))
        self.requires_grad_(False).eval()

    def extract(self, images: UInt8[Tensor, "b c h w"]) -> Features:
        if images.shape[1:] != (1, 8, 8):
            raise ValueError(
                f"features=digits takes 1x8x8 images, not {_by(images.shape[1:])}: use features=random, which "
                "needs no download, or features=inception, whose numbers others can compare with"
            )
        features: Features = self.classifier(to_unit(images))
        return features


class Published(NamedTuple):
    """Where an extractor's weights are published, and the SHA-256 of the file."""

    url: str
    sha256: str


PUBLISHED = {
    # The network of 2015-12-05 that Heusel et al. 2017 used, converted from TensorFlow.
    "inception-v3-compat": Published(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "vgg16": Published(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
}


class TorchFidelity(FeatureExtractor):
    """An extractor that torch-fidelity registers, by its name there; Inception by the layers of Heusel et al. 2017.

    Images reach the network in torch-fidelity's own way, resized as TensorFlow 1 did; gray ones are repeated to RGB.
    Extractors other than Inception have no classes, hence no logits and no IS.

    Args:
        weights: a local file instead of the download, which is made once and kept in torch.hub's folder.
        trust: accept weights whose SHA-256 is not the published one, or for which none is published: torch-fidelity
            fetches those itself, and DINOv2 comes as code. `name` says so.
    """

    def __init__(
        self, name: str = "inception-v3-compat", weights: str | Path | None = None, trust: bool = False
    ) -> None:
        super().__init__()
        from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as REGISTRY  # costs 4 s

        if name not in REGISTRY:
            raise ValueError(f"features.name={name} is not known: {', '.join(sorted(REGISTRY))} are")
        cls = REGISTRY[name]
        pool = cls.get_default_feature_layer_for_metric("fid")
        logits = ["logits_unbiased"] if "logits_unbiased" in cls.get_provided_features_list() else []
        if published := _published(name):
            path = Path(weights).expanduser() if weights else _downloaded(name, published)
            data = _read(path)
            sha256 = hashlib.sha256(data).hexdigest()
            self.trusted = sha256 == published.sha256
            if not (self.trusted or trust):
                raise ValueError(
                    f"{path} is not the published file of {name} (SHA-256 {sha256[:8]}..., not "
                    f"{published.sha256[:8]}...): features.trust=true uses it all the same and names it in the results"
                )
            self.network = _from_file(cls, name, [pool, *logits], data, path)
        else:
            if weights:
                raise ValueError(f"features.weights: {name} takes no file, torch-fidelity fetches its weights itself")
            if not trust:
                raise ValueError(
                    f"no published weights of {name} are known to check its own against, and it may come as code: "
                    "features.trust=true uses it all the same and names it in the results"
                )
            self.network = _fetched_by_torch_fidelity(cls, name, [pool, *logits])
            sha256, self.trusted = _digest(self.network), False
        self.requires_grad_(False).eval()
        self.name = name if self.trusted else f"{name}-{sha256[:8]}"
        size = getattr(self.network, "resolution", None) or getattr(self.network, "INPUT_IMAGE_SIZE", None)
        self.protocol = {
            "extractor": self.name,
            "layer": pool,
            "logits": logits[0] if logits else "none",
            "resize": f"bilinear {size} as TensorFlow 1" if size else "its own",
            "weights": sha256,
        }
        trial = self(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
        self.width, self.has_logits = trial.pool.shape[1], trial.logits is not None

    def extract(self, images: UInt8[Tensor, "b c h w"]) -> Features:
        if images.shape[1] not in (1, 3):
            raise ValueError(f"features.name={self.name} takes gray or RGB images, not {images.shape[1]} channels")
        pool, *logits = self.network(images.expand(-1, 3, -1, -1))
        return Features(pool, logits[0] if logits else None)


def _published(name: str) -> Published | None:
    if name.startswith("clip-"):
        from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS

        return Published(MODEL_URLS[name], MODEL_METADATA[name]["hash"])
    return PUBLISHED.get(name)


def _downloaded(name: str, published: Published) -> Path:
    """The published file in torch.hub's folder, fetched on first use."""
    stem = published.url.rpartition("/")[2]
    # CLIP's files carry no hash in their names; torch-fidelity keeps them under these.
    path = Path(torch.hub.get_dir(), "checkpoints", f"{name}-{published.sha256}.pt" if "clip-" in name else stem)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(published.url, str(path), published.sha256)
        except (OSError, RuntimeError) as error:  # no network, no room; another file than the published one
            raise OutOfReachError(
                f"the weights of {name} could not be fetched ({error}): put {published.url} at {path}, "
                "or name a local copy with features.weights=PATH"
            ) from error
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"features.weights={path} cannot be read: {error.strerror}") from error


def _from_file(cls: Any, name: str, layers: list[str], data: bytes, path: Path) -> nn.Module:
    """`cls` with the weights in `data`. torch-fidelity would unpickle whatever it is given, so it is given tensors."""
    if not name.startswith("clip-"):  # those are TorchScript, which holds no pickled Python
        data = _repickled(data, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript and torchvision; nothing that a user could act on
            network: nn.Module = cls(name, layers, feature_extractor_weights_path=io.BytesIO(data), verbose=False)
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"features.weights={path} does not hold the weights of {name}") from error
    return network


def _repickled(data: bytes, path: Path) -> bytes:
    """A pickled state dict, unpickled by the loader that runs no code, and pickled again."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"features.weights={path} is damaged or holds more than tensors; it was not run") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"features.weights={path} holds no state dict")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _fetched_by_torch_fidelity(cls: Any, name: str, layers: list[str]) -> nn.Module:
    try:
        network: nn.Module = cls(name, layers, verbose=False)
    except (OSError, RuntimeError) as error:
        raise OutOfReachError(f"{name} could not be fetched: {str(error).partition(chr(10))[0]}") from error
    return network


def _digest(network: nn.Module) -> str:
    """SHA-256 of the weights themselves, where there is no file to take it of."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _exact_float32(device: torch.device) -> Iterator[None]:
    """float32 as IEEE has it: no autocast, and none of the TF32 that cuDNN's convolutions use by default."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.autocast(device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _by(shape: torch.Size) -> str:
    return "x".join(map(str, shape))
