"What the first page shows: ours beside each source, row by row, and what it took."
from collections import Counter

from optima.config.artefacts import ARTEFACTS, ARTICLE
from optima.config.systems import TRAINED, system_of
from optima.evaluate.statistics import comparisons, report_rows
from optima.report.against_paper import counterpart, listed, paper_values, shown_rows
from optima.report.budget import stage_costs
from optima.report.figures import INK, Figure, draw, empty_axes, look, plain_ticks
from optima.report.main import about, finding, machine_name, resampled, row_cell, score_tokens_words, several
from optima.report.published import COUNTERPARTS, NAMES, article_values
from optima.report.tables import Table

ARTICLE_ROWS = ("single", "untrained_debate", "untrained_multi_step", "terse_debate", "terse_multi_step", "teacher_debate",
                "random_selection_debate", "random_selection_multi_step", "optima_debate", "optima_multi_step")
SHOWN = {  # in the picture: system -> its label, and where that stands from the point, in points of type
    "the article's method": {"untrained_debate": ("untrained", (-14, -24)), "single": ("single", (-6, -16)),
                             "terse_debate": ("untrained, best prompt", (-66, 10)), "random_selection_debate": ("random control", (-24, 40)),
                             "optima_debate": ("trained", (12, -4))},
    "the paper's methods": {"untrained": ("untrained", (9, 8)), "cot": ("chain of thought", (-92, -3)),
                            "autoform": ("untrained, brief prompt", (10, -4)), "random_selection": ("random control", (-34, -46)),
                            "tuned_single": ("one agent, trained", (-60, -19)), "isft": ("trained: iSFT", (12, -16)),
                            "isft_dpo": ("trained: iSFT-DPO", (14, 4))},
}
TWINS = ("2WikiMultiHopQA", "CBT", "GSM8K", "ARC-C")  # the four of the paper's benchmarks that have a toy


def rows_of_article(lines: list[dict]) -> list[dict]:
    "The greedy rows of the article's main results."
    return [row for row in report_rows(lines_of(lines, "main_results")) if row["decoding"] == "greedy"]


def rows_of_paper(lines: list[dict]) -> list[dict]:
    "The rows of the paper's main table: greedy answers and votes."
    return listed(shown_rows(report_rows(lines_of(lines, "paper_main"))))


def lines_of(
    lines: list[dict],  # registry lines of one preset
    name: str,  # an artefact
) -> list[dict]:
    "The lines of an artefact's systems."
    return [line for line in lines if line["system"] in ARTEFACTS[name]["systems"]]


def means(rows: list[dict]) -> dict[str, dict]:
    "System -> its mean over the benchmarks."
    return {row["system"]: row for row in rows if row["benchmark"] == "mean"}


def beside(
    rows: list[dict],  # ours, of all benchmarks
    systems: tuple[str, ...],  # those to show
    theirs: dict[str, tuple[str, str, str]],  # our system -> the source's row, its scores, its tokens
    source: str,  # whose numbers stand beside ours
    benchmarks: tuple[str, ...],  # what its scores are of
) -> Table:
    "Ours, and the row of a source that plays the same part."
    ours = means(rows)
    def part(place): return lambda system: theirs.get(system, ("–",) * 3)[place]
    return Table([*systems], {
        "system": str,
        "ours, toy: score [95 %]": lambda system: row_cell(ours[system], "score", 3),
        "ours, toy: tokens [95 %]": lambda system: row_cell(ours[system], "tokens", 1),
        f"{source}: row": part(0),
        f"{source}: {', '.join(benchmarks)}": part(1),
        f"{source}: tokens": part(2)}, f"{about(rows)}: the mean of {several(row['n'] for row in ours.values())} tasks; {resampled(rows)}",
        best=("ours, toy: score [95 %]",))


def article_table(lines: list[dict]) -> Table:
    "The article's Table 1 beside the toy run."
    values = article_values()
    theirs = {system: (method, ", ".join(f"{values[method][name]:.1f}" for name in NAMES.values()), f"{values[method]['tokens']:,.0f}")
              for system, method in COUNTERPARTS.items()}
    return beside(rows_of_article(lines), ARTICLE_ROWS, theirs, "article", tuple(NAMES.values()))


