"""A context: documents that a model has read, questions, answers and where they were found."""
