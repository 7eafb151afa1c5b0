"Train teams of language-model agents to be right with fewer tokens."
__version__ = "0.1.0"
