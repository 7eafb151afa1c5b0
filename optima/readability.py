def readability_losses(engine, trajectories): return [1.0]*len(trajectories)
def rank_like_the_paper(*a): raise NotImplementedError
