"""Who runs a grid: request, plan, cells, fits, training, evaluation, and what is kept of them."""
