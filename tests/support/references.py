"Programs in the manner of HumanEval and MBPP, written for these tests: code, tests, entry point. All are right."
from optima.tasks.hub_rows import SOURCES

ROOT = {  # a row whose tests call a helper of the prompt
    "prompt": """
import math

def poly(cs, x):
    return sum(c * math.pow(x, i) for i, c in enumerate(cs))

def find_zero(cs):
    'Where a rising or falling line, or a curve of odd degree, is 0.'
""", "canonical_solution": """
    low, high = -100.0, 100.0
    sign = 1 if poly(cs, high) > 0 else -1
    while high - low > 1e-10:
        middle = (low + high) / 2
        if sign * poly(cs, middle) > 0: high = middle
        else: low = middle
    return low
""", "test": """
def check(candidate):
    import random
    rng = random.Random(42)
    for _ in range(20):
        root, a = rng.randint(-9, 9), rng.randint(1, 5)
        cs = [-a * root, a]
        assert abs(poly(cs, candidate(cs[:]))) < 1e-4
""", "entry_point": "find_zero"}

REFERENCES = {
    "sum of squares": ("""
def f(n):
    return sum(i * i for i in range(n + 1))
""", """
assert f(3) == 14
assert f(0) == 0
""", "f"),
    "dictionary": ("""
def count_words(text: str) -> dict:
    counts = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return counts
""", """
def check(candidate):
    assert candidate('a b a') == {'a': 2, 'b': 1}
    assert candidate('') == {}
""", "count_words"),
    "list of tuples": ("""
from typing import List, Tuple
def pairs(xs: List[int]) -> List[Tuple[int, int]]:
    return [(x, x * x) for x in xs if x % 2]
""", """
METADATA = {'author': 'x'}
def check(candidate):
    assert candidate([1, 2, 3]) == [(1, 1), (3, 9)]
""", "pairs"),
    "tolerance": ("""
def mean(xs):
    return sum(xs) / len(xs)
""", """
import math
def check(candidate):
    for k in range(1, 20):
        assert abs(candidate([0.1] * k) - 0.1) < 1e-6
        assert math.isclose(candidate([k, k + 1]), k + 0.5)
""", "mean"),
    "polynomial root": (ROOT["prompt"] + ROOT["canonical_solution"], SOURCES["humaneval"].convert(ROOT)["tests"], "find_zero"),
    "recursion": ("""
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
""", """
assert [fib(i) for i in range(8)] == [0, 1, 1, 2, 3, 5, 8, 13]
""", "fib"),
    "memo": ("""
from functools import lru_cache
@lru_cache(maxsize=None)
def ways(n):
    return 1 if n < 2 else ways(n - 1) + ways(n - 2)
""", """
assert ways(80) == 37889062373143906
""", "ways"),
    "regular expression": (r"""
import re
def digits(s):
    return [int(x) for x in re.findall(r'-?\d+', s)]
""", """
assert digits('a1b-22c') == [1, -22]
assert digits('') == []
""", "digits"),
    "strings": ("""
def caesar(s, k=1):
    return ''.join(chr((ord(c) - 97 + k) % 26 + 97) if c.isalpha() else c for c in s.lower())
""", """
assert caesar('xyz') == 'yza'
assert caesar('a b', k=2) == 'c d'
""", "caesar"),
    "sets": ("""
def common(a, b):
    return set(a) & set(b)
""", """
assert common([1, 2], [2, 3]) == {2}
assert common([], []) == set()
""", "common"),
    "large integers": ("""
import math
def digits_of(n):
    return sum(map(int, str(math.factorial(n))))
""", """
assert digits_of(100) == 648
""", "digits_of"),
    "exceptions": ("""
def parse(text):
    try:
        value = int(text)
    except ValueError:
        raise ValueError('no number') from None
    if value < 0:
        raise KeyError(text)
    return value
""", """
assert parse('3') == 3
try:
    parse('x')
    assert False
except ValueError as error:
    assert 'no number' in str(error)
for bad in ('-1', '-2'):
    try:
        parse(bad)
        assert False
    except KeyError:
        pass
""", "parse"),
    "class": ("""
class Stack:
    def __init__(self):
        self.items = []
    def push(self, x):
        self.items.append(x)
        return self
    def __len__(self):
        return len(self.items)

def depth(xs):
    stack = Stack()
    for x in xs: stack.push(x)
    return len(stack)
""", """
assert depth([1, 2, 3]) == 3
""", "depth"),
    "generator": ("""
def primes():
    found, n = [], 2
    while True:
        if all(n % p for p in found):
            found.append(n)
            yield n
        n += 1

def first_primes(k):
    source = primes()
    return [next(source) for _ in range(k)]
""", """
assert first_primes(6) == [2, 3, 5, 7, 11, 13]
""", "first_primes"),
    "yield from": ("""
def flat(x):
    if isinstance(x, list):
        for y in x:
            yield from flat(y)
    else:
        yield x

def flatten(x):
    return list(flat(x))
""", """
assert flatten([1, [2, [3, []]], 4]) == [1, 2, 3, 4]
""", "flatten"),
    "heap": ("""
import heapq as hq
def smallest(xs, k):
    heap = list(xs)
    hq.heapify(heap)
    return [hq.heappop(heap) for _ in range(k)]
""", """
assert smallest([5, 1, 4, 2], 3) == [1, 2, 4]
""", "smallest"),
    "inheritance": ("""
class Shape:
    def area(self): raise NotImplementedError
class Square(Shape):
    def __init__(self, a): self.a = a
    def area(self): return self.a ** 2
class Circle(Shape):
    def __init__(self, r): self.r = r
    def area(self): return 3 * self.r ** 2
def areas(sizes):
    return [kind(n).area() for n in sizes for kind in (Square, Circle)]
""", """
assert areas([1, 2]) == [1, 3, 4, 12]
""", "areas"),
    "own exception": ("""
class TooSmall(ValueError):
    pass
def root(x):
    if x < 0: raise TooSmall('below zero')
    return x ** 0.5
""", """
assert root(9) == 3
try:
    root(-1)
    assert False
except ValueError as error:
    assert str(error) == 'below zero'
""", "root"),
    "property": ("""
class Box:
    def __init__(self, w, h): self.w, self.h = w, h
    @property
    def area(self): return self.w * self.h
def area(w, h):
    return Box(w, h).area
""", """
assert area(2, 3) == 6
""", "area"),
    "operator": ("""
from operator import itemgetter
def by_second(xs):
    return sorted(xs, key=itemgetter(1))
""", """
assert by_second([(1, 3), (2, 1)]) == [(2, 1), (1, 3)]
""", "by_second"),
    "compare": ("""
from functools import cmp_to_key
def largest(xs):
    order = cmp_to_key(lambda a, b: int(b + a) - int(a + b))
    return int(''.join(sorted(map(str, xs), key=order)))
""", """
assert largest([3, 30, 34, 5, 9]) == 9534330
""", "largest"),
    "fractions": ("""
from fractions import Fraction
def harmonic(n):
    total = sum(Fraction(1, k) for k in range(1, n + 1))
    return (total.numerator, total.denominator)
""", """
assert harmonic(4) == (25, 12)
""", "harmonic"),
    "statistics": ("""
import statistics
def middle(xs):
    return statistics.median(xs)
""", """
assert middle([3, 1, 2]) == 2
assert middle([1, 2]) == 1.5
""", "middle"),
    "ordered dict": ("""
from collections import OrderedDict
def unique(xs):
    return OrderedDict.fromkeys(xs, 0)
""", """
assert unique('aba') == {'a': 0, 'b': 0}
""", "unique"),
    "del": ("""
def without(xs, i):
    xs = list(xs)
    del xs[i]
    return xs
""", """
assert without([1, 2, 3], 1) == [1, 3]
""", "without"),
    "string constants": ("""
import string
def letters(s):
    return ''.join(c for c in s if c in string.ascii_letters)
""", """
assert letters('a1B!') == 'aB'
""", "letters"),
    "md5": ("""
def digest(text):
    import hashlib
    return hashlib.md5(text.encode('ascii')).hexdigest() if text else None
""", """
assert digest('Hello world') == '3e25960a79dbc69b674cd4ec67a72c62'
assert digest('') is None
""", "digest"),
    "counter": ("""
from collections import Counter
def tally(xs):
    return Counter(xs)
""", """
assert tally('aab') == {'a': 2, 'b': 1}
""", "tally"),
    "data class": ("""
from dataclasses import dataclass
@dataclass(order=True)
class Point:
    x: int
    y: int = 0
def lowest(ps):
    p = min(Point(*p) for p in ps)
    return p.x, p.y
""", """
assert lowest([(2, 1), (1, 5), (1, 2)]) == (1, 2)
""", "lowest"),
    "non-finite": ("""
def least(xs):
    best = float('inf')
    for x in xs: best = min(best, x)
    return best
""", """
assert least([]) == float('inf')
assert least([2, 1]) == 1
""", "least"),
    "match": ("""
def kind(x):
    match x:
        case []: return 'empty'
        case [a]: return 'one'
        case {'k': v}: return v
        case _: return 'other'
""", """
assert [kind([]), kind([1]), kind({'k': 2}), kind(3)] == ['empty', 'one', 2, 'other']
""", "kind"),
}  # fmt: skip
