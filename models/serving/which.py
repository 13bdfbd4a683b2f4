"""Which task a request means that need not name one."""

from __future__ import annotations

from models.serving.instances import FieldError, InvalidRequest
from models.serving.service import Service


def the_task(service: Service, named: object = None) -> str:
    """The task of that name, or without a name (None or empty) the only one there is.

    Raises Problem 404 for an unknown name, InvalidRequest where several could be meant.
    """
    if named is None or named == "":
        if len(service.desks) == 1:
            return next(iter(service.desks))
        known = ", ".join(sorted(service.desks)) or "none"
        raise InvalidRequest([FieldError("task", f"is missing: this service has {known}")])
    if not isinstance(named, str):
        raise InvalidRequest([FieldError("task", "must be the name of a task, as text")])
    return service.desk(named).task.name
