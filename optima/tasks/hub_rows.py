"The real benchmarks as their authors publish them: where each lies, what its rows hold, how a row becomes a task."
import ast
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from optima.base.errors import OptimaError
from optima.tasks.metrics import score_text

CARD, PINS, CODE = "dataset card", "pinned so in public code", "public code that reads it"  # where a fact was read
UNVERIFIED = "unverified"
ANY = object  # a column that is there and not read


class BadCell(ValueError):
    "What is wrong with a row, and in which column."

    def __init__(self, column: str, what: str):
        super().__init__(column, what)
        self.column, self.what = column, what


@dataclass(frozen=True)
class Source:
    "One published data set: its place, its facts, and its rows."

    hub: str  # repository of data sets
    config: str  # the part of it that we read; none: it has one only
    revision: str  # commit of the repository, or a reference where no source shows the commit
    licence: str
    files: dict[str, str]  # split -> pattern of its files
    rows: dict[str, int]  # split -> how many
    columns: dict  # name -> kind: str, int, a list of a kind, a dict of kinds, or ANY
    read: tuple[str, ...]  # the columns that `marks` needs
    marks: Callable[[dict], tuple[str, ...]]  # row -> what tells its task from another's, whatever its id
    convert: Callable[[dict], dict]  # row -> fields of its Task
    shown: dict[str, str]  # fact -> where it was read, or UNVERIFIED


def spaced(text: str) -> str:
    "A text without the accidents of case and white space."
    return " ".join(text.casefold().split())


def words(text: str) -> str:
    "The words of a text, without punctuation."
    return " ".join(re.findall(r"\w+", text.casefold()))


def filled(row: dict, column: str) -> str:
    "A text that must not be empty."
    if not row[column].strip():
        raise BadCell(column, "is empty")
    return row[column]


def read_json(text: str | bytes):
    "What some JSON holds; ValueError where it cannot be read, whatever the reason."
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def from_json(row: dict, column: str, kind: type = list):
    "A column that holds JSON in a text."
    try:
        value = read_json(row[column])
    except ValueError as error:
        raise BadCell(column, f"is no JSON: {error}") from error
    if not isinstance(value, kind):
        raise BadCell(column, f"holds {type(value).__name__}, expected {kind.__name__}")
    return value


def usable(answer: str, metric: str, column: str) -> str:
    "A gold answer that its metric can compare with."
    try:
        score_text(answer, [answer], metric)
    except OptimaError as error:
        raise BadCell(column, str(error)) from error
    return answer


def parsed(text: str, column: str) -> ast.Module:
    "A column's Python, not run."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts such as "\\d": they are not ours to mend
            tree = ast.parse(text)
            compile(tree, column, "exec")  # finds what the grammar allows and Python does not
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadCell(column, f"is no Python: {error}") from error
    return tree


def passages_of(titles: list[str], texts: list[list[str]], needed: list[str]) -> dict:
    "Whole passages, and the places of those that the question needs, in the order of need."
    if len(titles) != len(texts):
        raise BadCell("context", f"has {len(titles)} titles and {len(texts)} texts")
    passages = [f"{title}: {' '.join(sentence.strip() for sentence in text)}" for title, text in zip(titles, texts)]
    places = [place for title in dict.fromkeys(needed) for place, one in enumerate(titles) if one == title]
    return {"passages": passages, "supporting": places}


def hotpotqa(row: dict) -> dict:
    "A question over ten paragraphs, two of which it needs."
    context, needed = row["context"], row["supporting_facts"]["title"]
    return {"question": filled(row, "question"), "answer": filled(row, "answer"),
            **passages_of(context["title"], context["sentences"], needed)}


def two_wiki(row: dict) -> dict:
    "The same in JSON texts: context is [title, sentences] pairs, supporting_facts [title, sentence] pairs."
    context, facts = from_json(row, "context"), from_json(row, "supporting_facts")
    for column, pairs in (("context", context), ("supporting_facts", facts)):
        if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
            raise BadCell(column, "is no list of pairs that begin with a title")
    if not all(isinstance(text, list) and all(isinstance(one, str) for one in text) for _, text in context):
        raise BadCell("context", "has a title without a list of sentences")
    titles, texts = [pair[0] for pair in context], [pair[1] for pair in context]
    return {"question": filled(row, "question"), "answer": filled(row, "answer"),
            **passages_of(titles, texts, [pair[0] for pair in facts])}


def triviaqa(row: dict) -> dict:
    "A trivia question, the snippets that a web search found, and every alias of the answer."
    value, aliases, found = row["answer"]["value"], row["answer"]["aliases"], row["search_results"]
    if not value.strip():
        raise BadCell("answer.value", "is empty")
    if len(found["title"]) != len(found["description"]):
        sizes = f"{len(found['title'])} titles and {len(found['description'])} descriptions"
        raise BadCell("search_results", f"has {sizes}")
    snippets = [f"{title}: {text}" for title, text in zip(found["title"], found["description"]) if text.strip()]
    return {"question": filled(row, "question"), "answer": value, "passages": snippets,
            "aliases": [alias for alias in dict.fromkeys(aliases) if alias.strip() and alias != value]}


