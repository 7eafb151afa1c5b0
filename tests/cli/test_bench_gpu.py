"The GPU's benchmark at toy shapes on the CPU: every line of it runs, the figures mean nothing."
import pytest
import torch

from optima.cli import bench_gpu
from optima.cli.main import main
from optima.cli.memory import SHAPES, Shape

SMALL = bench_gpu.Sizes(shape=Shape(2, 64, 96, 4, 2, 16, 512), tokens=48, steps=3, batches=(1, 3), written=6, context=12, square=128)


@pytest.fixture(scope="module")
def found():
    return bench_gpu.measure(SMALL)


def test_every_part_is_measured(found):
    for step in (found["training"], found["preferring"]):
        assert step["tokens_per_second"] > 0 and 0 < step["share_of_ceiling"] < 1
    for part in found["generation"].values():
        assert set(part["batches"]) == {1, 3}
        assert all(row["tokens_per_second"] > 0 and 0 < row["share_of_ceiling"] < 1 for row in part["batches"].values())
    assert found["what"]["parameters"] == SMALL.shape.parameters and "commit" in found["machine"]
    assert "QLoRA step of 48 tokens" in bench_gpu.table(found) and "DPO step of a pair of 48 tokens each" in bench_gpu.table(found)


def test_the_ceiling_is_the_slower_of_reading_and_multiplying():
    sizes, best = bench_gpu.Sizes(), {"bytes_per_second": 1e12, "operations_per_second": 1e14}
    shape = SHAPES[bench_gpu.MODEL]
    one = bench_gpu.ideal_rate(sizes, 1, 2.0, best)
    assert one == pytest.approx(1e12 / (2 * (shape.linear + shape.vocabulary * shape.width)), rel=0.01)
    assert bench_gpu.ideal_rate(sizes, 1, 0.56, best) > 2.5 * one
    assert bench_gpu.ideal_rate(sizes, 4096, 2.0, best | {"bytes_per_second": 1e18}) == pytest.approx(1e14 / (2 * shape.parameters))


def test_without_a_gpu_it_is_one_clear_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "gpu"]) == 2
    assert "no GPU is seen" in capsys.readouterr().err
