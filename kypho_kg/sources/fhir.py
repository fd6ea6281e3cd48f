"""FHIR R4 (also R4B and R5) in JSON to records: Bundles, one or many in a file, and folders of a bulk export.

What becomes what, and what does not, is written in docs/fhir.md. Codes mean what the mappings say; this module knows
the structure of FHIR and nothing clinical.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.record import Record
from kypho_kg.sources.fhir_codes import Codes, Json, Malformed, text, tree
from kypho_kg.sources.fhir_resources import OWNED, ResourceReader
from kypho_kg.sources.lesions import build

_SUFFIXES = (".ndjson", ".ndjson.gz")
_GZIP = b"\x1f\x8b"
_KEPT_APART = "Medication"
"""The one kind that belongs to no patient and is referred to."""

Placed = tuple[str, Json]
"""A resource with its place."""


def read_fhir(
    path: Path,
    knowledge: Knowledge,
    report: IntakeReport,
    *,
    mappings: Mappings | None = None,
    as_of: date | None = None,
) -> Iterator[Record]:
    """One record for each patient of a FHIR file or folder.

    Bundles come out as they are read, each by itself; single resources are gathered by patient first, in a temporary
    database that has no name on disk. What cannot be read is in the report and costs nothing else.

    :param path: ``.json`` or ``.ndjson``, each also ``.gz``; or a folder with ``.ndjson`` files.
    :param mappings: by default the bundled ones.
    :param as_of: becomes the as-of date of each record.
    """
    codes = Codes(knowledge, mappings or load_mappings(knowledge), report)
    return _Source(path, codes, report, as_of).records()


@dataclass(slots=True)
class _Group:
    """The resources of one patient."""

    patient: str
    resources: list[Placed] = field(default_factory=list)


class _Source:
    def __init__(self, path: Path, codes: Codes, report: IntakeReport, as_of: date | None) -> None:
        self.path = path
        self.codes = codes
        self.report = report
        self.as_of = as_of

    def records(self) -> Iterator[Record]:
        with closing(_Store(self.report)) as store:
            for file in self._files():
                for where, content, raw in self._contents(file):
                    kind = content.get("resourceType")
                    if kind == "Bundle":
                        yield from self._bundle(file.name, where, content)
                    elif isinstance(kind, str) and kind:
                        self.report.saw(kind)
                        store.add(where, content, raw)
                    else:
                        self.report.reject(where, "resourceType is missing", "a FHIR resource")
            for group in store.groups():
                yield from self._record(group, self.path.name, store.shared)

    # -- files

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        found = sorted(p for p in self.path.iterdir() if p.is_file() and p.name.lower().endswith(_SUFFIXES))
        if not found:
            self.report.reject(self.path.name, "the folder holds no NDJSON", "files with .ndjson or .ndjson.gz")
        return found

    def _contents(self, file: Path) -> Iterator[tuple[str, Json, bytes]]:
        """The objects of a file with their places and their text: each line, or the whole file."""
        lines = file.name.lower().endswith(_SUFFIXES)
        place = f"{file.name}:1"
        try:
            with file.open("rb") as raw:
                packed = raw.read(2) == _GZIP
                raw.seek(0)
                stream = gzip.GzipFile(fileobj=raw) if packed else raw
                if not lines:
                    whole = stream.read()
                    found = self._parsed(place, whole)
                    if found is not None:
                        yield place, found, whole
                    return
                for number, line in enumerate(stream, start=1):
                    place = f"{file.name}:{number}"
                    found = self._parsed(place, line) if line.strip() else None
                    if found is not None:
                        yield place, found, line
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.report.reject(place, "the compressed file is damaged after this line", "a whole gzip file")
        except OSError as error:
            self.report.reject(file.name, f"cannot be read: {error.strerror or 'input error'}", "a FHIR file")

    def _parsed(self, place: str, raw: bytes) -> Json | None:
        try:
            found = _loaded(raw)
        except UnicodeDecodeError:
            self.report.reject(place, "no UTF-8", "JSON in UTF-8")
        except RecursionError:
            self.report.reject(place, "nested too deeply", "a FHIR resource")
        except ValueError:  # also of a number with thousands of digits
            self.report.reject(place, "no valid JSON", "one JSON object, or one in each line of NDJSON")
        else:
            if isinstance(found, dict):
                return found
            self.report.reject(place, "no JSON object", "a FHIR resource or Bundle")
        return None

    # -- bundles

    def _bundle(self, file: str, where: str, bundle: Json) -> Iterator[Record]:
        self.report.saw("Bundle")
        names: dict[str, str] = {}
        shared: dict[str, Json] = {}
        groups: dict[str, _Group] = {}
        owned: list[Placed] = []
        entries = bundle.get("entry", [])
        if not isinstance(entries, list):
            self.report.reject(where, "Bundle.entry is no list", "a list of entries")
            return
        for number, entry in enumerate(entries):
            place = f"{where}, entry[{number}]"
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
                request = entry.get("request") if isinstance(entry, dict) else None
                if isinstance(request, dict) and request.get("method") == "DELETE":
                    self.report.left("Bundle", "an entry that deletes")
                else:
                    self.report.reject(place, "the entry has no resource", "a resource with its resourceType")
                continue
            kind = resource["resourceType"]
            self.report.saw(kind)
            try:
                url, id_ = text(entry, "fullUrl"), text(resource, "id")
                if not id_ and url:
                    id_ = url.rpartition("/")[2].removeprefix("urn:uuid:")
                    resource = {**resource, "id": id_}
                key = f"{kind}/{id_}" if id_ else ""
                names.update({url: key} if url and key else {})
                if kind == _KEPT_APART:
                    shared[key] = resource
                elif kind == "Patient" and not id_:
                    raise Malformed("id", "the id of the patient, or a fullUrl")
                elif kind == "Patient":
                    groups.setdefault(key, _Group(id_)).resources.append((place, resource))
                elif kind in OWNED:
                    owned.append((place, resource))
                else:
                    self.report.left(kind, "this kind of resource is not read")
            except Malformed as error:
                self.report.reject(place, f"{kind}.{error.field} cannot be read", error.expected)
        own = frozenset(groups)
        for place, resource in owned:
            kind = resource["resourceType"]
            try:
                owner = _owner(resource, names)
            except Malformed as error:
                self.report.reject(place, f"{kind}.{error.field} cannot be read", error.expected)
                continue
            if own and owner not in own:
                self.report.reject(place, f"{kind} names another patient than the Bundle holds", "the Bundle's patient")
            else:
                groups.setdefault(owner, _Group(owner.partition("/")[2])).resources.append((place, resource))
        for _, group in sorted(groups.items()):
            yield from self._record(group, file, lambda ref: shared.get(names.get(ref, reference(ref))), names)

    def _record(
        self, group: _Group, file: str, shared: Callable[[str], Json | None], names: dict[str, str] | None = None
    ) -> Iterator[Record]:
        def named(ref: str) -> str:
            return (names or {}).get(ref) or reference(ref)

        resources = _unique(group.resources, self.report)
        reader = ResourceReader(self.codes, self.report, resources, file, named, shared)
        statements = []
        for where, resource in resources:
            try:
                statements += reader.read(where, resource)
            except Malformed as error:
                self.report.reject(where, f"{resource['resourceType']}.{error.field} cannot be read", error.expected)
        if not any(resource["resourceType"] == "Patient" for _, resource in resources):
            self.report.left("Patient", "named, but not in the source")
        record = build(group.patient, statements, self.codes.k, self.report, self.as_of)
        self.report.records += 1
        yield replace(record, files=(file,))


# --------------------------------------------------------------------------------------------------------------------
# References and copies


def reference(ref: str) -> str:
    """``Type/id`` of a reference, whatever server and version it names; a UUID is taken as the id of a patient."""
    ref = ref.partition("/_")[0].rstrip("/")
    if ref.startswith("urn:uuid:"):
        return f"Patient/{ref.removeprefix('urn:uuid:')}"
    return "/".join(ref.split("/")[-2:])


def _owner(resource: Json, names: dict[str, str] | None = None) -> str:
    """``Patient/id`` of the patient that a resource names."""
    name = "patient" if "patient" in resource else "subject"
    said = text(tree(resource, name), "reference")
    found = (names or {}).get(said) or reference(said)
    if not found.startswith("Patient/") or len(found) <= len("Patient/"):
        raise Malformed(name, "a reference to a Patient")
    return found


def _version(resource: Json) -> tuple[str, str]:
    """A place among the versions of a resource, the newest last; the same content has the same place."""
    meta = resource.get("meta")
    updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    rest = {k: v for k, v in resource.items() if k != "meta"}
    return (updated if isinstance(updated, str) else ""), json.dumps(rest, sort_keys=True, default=str)


def _unique(resources: Iterable[Placed], report: IntakeReport) -> list[Placed]:
    """Each resource once, in its newest version, in an order of its own."""
    kept: dict[tuple[str, str], tuple[tuple[str, str], Placed]] = {}
    for where, resource in resources:
        kind, id_ = resource["resourceType"], resource.get("id")
        try:
            version = _version(resource)
        except (RecursionError, TypeError, ValueError):
            report.reject(where, f"{kind} is nested too deeply", "a FHIR resource")
            continue
        key = (kind, id_ if isinstance(id_, str) and id_ else version[1])
        if key in kept:
            same = kept[key][0][1] == version[1]
            report.left(kind, "a copy of another one" if same else "another version of the same resource")
        if key not in kept or version > kept[key][0]:
            kept[key] = version, (where, resource)
    return [placed for _, (_, placed) in sorted(kept.items(), key=lambda item: item[0])]


def _loaded(raw: bytes) -> object:
    return json.loads(raw.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_no_number)


def _no_number(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


class _Store:
    """Single resources by patient, in a database without a name: SQLite removes its file with the connection."""

    def __init__(self, report: IntakeReport) -> None:
        self.report = report
        self.db = sqlite3.connect("")
        self.db.execute("PRAGMA journal_mode = OFF")
        self.db.execute("CREATE TABLE held (owner TEXT, place TEXT, body BLOB)")
        self.db.execute("CREATE TABLE shared (key TEXT PRIMARY KEY, body BLOB)")

    def close(self) -> None:
        self.db.close()

    def add(self, where: str, resource: Json, raw: bytes) -> None:
        """Keep a resource that is read; report one that is not."""
        kind = resource["resourceType"]
        try:
            if kind == "Patient":
                if not text(resource, "id"):
                    raise Malformed("id", "the id of the patient")
                owner = f"Patient/{text(resource, 'id')}"
            elif kind == _KEPT_APART:
                owner = ""
            elif kind in OWNED:
                owner = _owner(resource)
            else:
                self.report.left(kind, "this kind of resource is not read")
                return
            if owner:
                self.db.execute("INSERT INTO held VALUES (?, ?, ?)", (owner, where, raw))
            else:
                key = f"{kind}/{text(resource, 'id')}"
                self.db.execute("INSERT OR REPLACE INTO shared VALUES (?, ?)", (key, raw))
        except Malformed as error:
            self.report.reject(where, f"{kind}.{error.field} cannot be read", error.expected)
        except UnicodeEncodeError:
            self.report.reject(where, "an id holds broken text", "Unicode")

    def groups(self) -> Iterator[_Group]:
        """The resources of one patient after another."""
        self.db.execute("CREATE INDEX by_owner ON held (owner)")
        group: _Group | None = None
        for owner, where, body in self.db.execute("SELECT owner, place, body FROM held ORDER BY owner, place"):
            patient = owner.partition("/")[2]
            if group is None or group.patient != patient:
                if group is not None:
                    yield group
                group = _Group(patient)
            group.resources.append((where, _restored(body)))
        if group is not None:
            yield group

    def shared(self, ref: str) -> Json | None:
        """A resource that belongs to no patient."""
        row = self.db.execute("SELECT body FROM shared WHERE key = ?", (reference(ref),)).fetchone()
        return _restored(row[0]) if row else None


def _restored(body: bytes) -> Json:
    found = _loaded(body)
    assert isinstance(found, dict)
    return found