def with_choices(question: str, choices: list[str]) -> str:
    "A question and what may be answered, by text: the labels differ from row to row, and tell nothing."
    return "\n".join([question, "Choices:", *(f"- {choice}" for choice in choices)])


def cbt(row: dict) -> dict:
    "Twenty sentences of a story, numbered (some come twice), and the next one with a gap."
    if row["answer"] not in row["options"]:
        raise BadCell("answer", f"{row['answer']!r} is none of the options")
    numbered = [f"{number}. {sentence}" for number, sentence in enumerate(row["sentences"], 1)]
    question = f"Which word stands for XXXXX? {filled(row, 'question')}"
    return {"question": with_choices(question, row["options"]), "answer": row["answer"], "passages": numbered}


def last_boxed(text: str) -> str:
    "What the last \\boxed of a solution holds, braces balanced; nothing where there is none."
    found = [match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*", text)]
    if not found:
        return ""
    rest, depth = text[found[-1]:], 0
    if not rest.startswith("{"):
        return re.match(r"[^\s$.,]*", rest)[0]
    for match in re.finditer(r"\\.|[{}]", rest, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth and match[0] == "}":
            return rest[1:match.start()].strip()
    return ""


def math(row: dict) -> dict:
    "A competition problem; the answer is what its solution boxes last."
    answer = last_boxed(row["solution"])
    if not answer:
        raise BadCell("solution", "boxes no answer (\\boxed{...}, braces balanced)")
    if re.fullmatch(r"[A-Za-z][A-Za-z\s,.'-]{3,}", answer):
        answer = rf"\text{{{answer}}}"  # a word, which would be read as a product of letters
    return {"question": filled(row, "problem"), "answer": usable(answer, "math", "solution")}


def gsm8k(row: dict) -> dict:
    "A problem in words; the answer stands behind ####."
    answer = row["answer"].rpartition("####")[2].strip()
    if "####" not in row["answer"] or not re.search(r"\d", answer):
        raise BadCell("answer", "has no number behind ####")
    return {"question": filled(row, "question"), "answer": usable(answer, "number", "answer")}


def arc_answer(row: dict) -> str:
    "The text of the right choice; labels may be letters or digits."
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    if len(texts) != len(labels):
        raise BadCell("choices", f"has {len(texts)} texts and {len(labels)} labels")
    if row["answerKey"] not in labels:
        raise BadCell("answerKey", f"{row['answerKey']!r} is none of the labels {', '.join(labels)}")
    return texts[labels.index(row["answerKey"])]


def mmlu_answer(row: dict) -> str:
    "The text of the right choice; the column counts from 0."
    if not 0 <= row["answer"] < len(row["choices"]):
        raise BadCell("answer", f"{row['answer']} is no place among {len(row['choices'])} choices, counted from 0")
    return row["choices"][row["answer"]]


def arc(row: dict) -> dict:
    "A question of science at school."
    return {"question": with_choices(filled(row, "question"), row["choices"]["text"]), "answer": arc_answer(row)}


def mmlu(row: dict) -> dict:
    "A question of some subject."
    return {"question": with_choices(filled(row, "question"), row["choices"]), "answer": mmlu_answer(row)}


def bound_by(statement: ast.stmt) -> set[str]:
    "The names that a statement defines."
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(one.asname or one.name).partition(".")[0] for one in statement.names}
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def needed_by(tests: ast.Module, prompt: ast.Module, entry_point: str) -> str:
    "Those statements of a prompt whose names the tests use, directly or through one another; not the function under test."
    offered = [statement for statement in prompt.body if entry_point not in bound_by(statement)]
    kept, waiting = [], [tests]
    while waiting:
        user = waiting.pop()
        names = {node.id for node in ast.walk(user) if isinstance(node, ast.Name)}
        found = [statement for statement in offered if statement not in kept and names & bound_by(statement)]
        kept, waiting = kept + found, waiting + found
    return "".join(f"{ast.unparse(statement)}\n\n" for statement in offered if statement in kept)


def humaneval(row: dict) -> dict:
    "A signature with a docstring; the answer may be the body or the whole function. The tests get their own copy of its helpers."
    prompt, name = filled(row, "prompt"), filled(row, "entry_point")
    if not re.search(rf"(?m)^def {re.escape(name)}\(", prompt):
        raise BadCell("entry_point", f"{name!r} is no function of the prompt")
    if "def check(" not in row["test"]:
        raise BadCell("test", "has no function check")
    prefix = prompt if prompt.endswith("\n") else f"{prompt}\n"
    helpers = needed_by(parsed(row["test"], "test"), parsed(f"{prefix}    pass\n", "prompt"), name)
    question = f"Complete the function {name}; answer with all of its code.\n{prompt}"
    return {"question": question, "prefix": prefix, "tests": helpers + row["test"], "entry_point": name}


def mbpp_name(row: dict) -> str:
    "The function under test: the first one that the tests call and the solution defines."
    defined = re.findall(r"(?m)^def\s+(\w+)", row["code"])
    called = re.findall(r"(\w+)\s*\(", "\n".join(row["test_list"]))
    name = next((name for name in called if name in defined), "")
    if not name:
        raise BadCell("test_list", "calls no function that column 'code' defines")
    return name


def mbpp_task(row: dict, text: str, setup: str, more: str = "") -> dict:
    "A sentence and three tests, which show the function's name; the columns of set-up code and of further tests stay hidden."
    codes = {column: "\n".join([row[column]] if isinstance(row[column], str) else row[column]) for column in (setup, "test_list", more) if column}
    for column, code in codes.items():
        parsed(code, column)
    question = f"{filled(row, text)}\nThe code must pass these tests:\n{codes['test_list']}"
    return {"question": question, "entry_point": mbpp_name(row), "tests": "\n".join(code for code in codes.values() if code.strip())}


def mbpp(row: dict) -> dict:
    "A row of the full set."
    return mbpp_task(row, "text", "test_setup_code", "challenge_test_list")


def mbpp_sanitized(row: dict) -> dict:
    "A row of the set that its authors went through by hand."
    return mbpp_task(row, "prompt", "test_imports")


def function_mark(name: str) -> str:
    "A function's name however it is spelt: HumanEval and MBPP share no texts, so a shared name tells of an overlap."
    return f"function {name.replace('_', '').casefold()}"


TWO_HOPS = {"context": {"title": [str], "sentences": [[str]]}, "supporting_facts": {"title": [str], "sent_id": ANY}}
PROBLEM = {"problem": str, "solution": str, "level": ANY}
SNIPPETS = {"title": [str], "description": [str], "filename": ANY, "rank": ANY, "url": ANY, "search_context": ANY}
CODE_COLUMNS = {"task_id": ANY, "code": str, "test_list": [str]}
SHOWN = {"revision": PINS, "licence": CARD, "rows": CARD, "columns": CARD, "files": CARD}


def question_mark(row: dict) -> tuple[str, ...]: return (spaced(row["question"]),)
def problem_mark(row: dict) -> tuple[str, ...]: return (spaced(row["problem"]),)
def cbt_mark(row: dict) -> tuple[str, ...]: return (spaced("\n".join([*row["sentences"], row["question"]])),)
def arc_mark(row: dict) -> tuple[str, ...]: return (f"{words(row['question'])} = {words(arc_answer(row))}",)
def mmlu_mark(row: dict) -> tuple[str, ...]: return (f"{words(row['question'])} = {words(mmlu_answer(row))}",)
def humaneval_mark(row: dict) -> tuple[str, ...]: return (spaced(row["prompt"]), function_mark(row["entry_point"]))
def mbpp_mark(row: dict) -> tuple[str, ...]: return (spaced(row["text"]), function_mark(mbpp_name(row)))
def sanitized_mark(row: dict) -> tuple[str, ...]: return (spaced(row["prompt"]), function_mark(mbpp_name(row)))


SOURCES: dict[str, Source] = {
    "hotpotqa": Source(
        "hotpotqa/hotpot_qa", "distractor", "1908d6afbbead072334abe2965f91bd2709910ab", "cc-by-sa-4.0",
        {"train": "distractor/train-*.parquet", "validation": "distractor/validation-*.parquet"},
        {"train": 90_447, "validation": 7_405},
        {"id": ANY, "question": str, "answer": str, "type": ANY, "level": ANY, **TWO_HOPS},
        ("question",), question_mark, hotpotqa, SHOWN),
    "2wikimultihopqa": Source(
        "xanhho/2WikiMultihopQA", "", "612bc5039a457880d9e7d84c3b0a4cf154b70e4f", "apache-2.0",
        {"train": "train.parquet", "dev": "dev.parquet"}, {"train": 167_454, "dev": 12_576},
        {"_id": ANY, "type": ANY, "question": str, "context": str, "supporting_facts": str, "evidences": ANY,
         "answer": str},
        ("question",), question_mark, two_wiki,
        {"revision": PINS, "licence": PINS, "rows": UNVERIFIED, "columns": f"{CODE}; the id's name: {UNVERIFIED}",
         "files": CODE}),
    "triviaqa": Source(
        "mandarjoshi/trivia_qa", "rc", "0f7faf33a3908546c6fd5b73a660e0f8ff173c2f", "unknown (so the card says)",
        {"train": "rc/train-*.parquet", "validation": "rc/validation-*.parquet"},
        {"train": 138_384, "validation": 17_944},
        {"question": str, "question_id": ANY, "question_source": ANY, "entity_pages": ANY, "search_results": SNIPPETS,
         "answer": {"value": str, "aliases": [str]}},
        ("question",), question_mark, triviaqa, SHOWN | {"rows": PINS, "files": UNVERIFIED}),
    "cbt": Source(
        "cam-cst/cbt", "CN", "refs/convert/parquet", "gfdl",
        {"train": "CN/train/*.parquet", "test": "CN/test/*.parquet"}, {"train": 120_769, "test": 2_500},
        {"sentences": [str], "question": str, "answer": str, "options": [str]},
        ("sentences", "question"), cbt_mark, cbt,
        SHOWN | {"revision": f"the hub's own conversion, which may move; its commit: {UNVERIFIED}",
                 "files": "a commit of that conversion (config V)"}),
    "math": Source(
        "EleutherAI/hendrycks_math", "all seven subjects", "21a5633873b6a120296cce3e2df9d5550074f4a3", "mit",
        {"train": "*/train-*.parquet", "test": "*/test-*.parquet"}, {"train": 7_500, "test": 5_000},
        PROBLEM | {"type": ANY}, ("problem",), problem_mark, math,
        {"revision": PINS, "licence": PINS, "rows": CODE, "columns": CODE, "files": CODE}),
    "math_500": Source(
        "HuggingFaceH4/MATH-500", "", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", f"none on its card ({PINS})",
        {"test": "test.jsonl"}, {"test": 500},
        PROBLEM | {"answer": ANY, "subject": ANY, "unique_id": ANY}, ("problem",), problem_mark, math,
        {"revision": PINS, "licence": PINS, "rows": PINS, "columns": UNVERIFIED, "files": PINS}),
    "gsm8k": Source(
        "openai/gsm8k", "main", "740312add88f781978c0658806c59bc2815b9866", "mit",
        {"train": "main/train-*.parquet", "test": "main/test-*.parquet"}, {"train": 7_473, "test": 1_319},
        {"question": str, "answer": str}, ("question",), question_mark, gsm8k, SHOWN | {"files": PINS}),
    "arc_challenge": Source(
        "allenai/ai2_arc", "ARC-Challenge", "210d026faf9955653af8916fad021475a3f00453", "cc-by-sa-4.0",
        {"train": "ARC-Challenge/train-*.parquet", "validation": "ARC-Challenge/validation-*.parquet",
         "test": "ARC-Challenge/test-*.parquet"}, {"train": 1_119, "validation": 299, "test": 1_172},
        {"id": ANY, "question": str, "choices": {"text": [str], "label": [str]}, "answerKey": str},
        ("question", "choices", "answerKey"), arc_mark, arc, SHOWN),
    "mmlu": Source(
        "cais/mmlu", "all", "c30699e8356da336a370243923dbaf21066bb9fe", "mit",
        {"auxiliary_train": "all/auxiliary_train-*.parquet", "test": "all/test-*.parquet"},
        {"auxiliary_train": 99_842, "test": 14_042},
        {"question": str, "subject": ANY, "choices": [str], "answer": int},
        ("question", "choices", "answer"), mmlu_mark, mmlu,
        SHOWN | {"files": f"{PINS}; auxiliary_train: {UNVERIFIED}"}),
    "humaneval": Source(
        "openai/openai_humaneval", "openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544", "mit",
        {"test": "openai_humaneval/test-*.parquet"}, {"test": 164},
        {"task_id": ANY, "prompt": str, "canonical_solution": str, "test": str, "entry_point": str},
        ("prompt", "entry_point"), humaneval_mark, humaneval, SHOWN),
    "mbpp": Source(
        "google-research-datasets/mbpp", "full", "4bb6404fdc6cacfda99d4ac4205087b89d32030c", "cc-by-4.0",
        {"train": "full/train-*.parquet", "test": "full/test-*.parquet"}, {"train": 374, "test": 500},
        CODE_COLUMNS | {"text": str, "test_setup_code": str, "challenge_test_list": [str]},
        ("text", "code", "test_list"), mbpp_mark, mbpp, SHOWN),
    "mbpp_sanitized": Source(
        "google-research-datasets/mbpp", "sanitized", "4bb6404fdc6cacfda99d4ac4205087b89d32030c", "cc-by-4.0",
        {"train": "sanitized/train-*.parquet", "test": "sanitized/test-*.parquet"}, {"train": 120, "test": 257},
        CODE_COLUMNS | {"source_file": ANY, "prompt": str, "test_imports": [str]},
        ("prompt", "code", "test_list"), sanitized_mark, mbpp_sanitized, SHOWN),
}
