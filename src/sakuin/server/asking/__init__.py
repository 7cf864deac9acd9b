"""From a request to its answer: tokens, passes of the model, and where the answer was looked up."""
