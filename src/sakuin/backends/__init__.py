"""Who runs the weights. Each folder here is the only place that knows its model library."""
