"""FHIR R4 (also R4B and R5) in JSON to records: Bundles, one or many in a file, and folders of a bulk export.

What becomes what, and what does not, is written in docs/fhir.md. Codes mean what the mappings say; this module knows
the structure of FHIR and nothing clinical.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path

from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.record import Record
from kypho_kg.sources.codes import Malformed
from kypho_kg.sources.fhir_codes import Codes, Json
from kypho_kg.sources.fhir_json import Glance, Held, begins_a_bundle, entries, glance, parsed, reference
from kypho_kg.sources.fhir_resources import OWNED, ResourceReader
from kypho_kg.sources.fhir_skim import Silent, Skim
from kypho_kg.sources.fhir_store import KEPT_APART, NOT_READ, READ, STAY, Gathered, Group
from kypho_kg.sources.lesions import build

_SUFFIXES = (".ndjson", ".ndjson.gz")
_GZIP = b"\x1f\x8b"


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


class _Source:
    def __init__(self, path: Path, codes: Codes, report: IntakeReport, as_of: date | None) -> None:
        self.path = path
        self.codes = codes
        self.skim = Skim(codes)
        self.report = report
        self.as_of = as_of

    def records(self) -> Iterator[Record]:
        with closing(Gathered(self.report)) as store:
            try:
                for file in self._files():
                    for where, raw in self._contents(file):
                        seen = None if begins_a_bundle(raw) else glance(raw)
                        if seen is not None and seen.resourceType not in ("", "Bundle"):
                            self._single(store, where, raw, seen)
                        elif (found := entries(raw)) is not None:
                            yield from self._bundle(file.name, where, self._plain(where, found))
                        elif (held := self._parsed(where, raw)) is None:
                            continue
                        elif held.kind == "Bundle":
                            yield from self._bundle(file.name, where, self._odd(where, held.content))
                        elif held.kind:
                            self.report.saw(held.kind)
                            store.add(held)
                        else:
                            self.report.reject(where, "resourceType is missing", "a FHIR resource")
                self._take_back(store)
                for group in store.groups():
                    yield from self._record(group, self.path.name, store.shared, store.stays)
            finally:
                self.skim.settle()

    def _single(self, store: Gathered, where: str, raw: bytes, seen: Glance) -> None:
        """Keep a resource that stands by itself, or count it."""
        self.report.saw(seen.resourceType)
        if seen.resourceType not in READ:
            self.report.left(seen.resourceType, NOT_READ)
        elif (silent := self._passes(seen, raw)) is None:
            store.add(Held(where, raw, seen))
        elif store.passed(where, seen, raw):
            silent.times += 1

    def _passes(self, seen: Glance, raw: bytes) -> Silent | None:
        """What to count of a resource that says nothing; one without an id may be a copy, and is read."""
        return self.skim.silent(seen, raw) if seen.id.strip() else None

    def _take_back(self, store: Gathered) -> None:
        """Read the source again for resources of which one version was kept and another passed: the newest counts."""
        names = store.contested()
        told = len(self.report.rejected)
        for file in self._files() if names else ():
            for where, raw in self._contents(file):
                seen = glance(raw)
                if seen is not None and seen.name in names and (silent := self._passes(seen, raw)):
                    silent.times -= 1
                    store.add(Held(where, raw, seen))
        del self.report.rejected[told:]  # what cannot be read was told the first time
        self.skim.settle()
        self.report.forget_none()

    # -- files

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        found = sorted(p for p in self.path.iterdir() if p.is_file() and p.name.lower().endswith(_SUFFIXES))
        if not found:
            self.report.reject(self.path.name, "the folder holds no NDJSON", "files with .ndjson or .ndjson.gz")
        return found

    def _contents(self, file: Path) -> Iterator[tuple[str, bytes]]:
        """The texts of a file with their places: each line, or the whole file."""
        lines = file.name.lower().endswith(_SUFFIXES)
        name, place = file.name, f"{file.name}:1"
        try:
            with file.open("rb") as raw:
                packed = raw.read(2) == _GZIP
                raw.seek(0)
                stream = gzip.GzipFile(fileobj=raw) if packed else raw
                if not lines:
                    yield place, stream.read()
                    return
                for number, line in enumerate(stream, start=1):
                    place = f"{name}:{number}"
                    if not line.isspace():
                        yield place, line
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.report.reject(place, "the compressed file is damaged after this line", "a whole gzip file")
        except OSError as error:
            self.report.reject(file.name, f"cannot be read: {error.strerror or 'input error'}", "a FHIR file")

    def _held(self, place: str, raw: bytes) -> Held | None:
        """A resource, looked over or parsed; what is no JSON object is rejected."""
        seen = glance(raw)
        if seen is not None and seen.resourceType not in ("", "Bundle"):
            return Held(place, raw, seen)
        return self._parsed(place, raw)

    def _parsed(self, place: str, raw: bytes) -> Held | None:
        try:
            found = parsed(raw)
        except UnicodeDecodeError:
            self.report.reject(place, "no UTF-8", "JSON in UTF-8")
        except RecursionError:
            self.report.reject(place, "nested too deeply", "a FHIR resource")
        except ValueError:  # also of a number with thousands of digits
            self.report.reject(place, "no valid JSON", "one JSON object, or one in each line of NDJSON")
        else:
            if isinstance(found, dict):
                return Held(place, raw, None, found)
            self.report.reject(place, "no JSON object", "a FHIR resource or Bundle")
        return None

    # -- bundles

    def _plain(self, where: str, found: Iterable[tuple[bytes, str]]) -> Iterator[tuple[Held, str]]:
        """The entries of a Bundle in which each has a resource."""
        for number, (raw, url) in enumerate(found):
            place = f"{where}, entry[{number}]"
            held = self._held(place, raw)
            if held is not None and held.kind:
                yield held, url.strip()
            elif held is not None:
                self.report.reject(place, "the entry has no resource", "a resource with its resourceType")

    def _odd(self, where: str, bundle: Json) -> Iterator[tuple[Held, str]]:
        """The entries of any other Bundle, as far as they are any."""
        found = bundle.get("entry", [])
        if not isinstance(found, list):
            self.report.reject(where, "Bundle.entry is no list", "a list of entries")
            return
        for number, entry in enumerate(found):
            place = f"{where}, entry[{number}]"
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
                url = entry.get("fullUrl", "")
                if isinstance(url, str):
                    yield Held(place, b"", None, resource), url.strip()
                else:
                    self.report.saw(resource["resourceType"])
                    self.report.reject(place, f"{resource['resourceType']}.fullUrl cannot be read", "a text")
                continue
            request = entry.get("request") if isinstance(entry, dict) else None
            if isinstance(request, dict) and request.get("method") == "DELETE":
                self.report.left("Bundle", "an entry that deletes")
            else:
                self.report.reject(place, "the entry has no resource", "a resource with its resourceType")

    def _bundle(self, file: str, where: str, content: Iterable[tuple[Held, str]]) -> Iterator[Record]:
        self.report.saw("Bundle")
        names: dict[str, str] = {}
        shared: dict[str, Json] = {}
        groups: dict[str, Group] = {}
        owned: list[Held] = []
        for held, url in content:
            kind = held.kind
            self.report.saw(kind)
            try:
                id_ = held.id
                if not id_ and url:
                    id_ = url.rpartition("/")[2].removeprefix("urn:uuid:")
                    held = Held(held.where, held.raw, None, {**held.content, "id": id_})
                key = f"{kind}/{id_}" if id_ else ""
                names.update({url: key} if url and key else {})
                if kind == KEPT_APART:
                    shared[key] = held.content
                elif kind == "Patient" and not id_:
                    raise Malformed("id", "the id of the patient, or a fullUrl")
                elif kind == "Patient":
                    groups.setdefault(key, Group(id_)).resources.append(held)
                elif kind in OWNED:
                    owned.append(held)
                else:
                    self.report.left(kind, NOT_READ)
            except Malformed as error:
                self.report.reject(held.where, f"{kind}.{error.field} cannot be read", error.expected)
        own = frozenset(groups)
        for held in owned:
            try:
                owner = held.owner(names)
            except Malformed as error:
                self.report.reject(held.where, f"{held.kind}.{error.field} cannot be read", error.expected)
                continue
            if own and owner not in own:
                what = f"{held.kind} names another patient than the Bundle holds"
                self.report.reject(held.where, what, "the Bundle's patient")
            else:
                groups.setdefault(owner, Group(owner.partition("/")[2])).resources.append(held)
        for _, group in sorted(groups.items()):
            yield from self._record(group, file, lambda ref: shared.get(names.get(ref, reference(ref))), names=names)

    def _record(
        self,
        group: Group,
        file: str,
        shared: Callable[[str], Json | None],
        stays: Callable[[str, str], list[Json]] = lambda patient, key: [],
        names: dict[str, str] | None = None,
    ) -> Iterator[Record]:
        def named(ref: str) -> str:
            return (names or {}).get(ref) or reference(ref)

        resources = _unique(self._telling(group), self.report)
        here: dict[str, list[Held]] = {}
        for held in group.resources:
            if held.kind == STAY:
                here.setdefault(f"{STAY}/{held.id}", []).append(held)

        def stay(key: str) -> Json | None:
            versions = [held.content for held in here.get(key, ())] + stays(group.patient, key)
            if len(versions) < 2:
                return versions[0] if versions else None
            try:
                return max(versions, key=_version)
            except RecursionError:
                raise Malformed("encounter", f"an {STAY} that is not nested too deeply") from None

        reader = ResourceReader(self.codes, self.report, stay, file, named, shared)
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

    def _telling(self, group: Group) -> Iterator[tuple[str, Json]]:
        """The resources that may say something, parsed; the codes of the others are counted.

        Of a resource that stands there twice, no version is passed over: the newest counts.
        """
        names = [held.name for held in group.resources]
        times = Counter(names)
        for name, held in zip(names, group.resources, strict=True):
            seen = held.seen if times[name] == 1 else None
            silent = self._passes(seen, held.raw) if seen is not None else None
            if silent is not None:
                silent.times += 1
            elif held.content:
                yield held.where, held.content
            else:
                self.report.reject(held.where, f"{held.kind} is no valid JSON in UTF-8", "a FHIR resource")


# --------------------------------------------------------------------------------------------------------------------
# Copies


def _version(resource: Json) -> tuple[str, str]:
    """A place among the versions of a resource, the newest last; the same content has the same place."""
    meta = resource.get("meta")
    updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    rest = {k: v for k, v in resource.items() if k != "meta"}
    return (updated if isinstance(updated, str) else ""), json.dumps(rest, sort_keys=True, default=str)


def _unique(resources: Iterable[tuple[str, Json]], report: IntakeReport) -> list[tuple[str, Json]]:
    """Each resource once, in its newest version, in an order of its own."""
    named: dict[tuple[str, str], list[tuple[str, Json]]] = {}
    for where, resource in resources:
        id_ = resource.get("id")
        named.setdefault((resource["resourceType"], id_ if isinstance(id_, str) else ""), []).append((where, resource))
    kept: dict[tuple[str, str], tuple[str, Json]] = {}
    for (kind, id_), placed in named.items():
        if id_ and len(placed) == 1:
            kept[kind, id_] = placed[0]
            continue
        versions: dict[str, tuple[tuple[str, str], tuple[str, Json]]] = {}
        for where, resource in placed:
            try:
                version = _version(resource)
            except (RecursionError, TypeError, ValueError):
                report.reject(where, f"{kind} is nested too deeply", "a FHIR resource")
                continue
            key = id_ or version[1]
            if key in versions:
                same = versions[key][0][1] == version[1]
                report.left(kind, "a copy of another one" if same else "another version of the same resource")
            if key not in versions or version > versions[key][0]:
                versions[key] = version, (where, resource)
        kept.update({(kind, key): found for key, (_, found) in versions.items()})
    return [placed for _, placed in sorted(kept.items(), key=lambda item: item[0])]
