"Whether this machine is fit for a preset: room, types, models and data, computed before anything is downloaded."
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from optima.base.errors import OptimaError
from optima.cli.memory import GIB, Shape, generation_memory, hours, shape_of, training_memory
from optima.config.models import SHIPPED
from optima.config.settings import Settings
from optima.train.sft import MICRO_TOKENS

Finding = tuple[bool, str]
SPOKEN = 1820  # tokens of a dialogue of the untrained 8B team, as the article counts them
RESERVE = 0.5  # GiB that a GPU's driver and torch's own kernels take
CONTEXT = 3072  # tokens of the longest row that is planned for: passages, and a dialogue about them


def gpu() -> tuple[str, float] | None:
    "The first GPU's name and its memory in GiB."
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory / GIB


def device_findings(settings: Settings, card: tuple[str, float] | None) -> Iterator[Finding]:
    "The GPU, and the type in which it generates."
    from optima.engines.loading import fitting_dtype

    if card is None:
        yield False, "no GPU is seen; this preset's models need one: its CUDA driver and a CUDA build of torch"
        return
    dtype, why = fitting_dtype("cuda") if settings.dtype == "auto" else (settings.dtype, "the preset says so")
    yield True, f"{card[0]}, {card[1]:.1f} GiB; generates in {dtype}: {why}"


def models_of(settings: Settings) -> dict[str, str]:
    "The models that are neither shipped nor behind a server, by setting."
    named = {"base": settings.base, "teacher": "" if settings.teacher_url else settings.teacher}
    return {name: model for name, model in named.items() if model and model not in SHIPPED}


def in_cache(model: str) -> bool:
    "Whether a hub model has been downloaded before."
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = model.partition("@")
    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision or None), str)


def on_the_hub(
    name: str,  # owner/name
    revision: str | None,
    kind: str,  # model or dataset
) -> str:  # '' where the hub gives it to this user, else why it does not
    "Whether a model or data set can be had."
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=5)
    except GatedRepoError:
        return "its licence must be accepted on the hub first, and HF_TOKEN set"
    except RepositoryNotFoundError:
        return f"the hub knows no such {kind}, or does not show it to you"
    except Exception as error:  # noqa: BLE001 - whatever stands between this machine and the hub, the doctor names it
        return f"the hub cannot be reached ({type(error).__name__})"
    return ""


def model_findings(settings: Settings) -> Iterator[Finding]:
    "Each model: a folder, in the cache, or to be had."
    for name, model in models_of(settings).items():
        if Path(model).is_dir():
            yield True, f"{name}: the folder {Path(model).name}"
        elif in_cache(model):
            yield True, f"{name}: {model} is in the cache"
        else:
            hub, _, revision = model.partition("@")
            missing = on_the_hub(hub, revision or None, "model")
            bring = f'; or bring its folder: --set {name}=PATH' if missing else ", to be downloaded"
            yield not missing, f"{name}: {model}{': ' + missing if missing else ''}{bring}"


def data_findings(settings: Settings) -> Iterator[Finding]:
    "Each real benchmark, and each of the user's own: its folder, checked row by row, or its sources, in the cache or to be had."
    from optima.tasks.catalogue import get_benchmark
    from optima.tasks.hub import PLANS, splits_of
    from optima.tasks.task import own_names

    for name in (name for name in dict.fromkeys(settings.benchmarks) if name in (*PLANS, *own_names(settings.data))):
        if settings.data:
            try:
                get_benchmark(name, settings.data).tasks("train", 1, 0)
                yield True, f"{name}: read from the folder {Path(settings.data).name}"
            except OptimaError as error:
                yield False, f"{name}: {error}"
            continue
        for source in sorted({source for source, _ in splits_of(PLANS[name])}):
            yield source_finding(name, source)


def source_finding(benchmark: str, name: str) -> Finding:
    "One source of a benchmark on the hub."
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from optima.tasks.hub_rows import SOURCES

    source = SOURCES[name]
    try:
        snapshot_download(source.hub, repo_type="dataset", revision=source.revision, local_files_only=True,
                          allow_patterns=list(source.files.values()))
        return True, f"{benchmark}: {source.hub} is in the cache"
    except LocalEntryNotFoundError:
        missing = on_the_hub(source.hub, source.revision, "dataset")
    bring = "; or bring its files: --set data=DIR" if missing else ", to be downloaded"
    return not missing, f"{benchmark}: {source.hub}{': ' + missing if missing else ''}{bring}"


