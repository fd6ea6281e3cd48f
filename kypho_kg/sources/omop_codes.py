"""What the concepts of an OMOP CDM state: by the codes of the site's vocabulary tables, and by what they fall under.

The concepts that occur are looked up once, all together. One that no mapping knows falls under what its ancestors
state: a product under its ingredient, a subtype under its type.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from kypho_kg.criteria import Op
from kypho_kg.mappings import OWN, Mappings, value_owners
from kypho_kg.rollups import folded
from kypho_kg.sources.codes import Coding, Meanings, Stated
from kypho_kg.sources.omop_model import ANCESTOR, CONCEPT, DRUG, EVENTS, MAPS_TO, RELATIONSHIP, UPWARD, Table
from kypho_kg.vocabulary import local

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from kypho_kg.sources.omop_tables import Database

_HOPS = 6
"""Relationships in a row by which a concept is followed where there is no table of ancestors."""
_UCUM = "UCUM"


class Concept(NamedTuple):
    """What the vocabulary tables of the site say of a concept."""

    vocabulary: str
    code: str
    name: str


class Meant(NamedTuple):
    """What a row states."""

    stated: Stated
    wider: bool
    """Whether the concept of the row is narrower than what is stated; its absence then says nothing."""


class Concepts:
    """The concepts that occur in a source."""

    def __init__(self, database: Database, meanings: Meanings) -> None:
        self.db = database
        self.m = meanings
        self.known: dict[int, Concept] = {}
        self._wider: dict[int, list[tuple[int, Concept]]] = {}
        self.codes = self._mapped_codes(meanings.mappings)
        self.of_row = functools.lru_cache(maxsize=100_000)(self._of_row)
        if CONCEPT.name in database.relations:
            self._look_up()
        else:
            meanings.report.left(CONCEPT.name, "no such table: concepts are understood by source values alone", 0)

    # -- rows

    def _of_row(self, table: Table, concept: int, source_concept: int, source_value: str) -> tuple[Meant, ...]:
        """What the concept of a row, its source concept and its source value state; each feature and value once."""
        taken = table is DRUG
        found: dict[tuple[str, str | None, bool], Meant] = {}
        for vocabulary, code in self._codings(table, concept, source_concept, source_value):
            for one in self.m.meaning(vocabulary, code, substance=taken):
                found.setdefault((one.feature.iri, one.value, one.absent), Meant(one, False))
        if not found:
            for id_ in (concept, source_concept):
                for one in self._nearest(id_, substance=taken):
                    found.setdefault((one.feature.iri, one.value, one.absent), Meant(one, True))
        return tuple(found.values())

    def _codings(self, table: Table, concept: int, source_concept: int, source_value: str) -> Iterator[Coding]:
        for id_ in (concept, source_concept):
            if id_ in self.known:
                yield self.known[id_].vocabulary, self.known[id_].code
        before, sign, code = source_value.rpartition("|" if "|" in source_value else ":")
        if sign and self.m.mappings.system(before):
            yield before, code
        elif source_concept in self.known:  # it may be finer than its concept, but is of the same vocabulary
            yield self.known[source_concept].vocabulary, source_value
        else:
            yield from ((vocabulary, source_value) for vocabulary in table.vocabularies)

    def _nearest(self, concept: int, *, substance: bool) -> list[Stated]:
        """What a concept falls under, the nearest first; what says less than something nearer is left out."""
        kept: list[Stated] = []
        own = self.known.get(concept)
        for _, (vocabulary, code, _) in self._wider.get(concept, ()):
            for one in self.m.meaning(vocabulary, code, substance=substance):
                if one.absent or (one.value is None and one.feature.kind is not Op.FINDING):
                    continue  # an absence or a number says something of what was asked, and nothing of anything wider
                if one.value is None and any(self.m.k.subsumes(one.feature.iri, k.feature.iri) for k in kept):
                    continue
                if one.value and any(k.feature is one.feature and k.feature is not self.m.level for k in kept):
                    continue
                said = f"{own.vocabulary}|{own.code}" if own else f"concept {concept}"
                kept.append(replace(one, code=f"{said} → {one.code}"))
        return kept

    def named(self, concept: int) -> tuple[str, str]:
        """A concept for the report: its code and its name."""
        known = self.known.get(concept)
        if not known:
            return f"concept {concept}", ""
        return f"{known.vocabulary}|{known.code}", self.m.remark(known.vocabulary, known.code, known.name)

    def answer(self, concept: int) -> tuple[list[Coding], str]:
        """The codings of a value, and its words."""
        known = self.known.get(concept)
        return ([known[:2]], known.name) if known else ([("OMOP", str(concept))], "")

    def unit(self, concept: int, source_value: str) -> str:
        """A unit: by its concept in UCUM, or else as the source writes it."""
        known = self.known.get(concept)
        if known and known.vocabulary.upper() == _UCUM:
            return known.code
        return source_value or (f"unit concept {concept}" if concept else "")

    # -- relations

    def meaningful(self, rows: ir.Table) -> ir.BooleanValue:
        """Whether a row of events may state something; what it states is then looked up one by one."""
        found = rows.concept.isin(self.stating.id)
        for column in ("source_concept", "source_value"):
            if column not in rows.columns:
                continue
            said = rows[column]
            known = said.isin(self.stating.id) if column == "source_concept" else _folded(said).isin(self.codes.code)
            found = found | known.fill_null(False)
        return found.fill_null(False)

    def _mapped_codes(self, mappings: Mappings) -> ir.Table:
        """The codes that state something, with the prefix of their terminology."""
        rows = {(r.prefix, folded(r.code)) for r in mappings.rows if r.assigns or r.absent}
        rows |= {(r.prefix, folded(r.code)) for r in mappings.rollups.rows}
        rows |= {(OWN, folded(local(iri))) for iri in (*self.m.k.features, *value_owners(self.m.k))}
        self.db.con.execute("CREATE TABLE mapped_code (prefix VARCHAR, code VARCHAR)")
        _insert(self.db, "mapped_code", sorted(rows))
        self.db.con.execute("CREATE TABLE stating (id BIGINT)")
        self.stating = self.db.named("stating")
        return self.db.named("mapped_code")

    def _look_up(self) -> None:
        import ibis

        occurring = self.db.keep("occurring", ibis.union(*self._ids(), distinct=True).filter(lambda t: t.id != 0))
        concept = self.db.relations[CONCEPT.name].rows
        concept = concept.filter(concept.bad.isnull()).select("concept", "vocabulary", "code", "name")
        here = concept.semi_join(occurring, concept.concept == occurring.id)
        for id_, vocabulary, code, name in self.db.fetch(here.order_by("concept", "vocabulary", "code")):
            self.known.setdefault(id_, Concept(vocabulary or "", code or "", name or ""))
        facts = self.m.mappings.facts
        plain = [(i,) for i, c in self.known.items() if facts(c.code, self.m.k, c.vocabulary)]
        _insert(self.db, "stating", plain)
        self._climb(concept, occurring)
        _insert(self.db, "stating", [(i,) for i in self._wider])

    def _ids(self) -> Iterator[ir.Table]:
        for table in EVENTS:
            relation = self.db.relations.get(table.name)
            for role in ("concept", "source_concept", "value_concept", "unit_concept"):
                if relation and role in table.columns:
                    yield relation.rows.select(id=relation.rows[role]).filter(lambda t: t.id.notnull()).distinct()
        yield self.stating.select("id")

    def _climb(self, concept: ir.Table, occurring: ir.Table) -> None:
        """Find what the concepts fall under that no mapping knows."""
        import ibis

        vocabularies = [v for (v,) in self.db.fetch(concept.select("vocabulary").distinct()) if v]
        prefixes = [(v, s.prefix) for v in sorted(vocabularies) if (s := self.m.mappings.system(v))]
        self.db.con.execute("CREATE TABLE vocabulary_prefix (vocabulary VARCHAR, prefix VARCHAR)")
        _insert(self.db, "vocabulary_prefix", prefixes)
        named = concept.inner_join(self.db.named("vocabulary_prefix"), "vocabulary")
        folded = _folded(named.code)
        mapped = named.semi_join(self.codes, [named.prefix == self.codes.prefix, folded == self.codes.code])
        mapped = self.db.keep("mapped", mapped.select("concept", "vocabulary", "code", "name"))
        unknown = occurring.anti_join(self.stating, "id").select(origin="id", at="id")
        unknown = self.db.keep("unknown", unknown)
        links = self._links()
        start = unknown
        if links is not None:
            target = links.filter(links.relation == MAPS_TO)
            start = ibis.union(unknown, _step(unknown, target), distinct=True)
        start = self.db.keep("start", start)
        found = self._under(start.mutate(far=ibis.literal(0, "int64")), mapped)
        if ANCESTOR.name in self.db.relations:
            up = self.db.relations[ANCESTOR.name].rows
            up = up.filter(up.bad.isnull() & (up.one != up.two)).select("one", "two", far=up.far.try_cast("int64"))
            # Only the ancestors that mean something are joined: the table has tens of millions of rows.
            up = up.semi_join(mapped, up.two == mapped.concept)
            joined = start.inner_join(up, start.at == up.one)
            found += self._under(joined.select("origin", at="two", far=joined.far.fill_null(99)), mapped)
        for origin, far, said in found:
            self._wider.setdefault(origin, []).append((far, said))
        if links is not None:
            self._hop(unknown, links.filter(links.relation.isin(UPWARD)), mapped)
        for rows in self._wider.values():
            rows.sort()

    def _hop(self, unknown: ir.Table, links: ir.Table, mapped: ir.Table) -> None:
        """Follow relationships one after another, for the concepts that the table of ancestors does not know."""
        import ibis

        self.db.con.execute("CREATE TABLE placed (id BIGINT)")
        _insert(self.db, "placed", [(i,) for i in self._wider])
        front = self.db.keep(
            "front_0", unknown.anti_join(self.db.named("placed"), unknown.origin == self.db.named("placed").id)
        )
        for hop in range(1, _HOPS + 1):
            front = self.db.keep(f"front_{hop}", _step(front, links).distinct())
            found = self._under(front.mutate(far=ibis.literal(hop, "int64")), mapped)
            arrived: dict[int, list[tuple[int, Concept]]] = defaultdict(list)
            for origin, far, said in found:
                arrived[origin].append((far, said))
            self._wider.update(arrived)
            _insert(self.db, "placed", [(i,) for i in arrived])
            placed = self.db.named("placed")
            front = self.db.keep(f"front_{hop}", front.anti_join(placed, front.origin == placed.id))

    def _links(self) -> ir.Table | None:
        if RELATIONSHIP.name not in self.db.relations:
            return None
        rows = self.db.relations[RELATIONSHIP.name].rows
        return rows.filter(rows.bad.isnull() & rows.invalid.isnull() & (rows.one != rows.two))

    def _under(self, places: ir.Table, mapped: ir.Table) -> list[tuple[int, int, Concept]]:
        """Each place that a mapping knows: origin, distance, vocabulary, code and name."""
        joined = places.inner_join(mapped, places.at == mapped.concept)
        nearest = joined.group_by("origin", "vocabulary", "code", "name").agg(far=joined.far.min())
        ordered = nearest.order_by("origin", "far", "vocabulary", "code", "name")
        rows = self.db.fetch(ordered.select("origin", "far", "vocabulary", "code", "name"))
        return [(origin, far, Concept(vocabulary, code, name or "")) for origin, far, vocabulary, code, name in rows]


def _step(places: ir.Table, links: ir.Table) -> ir.Table:
    return places.inner_join(links, places.at == links.one).select("origin", at="two")


def _folded(code: ir.Column) -> ir.StringColumn:
    """A code as the mappings compare it, without the name of its terminology before it."""
    return code.re_replace("^.*[|:]", "").strip().replace(".", "").upper()


def _insert(database: Database, name: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Add rows to a small table."""
    import pyarrow

    data = list(rows)
    if data:
        columns = database.named(name).columns
        batch = pyarrow.table({c: [row[i] for row in data] for i, c in enumerate(columns)})
        database.con.register("batch", batch)
        database.con.execute(f"INSERT INTO {name} SELECT * FROM batch")
        database.con.unregister("batch")
