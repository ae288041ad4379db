"""One call from its arguments to its answer: the drivers that carry a flow's steps out."""