def download_bytes(model: str) -> int | None:
    "What a model's weights take in 16 bits; None where its sizes are not known."
    try:
        return 2 * shape_of(model).parameters
    except OptimaError:
        return None


def disk_finding(settings: Settings, runs: Path) -> Finding:
    "Room for what has to be downloaded, and for an experiment."
    absent = [model for model in models_of(settings).values() if not Path(model).is_dir() and not in_cache(model)]
    sizes = {model: download_bytes(model) for model in absent}
    unknown = "".join(f", and what {model} takes, which is not known" for model, size in sizes.items() if size is None)
    needed = sum(filter(None, sizes.values())) / GIB + 5
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache"))
    free = min(shutil.disk_usage(next(place for place in [path.absolute(), *path.absolute().parents] if place.is_dir())).free
               for path in (cache, runs)) / GIB
    return free >= needed, f"{free:.0f} GiB of disk are free, {needed:.0f} are needed{unknown}"


def in_parts(parts: dict[str, float]) -> str:
    "A sum and what it is made of, the largest first."
    told = ", ".join(f"{name} {size:.1f}" for name, size in sorted(parts.items(), key=lambda part: -part[1]))
    return f"{sum(parts.values()):.1f} GiB ({told})"


def lower(settings: Settings, shape: Shape, room: float) -> str:
    "The one setting to turn down so that training and generation fit."
    if sum(training_memory(shape, settings, MICRO_TOKENS).values()) > room:
        for change in ({"gradient_checkpointing": True}, {"quantization": "nf4_double"}):
            tried = replace(settings, **change)
            if tried != settings and sum(training_memory(shape, tried, MICRO_TOKENS).values()) <= room:
                return "--set " + " ".join(f"{name}={str(value).lower()}" for name, value in change.items())
        return "--set base=MODEL, a smaller one"
    sizes = [size for size in (64, 48, 32, 24, 16, 12, 8, 4, 2, 1) if size < settings.batch_size]
    fit = (size for size in sizes if sum(generation_memory(shape, replace(settings, batch_size=size), CONTEXT).values()) <= room)
    size = next(fit, None)
    return f"--set batch_size={size}" if size else "--set base=MODEL, a smaller one"


def memory_findings(settings: Settings, shape: Shape, memory: float) -> Iterator[Finding]:
    "Computed peaks of training and generation beside the card's memory."
    room = memory - RESERVE
    needs = {"training": training_memory(shape, settings, MICRO_TOKENS), "generating": generation_memory(shape, settings, CONTEXT)}
    for what, parts in needs.items():
        fits = sum(parts.values()) <= room
        advice = "" if fits else f"; turn down: {lower(settings, shape, room)}"
        yield fits, f"{what} takes {in_parts(parts)}, computed; {room:.1f} are there{advice}"


def time_finding(settings: Settings, shape: Shape) -> Finding:
    "Hours of one experiment, as published rates of an RTX 4090 let one expect."
    spent = hours(shape, settings, SPOKEN, MICRO_TOKENS)
    told = ", ".join(f"{name} {time:.1f}" for name, time in spent.items())
    total = sum(spent.values()) * len(settings.benchmarks)
    return True, (f"{settings.system}: about {total:.1f} hours at most for {len(settings.benchmarks)} benchmarks on an RTX 4090 "
                  f"(each: {told}; computed with {SPOKEN} tokens a dialogue, fewer as the team learns)")


def preset_findings(settings: Settings, runs: Path, memory: float | None = None) -> Iterator[Finding]:
    "All that a preset needs beyond the package itself; `memory` (GiB) stands in for a card that is not there."
    if settings.base in SHIPPED and models_of(settings):
        yield from model_findings(settings)
        yield disk_finding(settings, runs)
        return
    if settings.base in SHIPPED:
        yield True, f"{settings.preset}: runs on the CPU with the shipped models; nothing is downloaded"
        return
    card = gpu()
    yield from device_findings(settings, card)
    yield from model_findings(settings)
    yield from data_findings(settings)
    yield disk_finding(settings, runs)
    try:
        shape = shape_of(settings.base)
    except OptimaError as error:
        yield False, str(error)
        return
    yield from memory_findings(settings, shape, memory or (card[1] if card else 24.0))
    yield time_finding(settings, shape)
