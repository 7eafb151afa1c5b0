def draw_formats(names, task_id, samples, seed): return list(names)[:samples]
