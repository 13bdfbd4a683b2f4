"""Options and arguments that many verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
OneTask = Annotated[
    str | None, typer.Option("--task", help="Needed only where there are several tasks.")
]
OneVersion = Annotated[str, typer.Argument(help="e.g. flights-3", metavar="VERSION")]
Reason = Annotated[str, typer.Option("--reason", help="Why: it goes into the log with your name.")]
