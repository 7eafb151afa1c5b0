"Agents: what they say, how they talk, and how that looks."
from optima.agents import viewer  # noqa: F401  gives dialogues their look in notebooks
