"""Work in chunks: who does which, and what is kept."""

import pytest
import torch

from ddpm.data.dataset import InMemory
from ddpm.evaluation.chunks import Chunks
from ddpm.launch import Rank

CPU = torch.device("cpu")


def test_every_index_belongs_to_one_process():
    for n, size, processes in ((101, 20, 3), (1, 7, 2), (40, 20, 2), (5, 1, 4)):
        mine = [Chunks(size, 0, Rank(index, processes, CPU)).of(n) for index in range(processes)]
        assert sorted(int(i) for chunks in mine for chunk in chunks for i in chunk.indices) == list(range(n))
        assert all(chunk.k % processes == index for index, chunks in enumerate(mine) for chunk in chunks)
        assert all(len(chunk.indices) <= size for chunks in mine for chunk in chunks)


def test_a_chunk_is_padded_with_its_last_example():
    chunks = Chunks(4, 0, Rank(0, 1, CPU))
    assert [chunks.examples(InMemory(torch.arange(6)), chunk).tolist() for chunk in chunks.of(6)] == [
        [0, 1, 2, 3],
        [4, 5, 5, 5],
    ]


def test_draws_depend_on_seed_purpose_and_chunk_alone():
    def draw(seed, index, what, k):
        return float(torch.rand(1, generator=Chunks(4, seed, Rank(index, 2, CPU)).generator(what, k)))

    assert draw(0, 0, 1, 3) == draw(0, 1, 1, 3)
    assert len({draw(0, 0, 1, 3), draw(1, 0, 1, 3), draw(0, 0, 2, 3), draw(0, 0, 1, 4)}) == 4


def test_a_damaged_chunk_is_made_again(tmp_path):
    chunks = Chunks(4, 0, Rank(0, 1, CPU), tmp_path)
    rows = torch.arange(8.0).reshape(4, 2)
    assert torch.equal(chunks.once("what", 0, lambda: rows), rows)
    assert torch.equal(chunks.once("what", 0, lambda: rows + 1), rows)
    chunks.path("what", 0).write_bytes(b"")
    assert torch.equal(chunks.once("what", 0, lambda: rows + 1), rows + 1)
    chunks.path("what", 0).write_bytes(chunks.path("what", 0).read_bytes()[:-5])
    assert torch.equal(chunks.once("what", 0, lambda: rows + 2), rows + 2)


@pytest.mark.parametrize("n", [1, 4, 10, 12])
def test_rows_are_those_of_all_examples_in_order_and_without_padding(tmp_path, n):
    """Made the first time, and read the second; what is kept is of whole chunks."""
    made = []

    def make(chunk):
        made.append(chunk.k)
        return torch.tensor(chunks.whole(chunk), dtype=torch.float64)[:, None] / torch.tensor([4.0, 8.0])

    chunks = Chunks(4, 0, Rank(0, 1, CPU), tmp_path)
    assert chunks.rounds(n) == len(chunks.of(n)) == -(-n // 4)
    for _ in range(2):
        assert chunks.rows("what", n, make).tolist() == [[k / 4, k / 8] for k in range(n)]
    assert made == list(range(-(-n // 4)))
    assert [len(rows) for rows in chunks.finished("what", n)] == [4] * len(made)
    assert [chunks.has("what", k) for k in range(4)] == [k in made for k in range(4)]
    assert not Chunks(4, 0, Rank(0, 1, CPU)).has("what", 0)


def test_the_most_chunks_of_a_process_are_those_of_the_first():
    for n, size, processes in ((101, 20, 3), (1, 7, 2), (40, 20, 2), (41, 20, 2), (5, 1, 4)):
        first, last = (Chunks(size, 0, Rank(index, processes, CPU)) for index in (0, processes - 1))
        assert first.rounds(n) == last.rounds(n) == len(first.of(n))


def test_rows_that_are_missing_are_noticed():
    """Here those of the first of two processes, which was never there."""
    with pytest.raises(RuntimeError, match="2 examples were counted where 6 were due"):
        Chunks(4, 0, Rank(1, 2, CPU)).rows("what", 6, lambda chunk: torch.zeros(4, 2))
