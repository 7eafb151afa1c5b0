"The version of each stage: a part of its key."

# Raise a number by hand when the results of that stage change: experiments made before are then made again.
STAGE_VERSIONS = {"generate": 3, "demonstrate": 1, "rank": 2, "select": 3, "train": 3, "evaluate": 4,
                  "evaluate_iteration": 3, "choose": 3}
PAPER_VERSIONS = {"grow": 1, "pair": 1, "prefer": 2, "sample": 1}  # of stages that only the paper's systems have
