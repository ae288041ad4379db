"""``python -m workersai``: the command, where its script is not on the path."""

from workersai.cli import main

main()
