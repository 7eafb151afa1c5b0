"Train teams of language-model agents to be right with fewer tokens."
import warnings

__version__ = "0.1.0"

# What other libraries tell their own developers would be stored in every saved notebook, with a machine path.
for message in ("IProgress not found", "`is_gradient_checkpointing` is deprecated"):
    warnings.filterwarnings("ignore", message=message)
