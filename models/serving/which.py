"""Which task a request means that need not name one."""

from __future__ import annotations

from models.serving.instances import FieldError, InvalidRequest
from models.serving.service import Service


def only_task(service: Service) -> str:
    """The task there is; raises InvalidRequest if there are several."""
    if len(service.desks) == 1:
        return next(iter(service.desks))
    known = ", ".join(sorted(service.desks)) or "no task"
    raise InvalidRequest([FieldError("task", f"is missing: this service has {known}")])


def named_task(service: Service, name: object) -> str:
    """The task of this name; raises Problem 404 if there is none, InvalidRequest if it is no text."""
    if not isinstance(name, str):
        raise InvalidRequest([FieldError("task", "must be the name of a task, as text")])
    return service.desk(name).task.name
