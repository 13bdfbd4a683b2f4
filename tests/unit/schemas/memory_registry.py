"""A schema registry in a dict."""

from __future__ import annotations

from typing import Any

from schemas.errors import UnknownSchema


class MemoryRegistry:
    def __init__(self) -> None:
        self.schemas: list[Any] = []

    def schema_by_id(self, schema_id: int) -> Any:
        if not 1 <= schema_id <= len(self.schemas):
            raise UnknownSchema(f"no schema {schema_id}")
        return self.schemas[schema_id - 1]

    def schema_id(self, subject: str, schema: Any) -> int:
        if schema not in self.schemas:
            self.schemas.append(schema)
        return self.schemas.index(schema) + 1
