import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """Random weights in torch-fidelity's own file format."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_inception(), path)
    return path


def random_inception():
    """A state dict of Inception whose features, unlike those of PyTorch's initialisation, differ between images."""
    from torch_fidelity import feature_extractor_inceptionv3 as source

    class Untrained(source.FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict):
            torch.manual_seed(0)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.normal_(self.fc.weight, std=3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "load_state_dict_from_url", lambda *args, **kwargs: None)
        return Untrained("inception-v3-compat", ["2048"], verbose=False).state_dict()
