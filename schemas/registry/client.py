"""Client of a Confluent schema registry, as the codec wants it: cached, patient, clear about what it knows.

An answer of 404/40403 is knowledge (UnknownSchema: the bytes can never be read); silence, 5xx and
anything else are not (RegistryUnavailable: the same bytes may be readable in a minute).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from schemas.errors import IncompatibleSchema, InvalidSchemaText, RegistryUnavailable, UnknownSchema
from schemas.safety import UnsafeSchema, parse_text

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
TRIES = 4
PAUSES_S = (0.1, 0.3, 0.8)
CONFIRM_S = 0.2
FORGET_UNKNOWN_S = 10.0
MAX_UNKNOWN = 10_000
AWAY_S = 10.0
"""After silence, what the disk knows is not asked for again so soon: each try costs its patience."""


class RegistryClient:
    """Thread-safe. `cache_dir` keeps what was learned for the time when the registry does not answer."""

    def __init__(self, url: str, cache_dir: Path | None = None, timeout_s: float = 12.0) -> None:
        self._url = url.rstrip("/")
        self._patience_s = timeout_s
        # Ids are a registry's own: what one said must not be taken for the word of another.
        place = urlsplit(self._url).netloc.rpartition("@")[2].replace(":", "-")
        self._cache_dir = cache_dir / place if cache_dir else None
        self._http = httpx.Client(
            base_url=self._url,
            timeout=httpx.Timeout(timeout_s, connect=2.0),
            headers={"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE},
            trust_env=False,
        )
        self._lock = threading.Lock()
        self._schemas: dict[int, Any] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._unknown: dict[int, float] = {}
        self._away_until = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def schema_by_id(self, schema_id: int) -> Any:
        """The parsed JSON schema; raises UnknownSchema (confirmed 404) or RegistryUnavailable."""
        if schema_id in self._schemas:
            return self._schemas[schema_id]
        if self._unknown.get(schema_id, 0.0) > time.monotonic():
            raise UnknownSchema(f"the registry knows no schema with id {schema_id}")
        schema = self._while_away(f"{schema_id}.json")
        if schema is None:
            try:
                schema = self._fetch(schema_id)
            except RegistryUnavailable:
                schema = self._instead(f"{schema_id}.json")
                if schema is None:
                    raise
            else:
                self._to_disk(f"{schema_id}.json", schema)
        with self._lock:
            self._schemas[schema_id] = schema
        return schema

    def schema_id(self, subject: str, schema: Any) -> int:
        """The id of `schema` under `subject`, registered if it is not there yet.

        Raises IncompatibleSchema (409), InvalidSchemaText (422) or RegistryUnavailable.
        """
        text = json.dumps(schema, separators=(",", ":"))
        known = self._ids.get((subject, text))
        if known is not None:
            return known
        name = f"{hashlib.sha256(f'{subject} {text}'.encode()).hexdigest()[:32]}.id"
        schema_id = self._while_away(name)
        if type(schema_id) is not int:
            try:
                schema_id = self._register(subject, text)
            except RegistryUnavailable:
                schema_id = self._instead(name)
                if type(schema_id) is not int:
                    raise
            else:
                self._to_disk(name, schema_id)
                self._to_disk(f"{schema_id}.json", schema)
        with self._lock:
            self._ids[subject, text] = schema_id
            self._schemas.setdefault(schema_id, schema)
        return schema_id

    def subjects(self) -> list[str]:
        """Names of all subjects; raises RegistryUnavailable."""
        return [str(name) for name in self._list("/subjects")]

    def versions(self, subject: str) -> list[dict[str, Any]]:
        """`{"subject", "version", "id", "schema" (parsed)}`, oldest first; empty for an unknown subject."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        found = []
        for number in self._list(path, missing=40401):
            status, answer = self._ask("GET", f"{path}/{number}")
            if status != 200:
                raise self._unclear("GET", f"{path}/{number}", status, answer)
            found.append({**answer, "schema": parse_text(answer["schema"])})
        return found

    def look_up(self, subject: str, schema: Any) -> int | None:
        """The id of `schema` if it is registered under `subject`, else None."""
        path = f"/subjects/{quote(subject, safe='')}"
        status, answer = self._ask("POST", path, {"schema": json.dumps(schema)})
        if status == 200:
            return int(answer["id"])
        if status == 404 and _code(answer) in {40401, 40403}:
            return None
        raise self._unclear("POST", path, status, answer)

    def compatible(self, subject: str, schema: Any) -> list[str]:
        """What forbids `schema` as the next version of `subject`: field and rule; empty if nothing does."""
        body = {"schema": json.dumps(schema)}
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions"
        status, answer = self._ask("POST", f"{path}?verbose=true", body)
        if status in {404, 405} and _code(answer) not in {40401, 40402}:
            status, answer = self._ask("POST", f"{path}/latest?verbose=true", body)
        if status == 200 and isinstance(answer, dict):
            said = [str(line) for line in answer.get("messages") or ()]
            return [] if answer.get("is_compatible") else said or ["incompatible"]
        if status == 404 and _code(answer) in {40401, 40402}:
            return []
        if status == 422:
            return [_message(answer)]
        raise self._unclear("POST", path, status, answer)

    def level(self, subject: str) -> str:
        """The compatibility level in force for `subject`, e.g. 'FULL_TRANSITIVE'."""
        path = f"/config/{quote(subject, safe='')}?defaultToGlobal=true"
        status, answer = self._ask("GET", path)
        if status == 404 and _code(answer) in {40401, 40408}:
            path = "/config"
            status, answer = self._ask("GET", path)
        if status == 200 and isinstance(answer, dict) and "compatibilityLevel" in answer:
            return str(answer["compatibilityLevel"])
        raise self._unclear("GET", path, status, answer)

    def _register(self, subject: str, text: str) -> int:
        path = f"/subjects/{quote(subject, safe='')}/versions"
        status, answer = self._ask("POST", path, {"schema": text})
        if status == 200 and isinstance(answer, dict) and type(answer.get("id")) is int:
            return int(answer["id"])
        if status == 409:
            said = _message(answer)
            raise IncompatibleSchema(said if subject in said else f"{subject}: {said}")
        if status == 422:
            raise InvalidSchemaText(f"{subject}: {_message(answer)}")
        raise self._unclear("POST", path, status, answer)

    def _fetch(self, schema_id: int) -> Any:
        path = f"/schemas/ids/{schema_id}"
        status, answer = self._ask("GET", path)
        if status == 404 and _code(answer) == 40403:
            time.sleep(CONFIRM_S)  # a registry that has just started may not know everything yet
            status, answer = self._ask("GET", path)
            if status == 404 and _code(answer) == 40403:
                self._remember_unknown(schema_id)
                raise UnknownSchema(f"the registry knows no schema with id {schema_id}")
        if status != 200 or not isinstance(answer, dict) or "schema" not in answer:
            raise self._unclear("GET", path, status, answer)
        if (answer.get("schemaType") or "AVRO") != "AVRO":
            raise UnknownSchema(f"schema {schema_id} is {answer['schemaType']}, not Avro")
        try:
            return parse_text(answer["schema"])
        except (UnsafeSchema, TypeError, AttributeError) as error:
            raise UnknownSchema(f"schema {schema_id}: {error}") from error

    def _remember_unknown(self, schema_id: int) -> None:
        with self._lock:
            if len(self._unknown) >= MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown[schema_id] = time.monotonic() + FORGET_UNKNOWN_S

    def _list(self, path: str, missing: int = 0) -> list[Any]:
        status, answer = self._ask("GET", path)
        if status == 404 and _code(answer) == missing:
            return []
        if status != 200 or not isinstance(answer, list):
            raise self._unclear("GET", path, status, answer)
        return answer

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer below 500; raises RegistryUnavailable after a few tries.

        One that is silent is asked once: it has used up the patience of all tries.
        """
        why, until = "", time.monotonic() + self._patience_s
        for attempt in range(TRIES):
            try:
                response = self._http.request(method, path, json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if response.status_code < 500 and response.status_code != 429:
                    return response.status_code, _json(response)
                why = f"HTTP {response.status_code} {_message(_json(response))}"
            if time.monotonic() > until:
                break
            if attempt < TRIES - 1:
                time.sleep(PAUSES_S[attempt])
        raise RegistryUnavailable(f"schema registry {self._url}: {why}; is it up?")

    def _unclear(self, method: str, path: str, status: int, answer: Any) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"schema registry {self._url}: {method} {path} answered {status} {_message(answer)}; "
            "does the address point to a schema registry?"
        )

    def _while_away(self, name: str) -> Any:
        """What the disk knows, if the registry was silent a moment ago; else None."""
        return self._from_disk(name) if time.monotonic() < self._away_until else None

    def _instead(self, name: str) -> Any:
        """What the disk knows, for want of an answer."""
        self._away_until = time.monotonic() + AWAY_S
        return self._from_disk(name)

    def _from_disk(self, name: str) -> Any:
        if self._cache_dir is None:
            return None
        try:
            return json.loads((self._cache_dir / name).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def _to_disk(self, name: str, value: Any) -> None:
        """Written aside and renamed, so that no reader ever sees half a file; a full disk is no error."""
        if self._cache_dir is None:
            return
        aside = self._cache_dir / f"{name}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            self._cache_dir.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(value), "utf-8")
            aside.replace(self._cache_dir / name)
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _code(answer: Any) -> int:
    return answer.get("error_code", 0) if isinstance(answer, dict) else 0


def _message(answer: Any) -> str:
    return str(answer.get("message", "")) if isinstance(answer, dict) else ""
