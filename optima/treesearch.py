Tree = grow_trees = pairs_of = read_trees = token_scale = write_trees = None
