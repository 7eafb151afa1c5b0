"What servers answered, by request: an append-only file that a killed process cannot spoil, and that nobody pays twice for."
import fcntl
import json
import os
from pathlib import Path
from threading import Lock

from optima.base.errors import OptimaError
from optima.base.files import canonical_json, make_folder, storage_errors

FINISHES = {"stop": False, "length": True, "content_filter": True}  # how a reply ended -> whether it was cut


def damage(line) -> str:
    "What is wrong with a recorded line; nothing where it is whole."
    if not isinstance(line, dict) or not isinstance(line.get("key"), str) or not isinstance(line.get("model"), str):
        return "expected an object with a key and a model"
    usage = line.get("usage")
    if not isinstance(usage, dict) or any(type(usage.get(name)) is not int for name in ("prompt", "completion")):
        return "expected a usage with prompt and completion"
    if "text" in line and (not isinstance(line["text"], str) or line.get("finish") not in FINISHES):
        return f"expected a text and a finish out of {', '.join(FINISHES)}"
    return ""


def parse(text: bytes, where: str) -> dict:
    "A line of the file, or an OptimaError that says where."
    try:
        line = json.loads(text)
        wrong = damage(line)
    except ValueError as error:
        wrong = f"not JSON ({error})"
    if wrong:
        raise OptimaError(f"{where}: {wrong}; take the line out and run the same command again")
    return line


class Replies:
    "An append-only JSON Lines file of replies. Its lock is the file's own: threads and processes take turns."

    def __init__(self, path: Path):
        self.path, self.guard = Path(path), Lock()
        self.found: dict[str, dict] = {}  # request's key -> its first whole reply
        self.paid: dict[str, list[int]] = {}  # model -> prompt and completion tokens of every line
        self.offset = self.number = 0  # bytes and lines that were read
        self.refresh()

    def get(self, key: str) -> dict | None:
        "The reply to a request, also one that another process recorded meanwhile."
        self.refresh()
        return self.found.get(key)

    def spent(self, model: str) -> tuple[int, int]:
        "Prompt and completion tokens that a model's lines were paid with."
        with self.guard:
            return tuple(self.paid.get(model, (0, 0)))

    def refresh(self):
        "Read the lines that came since; what a killed process left of its last line is none."
        with self.guard, storage_errors(self.path):
            if self.path.is_file() and self.path.stat().st_size > self.offset:
                with open(self.path, "rb") as file:
                    self.read(file)

    def read(self, file):
        "Take in the whole lines behind the offset."
        file.seek(self.offset)
        whole, newline, _ = file.read().rpartition(b"\n")
        for text in whole.split(b"\n") if newline else ():
            self.number += 1
            if text.strip():
                self.take(parse(text, f"{self.path}, line {self.number}"))
        self.offset += len(whole) + len(newline)

    def take(self, line: dict):
        "Count what a line was paid with, and keep its reply where it is the request's first."
        paid = self.paid.setdefault(line["model"], [0, 0])
        paid[0] += line["usage"]["prompt"]
        paid[1] += line["usage"]["completion"]
        if "text" in line:
            self.found.setdefault(line["key"], line)

    def add(self, line: dict) -> dict:
        "Append a line unless its request has a reply; gives the reply that counts."
        with self.guard, storage_errors(self.path):
            make_folder(self.path.parent)
            with open(self.path, "a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # closing the file frees it, also when the process is killed
                self.read(file)
                if line["key"] in self.found:  # another process was as quick: its reply counts, both were paid for
                    line = {name: value for name, value in line.items() if name not in ("text", "finish")}
                if file.seek(0, os.SEEK_END) > self.offset:  # a killed process left half a line
                    file.truncate(self.offset)
                self.append(file, canonical_json(line).encode() + b"\n")
            self.take(line)
            return self.found.get(line["key"], line)

    def append(self, file, text: bytes):
        "Write a line at the end, and move behind it."
        done = 0
        while done < len(text):
            done += file.write(text[done:])
        self.offset, self.number = self.offset + len(text), self.number + 1

    def flush(self):
        "Make the file reach the disk."
        if self.path.is_file():
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())


__all__ = ["FINISHES", "Replies"]
