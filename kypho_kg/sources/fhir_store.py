"""Single resources of a FHIR source, gathered by patient in a database without a name."""

from __future__ import annotations

import sqlite3
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kypho_kg.intake_report import IntakeReport
from kypho_kg.sources.codes import Malformed
from kypho_kg.sources.fhir_codes import Json
from kypho_kg.sources.fhir_json import Glance, Held, glance, patient_of, reference, resource_of
from kypho_kg.sources.fhir_resources import OWNED

KEPT_APART = "Medication"
"""The one kind that belongs to no patient and is referred to."""
STAY = "Encounter"
"""The kind that others take their date from."""
READ = OWNED | {"Patient", KEPT_APART}
"""The kinds that are read."""
NOT_READ = "this kind of resource is not read"
_AT_ONCE = 1 << 16
"""Names of resources that are held in memory before they are written down."""
_ROWS = 1 << 8
"""Resources that are held in memory before they are written down."""


@dataclass(slots=True)
class Group:
    """The resources of one patient."""

    patient: str
    resources: list[Held] = field(default_factory=list)


class Gathered:
    """Single resources by patient, in a database without a name: SQLite removes its file with the connection."""

    def __init__(self, report: IntakeReport) -> None:
        self.report = report
        self.db = sqlite3.connect("")
        self.db.execute("PRAGMA journal_mode = OFF")
        self.db.execute("CREATE TABLE held (owner TEXT, place TEXT, body BLOB)")
        self.db.execute("CREATE TABLE stays (owner TEXT, key TEXT, body BLOB)")
        self.db.execute("CREATE TABLE shared (key TEXT PRIMARY KEY, body BLOB)")
        self._owners: dict[str, str] = {}
        self._rows: dict[str, list[tuple[str, str, bytes]]] = {"held": [], "stays": []}
        self._names = array("q")
        self._passed = array("q")
        self._spill = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the rest; it has no name on disk

    def close(self) -> None:
        """Forget everything."""
        self.db.close()
        self._spill.close()

    def passed(self, where: str, seen: Glance, raw: bytes) -> bool:
        """Note a resource that says nothing; false where it is rejected.

        Only its patient and its name are kept; a stay is kept whole, for others may take their date from it.
        """
        try:
            said = seen.owner
            owner = self._owners.get(said) or self._owners.setdefault(said, _sound(patient_of(said.strip(), {})))
            if seen.resourceType == STAY:
                self._keep("stays", owner, _sound(f"{STAY}/{seen.id.strip()}"), raw)
        except Malformed as error:
            self.report.reject(where, f"{seen.resourceType}.{error.field} cannot be read", error.expected)
            return False
        except UnicodeEncodeError:
            self.report.reject(where, "an id holds broken text", "Unicode")
            return False
        self._passed.append(seen.name)
        if len(self._passed) >= _AT_ONCE:
            self._passed.tofile(self._spill)
            del self._passed[:]
        return True

    def contested(self) -> frozenset[int]:
        """Names of resources of which one version was kept and another one was passed."""
        kept = np.unique(np.frombuffer(self._names, np.int64)) if self._names else np.empty(0, np.int64)
        self._passed.tofile(self._spill)
        self._spill.seek(0)
        found: set[int] = set()
        while some := self._spill.read(8 * _AT_ONCE):
            names = np.frombuffer(some, np.int64)
            found.update(names[np.isin(names, kept)].tolist())
        return frozenset(found)

    def add(self, held: Held) -> None:
        """Keep a resource that is read; report one that is not."""
        kind = held.kind
        if kind not in READ:
            self.report.left(kind, NOT_READ)
            return
        try:
            id_ = held.id
            if kind == "Patient":
                if not id_:
                    raise Malformed("id", "the id of the patient")
                owner = f"Patient/{id_}"
            elif kind == KEPT_APART:
                owner = ""
            else:
                owner = held.owner({})
            if owner:
                self._keep("held", _sound(owner), _sound(held.where), held.raw)
                self._names.append(held.name)
            else:
                self.db.execute("INSERT OR REPLACE INTO shared VALUES (?, ?)", (f"{kind}/{id_}", held.raw))
        except Malformed as error:
            self.report.reject(held.where, f"{kind}.{error.field} cannot be read", error.expected)
        except UnicodeEncodeError:
            self.report.reject(held.where, "an id holds broken text", "Unicode")

    def _keep(self, table: str, *row: Any) -> None:
        rows = self._rows[table]
        rows.append(row)
        if len(rows) >= _ROWS:
            self._write(table)

    def _write(self, table: str) -> None:
        self.db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", self._rows[table])
        self._rows[table].clear()

    def groups(self) -> Iterator[Group]:
        """The resources of one patient after another; none of a patient of whom all were passed."""
        for table in self._rows:
            self._write(table)
        self.db.execute("CREATE INDEX by_owner ON held (owner)")
        self.db.execute("CREATE INDEX by_key ON stays (key)")
        told = (row[0] for row in self.db.execute("SELECT DISTINCT owner FROM held"))
        silent = set(self._owners.values()).difference(told)
        self.db.executemany("INSERT INTO held VALUES (?, '', x'')", ((owner,) for owner in silent))
        group: Group | None = None
        for owner, where, body in self.db.execute("SELECT owner, place, body FROM held ORDER BY owner, place"):
            patient = owner.partition("/")[2]
            if group is None or group.patient != patient:
                if group is not None:
                    yield group
                group = Group(patient)
            if body:
                group.resources.append(restored(where, body))
        if group is not None:
            yield group

    def stays(self, patient: str, key: str) -> list[Json]:
        """The versions of a stay of a patient that says nothing itself.

        :param key: ``Encounter/id``.
        """
        rows = self.db.execute("SELECT body FROM stays WHERE key = ? AND owner = ?", (key, f"Patient/{patient}"))
        return [found for row in rows if (found := resource_of(row[0]))]

    def shared(self, ref: str) -> Json | None:
        """A resource that belongs to no patient."""
        row = self.db.execute("SELECT body FROM shared WHERE key = ?", (reference(ref),)).fetchone()
        return resource_of(row[0]) if row else None


def _sound(text: str) -> str:
    """The text itself.

    :raises UnicodeEncodeError: when it is not Unicode throughout.
    """
    text.encode()
    return text


def restored(where: str, body: bytes) -> Held:
    """A resource that was kept; what was looked over then is looked over again."""
    seen = glance(body)
    return Held(where, body, seen if seen is not None and seen.resourceType else None)
