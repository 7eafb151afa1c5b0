"What a test may do without, unless OPTIMA_REQUIRE names it."
import os

import pytest


def leave(what: str, reason: str):
    "Skip; where OPTIMA_REQUIRE names what is missing, fail."
    required = what in os.environ.get("OPTIMA_REQUIRE", "").split(",")
    (pytest.fail if required else pytest.skip)(reason)
