"What the toy world adds: its benchmarks, and the words in which its teams are spoken to."
from optima.agents.paradigms import Prompts
from optima.agents.prompts import PROMPTS
from optima.tasks.task import BENCHMARKS
from optima.toy import exchanges, functions, lookups
from optima.toy.exchange_talk import PAPER_PROMPTS
from optima.toy.talk import TOY_PROMPTS

for made in (functions.toy_humaneval, functions.toy_mbpp, lookups.toy_hotpotqa, lookups.toy_math,
             exchanges.toy_2wikimultihopqa, exchanges.toy_cbt, exchanges.toy_gsm8k, exchanges.toy_arc):
    BENCHMARKS.add(made.name, made)

PROMPTS.add("toy", Prompts(**TOY_PROMPTS))
PROMPTS.add("toy_paper", Prompts(**PAPER_PROMPTS))
