"""Single resources of a FHIR source, gathered by patient in a database without a name."""

from __future__ import annotations

import sqlite3
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from kypho_kg.intake_report import IntakeReport
from kypho_kg.sources.codes import Malformed
from kypho_kg.sources.fhir_codes import Json
from kypho_kg.sources.fhir_json import Held, glance, reference, resource_of
from kypho_kg.sources.fhir_resources import OWNED

KEPT_APART = "Medication"
"""The one kind that belongs to no patient and is referred to."""
_AT_ONCE = 1 << 16
"""Names of resources that are held in memory before they are written down."""


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
        self.db.execute("CREATE TABLE shared (key TEXT PRIMARY KEY, body BLOB)")
        self._owners: set[str] = set()
        self._names = array("q")
        self._passed = array("q")
        self._spill = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the rest; it has no name on disk

    def close(self) -> None:
        """Forget everything."""
        self.db.close()
        self._spill.close()

    def passed(self, held: Held) -> bool:
        """Note a resource that says nothing; false where it is rejected. Only its patient and its name are kept."""
        try:
            self._owners.add(held.owner({}))
        except Malformed as error:
            self.report.reject(held.where, f"{held.kind}.{error.field} cannot be read", error.expected)
            return False
        self._passed.append(hash((held.kind, held.id)))
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
        try:
            id_ = held.id
            if kind == "Patient":
                if not id_:
                    raise Malformed("id", "the id of the patient")
                owner = f"Patient/{id_}"
            elif kind == KEPT_APART:
                owner = ""
            elif kind in OWNED:
                owner = held.owner({})
            else:
                self.report.left(kind, "this kind of resource is not read")
                return
            if owner:
                self.db.execute("INSERT INTO held VALUES (?, ?, ?)", (owner, held.where, held.raw))
                self._names.append(hash((kind, id_)))
            else:
                self.db.execute("INSERT OR REPLACE INTO shared VALUES (?, ?)", (f"{kind}/{id_}", held.raw))
        except Malformed as error:
            self.report.reject(held.where, f"{kind}.{error.field} cannot be read", error.expected)
        except UnicodeEncodeError:
            self.report.reject(held.where, "an id holds broken text", "Unicode")

    def groups(self) -> Iterator[Group]:
        """The resources of one patient after another; none of a patient of whom all were passed."""
        self.db.execute("CREATE INDEX by_owner ON held (owner)")
        silent = self._owners.difference(row[0] for row in self.db.execute("SELECT DISTINCT owner FROM held"))
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

    def shared(self, ref: str) -> Json | None:
        """A resource that belongs to no patient."""
        row = self.db.execute("SELECT body FROM shared WHERE key = ?", (reference(ref),)).fetchone()
        return resource_of(row[0]) if row else None


def restored(where: str, body: bytes) -> Held:
    """A resource that was kept; what was looked over then is looked over again."""
    seen = glance(body)
    return Held(where, body, seen if seen is not None and seen.resourceType else None)
