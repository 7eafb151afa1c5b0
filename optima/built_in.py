"What the package itself adds to the tables of plug-ins: importing this module adds it (entry point `optima.plugins`)."
from optima.agents import exchange, paradigms, prompts
from optima.tasks import hub
from optima.toy import world

ADDED = (exchange, paradigms, prompts, hub, world)
