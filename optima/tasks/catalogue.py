"Benchmarks by name, wherever they come from: the package, a plug-in, or a folder of one's own questions."
from optima.base.errors import OptimaError, suggest
from optima.tasks import jsonl
from optima.tasks.hub import PLANS, commit_of, digest_of, local_files, splits_of, times_of
from optima.tasks.task import BENCHMARKS, Benchmark, own_names


def benchmark_names(
    data: str = "",  # a folder that may bring more
) -> list[str]:
    "The names that `get_benchmark` knows, sorted."
    return sorted({*BENCHMARKS.names(), *own_names(data)})


def get_benchmark(
    name: str,
    data: str = "",  # a folder with its files, in the place of the hub; a benchmark whose tasks are made has no use for it
) -> Benchmark:
    "The benchmark of that name, from the data folder if it is there."
    if name in own_names(data):
        return jsonl.own_benchmark(name, data)
    if name not in benchmark_names():
        raise OptimaError(suggest("benchmark", name, benchmark_names(data)))
    found = BENCHMARKS.get(name)
    return found.at(data) if data and found.at else found


def data_content(names: tuple[str, ...], data: str) -> dict:
    "What stands for the data of some benchmarks in keys: digests of local files, else commits; toy ones have none."
    real = [name for name in names if name in PLANS]
    if data:
        own = {name: jsonl.content_of(name, data) for name in names if name in own_names(data)}
        return own | {name: {split: [digest_of(path, times_of((path,))) for path in files]
                             for split, files in local_files(name, data).items()} for name in real}
    return {name: {"/".join(split): commit_of(split[0], name) for split in splits_of(PLANS[name])} for name in real}
