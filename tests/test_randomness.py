import torch

from ddpm.randomness import seed_dropout, seed_of


def test_dropout_draws_what_the_key_says():
    ones = torch.ones(1000)
    torch.manual_seed(seed_of(1, 2, 3))
    expected = torch.dropout(ones, 0.5, True)
    torch.rand(7)
    seed_dropout(torch.device("cpu"), 1, 2, 3)
    assert torch.equal(torch.dropout(ones, 0.5, True), expected)