def paper_table(lines: list[dict]) -> Table:
    "The paper's Table 1, of Llama 3 8B, beside the toy run."
    rows, values = rows_of_paper(lines), paper_values("table1")
    def told(method, key): return ", ".join(f"{values[method, name][key]:.1f}" for name in TWINS)
    methods = {system: counterpart(system) for system in means(rows)}
    theirs = {system: (method, told(method, "score"), told(method, "tokens")) for system, method in methods.items() if method}
    return beside(rows, tuple(methods), theirs, "paper", TWINS)


def tuned_words(lines: list[dict]) -> list[str]:
    "Each way of training a team against one agent that was trained by the same loop, in a sentence."
    compared = shown_rows(comparisons(lines_of(lines, "paper_main"), [(name, "paper_tuned_single") for name in TRAINED], "greedy"))
    return [finding(row) for row in compared if row["benchmark"] == "mean"]


def minutes(lines: list[dict], names: tuple[str, ...]) -> float:
    "The minutes of one core that some artefacts' stages took, each stage once."
    systems = {system for name in names for system in ARTEFACTS[name]["systems"]}
    return sum(entry["seconds"] for entry in stage_costs([line for line in lines if line["system"] in systems])) / 60


def again(
    lines: list[dict],  # registry lines of the preset toy
    name: str,  # an artefact
) -> str:
    "The command that makes an artefact's numbers again, and what it took."
    seeds, taken = len({line["seed"] for line in lines_of(lines, name)}), minutes(lines, (name,))
    return (f"`optima reproduce --only {name} --seeds {seeds}` makes these numbers again: "
            f"{taken:.0f} minutes of one core ({taken / seeds:.0f} a seed).")


def chosen_words(lines: list[dict]) -> str:
    "Which prompts did best for the untrained teams, and how often."
    chosen = Counter(name for line in lines if system_of(line["system"]).done == "terse" for name in line["results"]["evaluation_strategy"].values())
    told = ", ".join(f"`{name}` {count} times" for name, count in chosen.most_common())
    return f"The best prompt of `terse_*`, chosen for each seed and benchmark: {told} of {chosen.total()}."


def time_words(lines: list[dict]) -> str:
    "What the published runs took, on what machine."
    machines, seeds = [line["machine"] for line in lines], {line["seed"] for line in lines}
    article, paper = minutes(lines, ARTICLE), minutes(lines, tuple(name for name in ARTEFACTS if name not in ARTICLE))
    peak = max(line["cost"]["peak_memory_mb"] for line in lines)
    return (f"Measured with {len(seeds)} seeds on {'; '.join(sorted({machine_name(machine) for machine in machines}))}: the article's tables "
            f"took {article:.0f} minutes of one core ({article / len(seeds):.0f} a seed), the paper's {paper:.0f} ({paper / len(seeds):.0f} a seed). "
            f"As many experiments run at once as there are cores. The largest held {peak:,} MB.")


def panel(axis, title: str, rows: dict[str, dict]) -> None:
    "Score against tokens of some systems, each labelled at its point."
    for system, (label, away) in SHOWN[title].items():
        row, style = rows[system], look(system)
        spread = [[[abs(bound - row[name])] for bound in row[f"{name}_ci"]] for name in ("tokens", "score")]
        axis.errorbar(row["tokens"], row["score"], *spread[::-1], elinewidth=1.4, capsize=2, markersize=8, fmt=style["marker"], color=style["color"])
        axis.annotate(label, (row["tokens"], row["score"]), away, textcoords="offset points", fontsize=9, color=INK)
    axis.set(xscale="log", xlim=(6, 320), ylim=(0.3, 1.04), xlabel="generated tokens per task (log scale)", ylabel="score")
    axis.set_title(f"{title}, toy twins", loc="left", fontsize=10, color=INK)
    plain_ticks(axis)


def picture(lines: list[dict]) -> Figure:
    "The first screen's picture: score against tokens, in both toy worlds."
    article, paper = means(rows_of_article(lines)), means(rows_of_paper(lines))
    figure, axes = empty_axes(2, 3.6)
    figure.set_figwidth(10)
    for axis, (title, rows) in zip(axes, zip(SHOWN, (article, paper))):
        panel(axis, title, rows)
    told = [score_tokens_words([rows[name] for name in SHOWN[title]], "mean") for title, rows in zip(SHOWN, (article, paper))]
    return draw(figure, " ".join(told))
