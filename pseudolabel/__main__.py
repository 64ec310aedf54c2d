"""`python -m pseudolabel` is the command line."""

from pseudolabel.cli.main import entry

entry()
