"""The checks of ``workersai doctor``: one call of each form, the shape of each reply, and what to do about it."""
