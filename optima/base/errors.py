"Errors that a user can act on, and the one line that tells them how."
from difflib import get_close_matches


class OptimaError(Exception):
    "What is wrong, where, and what to do, in one line; the command line prints it and exits with code 2."


def suggest(
    what: str,  # kind of thing, such as "system" or "preset"
    name: str,  # the name that was asked for
    choices,  # the names that exist
) -> str:
    "One line that lists the valid names, the closest first."
    choices = sorted(choices)
    close = get_close_matches(str(name), choices, n=3, cutoff=0.4)
    ordered = close + [choice for choice in choices if choice not in close]
    return f"unknown {what} {name!r}; choose one of: {', '.join(ordered)}"
