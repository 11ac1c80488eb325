"""Objects are built from a configuration here, the only place where networks, mathematics and data meet."""

from ddpm.build.data import conditioning, data_module, dataset
from ddpm.build.measuring import evaluation, features, figures, sample_metrics, sample_metrics_in_training
from ddpm.build.model import network, reverse_process, trained
from ddpm.build.sampling import guidance, sampler
from ddpm.build.training import callbacks, check_resumed, check_shares, module, summary

__all__ = [
    "callbacks",
    "check_resumed",
    "check_shares",
    "conditioning",
    "data_module",
    "dataset",
    "evaluation",
    "features",
    "figures",
    "guidance",
    "module",
    "network",
    "reverse_process",
    "sample_metrics",
    "sample_metrics_in_training",
    "sampler",
    "summary",
    "trained",
]
