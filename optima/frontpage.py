"What the first page shows: ours beside each source, row by row, and what it took."
from optima.budget import stage_costs
from optima.evaluation import report_rows
from optima.figures import INK, Figure, draw, empty_axes, look, plain_ticks
from optima.launcher import ARTEFACTS, ARTICLE
from optima.paper import counterpart, listed, paper_values, shown_rows
from optima.published import COUNTERPARTS, NAMES, article_values
from optima.results import row_cell, score_tokens_words, several
from optima.tables import Table

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


def means(
    lines: list[dict],  # registry lines of one preset
    name: str,  # an artefact
) -> list[dict]:
    "An artefact's rows: the means over its benchmarks."
    rows = report_rows([line for line in lines if line["system"] in ARTEFACTS[name]["systems"]])
    return [row for row in rows if row["benchmark"] == "mean"]


def beside(
    ours: dict[str, dict],  # system -> its row of `means`
    theirs: dict[str, tuple[str, str, str]],  # our system -> the source's row, its scores, its tokens
    source: str,  # whose numbers stand beside ours
    benchmarks: tuple[str, ...],  # what its scores are of
) -> Table:
    "Ours, and the row of a source that plays the same part."
    def part(place): return lambda system: theirs.get(system, ("–",) * 3)[place]
    return Table([*ours], {
        "system": str,
        "ours, toy: score [95 %]": lambda system: row_cell(ours[system], "score", 3),
        "ours, toy: tokens [95 %]": lambda system: row_cell(ours[system], "tokens", 1),
        f"{source}: row": part(0),
        f"{source}: {', '.join(benchmarks)}": part(1),
        f"{source}: tokens": part(2)}, best=("ours, toy: score [95 %]",))


def article_table(lines: list[dict]) -> Table:
    "The article's Table 1 beside the toy run."
    rows = {row["system"]: row for row in means(lines, "main_results") if row["decoding"] == "greedy"}
    values = article_values()
    theirs = {system: (method, ", ".join(f"{values[method][name]:.1f}" for name in NAMES.values()), f"{values[method]['tokens']:,.0f}")
              for system, method in COUNTERPARTS.items()}
    return beside({name: rows[name] for name in ARTICLE_ROWS}, theirs, "article", tuple(NAMES.values()))


def paper_table(lines: list[dict]) -> Table:
    "The paper's Table 1, of Llama 3 8B, beside the toy run."
    rows = {row["system"]: row for row in listed(shown_rows(means(lines, "paper_main")))}
    values = paper_values("table1")
    def told(method, key): return ", ".join(f"{values[method, name][key]:.1f}" for name in TWINS)
    methods = {system: counterpart(system) for system in rows}
    theirs = {system: (method, told(method, "score"), told(method, "tokens")) for system, method in methods.items() if method}
    return beside(rows, theirs, "paper", TWINS)


def minutes(lines: list[dict], names: tuple[str, ...]) -> float:
    "The minutes of one core that some artefacts' stages took, each stage once."
    systems = {system for name in names for system in ARTEFACTS[name]["systems"]}
    return sum(entry["seconds"] for entry in stage_costs([line for line in lines if line["system"] in systems])) / 60


def time_words(lines: list[dict]) -> str:
    "What the published runs took, on what machine."
    machines, seeds = [line["machine"] for line in lines], {line["seed"] for line in lines}
    article, paper = minutes(lines, ARTICLE), minutes(lines, tuple(name for name in ARTEFACTS if name.startswith("paper_")))
    peak = max(line["cost"]["peak_memory_mb"] for line in lines)
    return (f"Measured with {len(seeds)} seeds on {several(machine['cpu'] for machine in machines)}, "
            f"{several(machine['cores'] for machine in machines)} cores, no GPU: the article's tables took {article:.0f} minutes of one core "
            f"({article / len(seeds):.0f} a seed), the paper's {paper:.0f} ({paper / len(seeds):.0f} a seed); two experiments run "
            f"at once, so half of that on the clock. The largest held {peak:,} MB.")


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
    article = {row["system"]: row for row in means(lines, "main_results") if row["decoding"] == "greedy"}
    paper = {row["system"]: row for row in listed(shown_rows(means(lines, "paper_main")))}
    figure, axes = empty_axes(2, 3.6)
    figure.set_figwidth(10)
    for axis, (title, rows) in zip(axes, zip(SHOWN, (article, paper))):
        panel(axis, title, rows)
    told = [score_tokens_words([rows[name] for name in SHOWN[title]], "mean") for title, rows in zip(SHOWN, (article, paper))]
    return draw(figure, " ".join(told))
