"One thread per process, and nothing from the network, in every test and in what tests start."
import gc
import os
import signal

import pytest

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: tests that send it would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("test_reproduce_smoke.py", "browser", "test_tutorials.py", "test_site.py", "test_notebooks.py", "test_loop.py", "test_against_paper.py")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")


def pytest_collection_modifyitems(items):
    "Files that take long come first: two processes take a file each, and neither shall end with a long one, alone."
    items.sort(key=lambda item: min((place for place, name in enumerate(LONG) if name in item.path.parts), default=len(LONG)))


@pytest.fixture(scope="module", autouse=True)
def little_to_collect():
    "What earlier files imported and left is looked through once, and not at each collection: half a second with torch."
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def one_thread():
    "torch with one thread, whatever the machine has."
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    "The folder of a random model of two layers."
    from tiny import make_base

    folder = tmp_path_factory.mktemp("tiny") / "base"
    make_base(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_base):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(tiny_base)
