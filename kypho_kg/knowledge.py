"""The knowledge base: the ontology closure, loaded once and read-only.

It knows the features, their hierarchy and closures, the bridges and assumption policies, and the guidelines with
their recommendations. Names and definitions come from the Turtle files alone.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from types import MappingProxyType

from kypho_kg.criteria import Compiler, Criterion, FeatureKinds, Op
from kypho_kg.errors import KnowledgeBaseError, UsageError
from kypho_kg.guidelines import Guideline, read_guidelines
from kypho_kg.store import Triples
from kypho_kg.vocabulary import (
    CASE,
    EQUIVALENT,
    FINDING,
    KYPHO,
    LABEL,
    ON_PROPERTY,
    OWL,
    RDFS,
    SUBCLASS,
    TYPE,
    local,
)

KINDS = {
    KYPHO + "CategoryFeature": Op.CATEGORY,
    KYPHO + "ChoiceFeature": Op.CHOICE,
    KYPHO + "QuantityFeature": Op.QUANTITY,
}
DATE_FEATURE = KYPHO + "DateFeature"


@dataclass(frozen=True, slots=True)
class Feature:
    """A recordable feature of a patient, a lesion or a procedure."""

    iri: str
    name: str
    kind: Op | None
    """``None`` for a date."""
    bearer: str
    label: str
    plain: str
    unit: str = ""
    accepts: Mapping[str, Decimal] = field(default_factory=dict)
    """Further units with the factor to ``unit``."""
    rule: str = "Latest"
    selection_window: int = 0
    conflict_window: int = 0
    lookback: int | None = None
    """Days after which a fact is stale; ``None`` is never."""
    acquisition: str = ""
    burden: int = 0
    changes: str = ""
    """``CanChange``, ``OnlyIncreases`` or ``CannotChange``."""
    order_suffices: bool = False
    derived_by: str = ""
    derived_from: str = ""
    advances: bool = False
    counterpart: str = ""
    values: frozenset[str] = frozenset()
    """Choice: its individuals. Category: its classes."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A named rule by which a bearer that meets a condition has a finding, or lacks it."""

    name: str
    iri: str
    label: str
    bearer: str
    condition: Criterion
    conclusion: str
    citation: str
    rules_out: bool = False
    """Whether the finding is ruled out."""


@dataclass(frozen=True, slots=True)
class Closure:
    """Findings that a policy reads as absent on a bearer that meets the condition."""

    iri: str
    label: str
    bearer: str
    condition: Criterion
    closes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """An assumption policy."""

    name: str
    iri: str
    label: str
    closures: tuple[Closure, ...]


@dataclass(frozen=True, slots=True)
class ValueClosure:
    """An axiom: who has this value of a choice lacks the finding."""

    choice: str
    value: str
    finding: str


class Knowledge:
    """Lookups over one loaded knowledge base. Made by :func:`kypho_kg.loading.load_knowledge`."""

    def __init__(self, triples: Triples, version: str, sha256: str) -> None:
        self.triples = triples
        self.version = version
        self.sha256 = sha256
        self._parents = {
            s: tuple(o for o in triples.resources(s, SUBCLASS) if not o.startswith("_:"))
            for s in triples.subjects(TYPE, OWL + "Class")
        }
        self._ancestors: dict[str, frozenset[str]] = {}
        self._disjoint = self._disjoint_sets()
        self.features: Mapping[str, Feature] = MappingProxyType(dict(self._read_features()))
        self.by_name: Mapping[str, Feature] = MappingProxyType({f.name: f for f in self.features.values()})
        features = self.features.values()
        kinds = FeatureKinds(
            {f.iri: f.kind for f in features if f.kind},
            {f.iri: f.bearer for f in features},
            {f.iri: f.values for f in features},
        )
        self._compiler = Compiler(triples, kinds)

    # What needs an ontology inside its axiom profile is read when it is first asked for.

    @functools.cached_property
    def value_closures(self) -> tuple[ValueClosure, ...]:
        """Axioms by which a value of a choice excludes a finding."""
        return tuple(self._read_value_closures())

    @functools.cached_property
    def bridges(self) -> Mapping[str, Bridge]:
        """Bridges by name."""
        return {b.name: b for b in self._read_bridges()}

    @functools.cached_property
    def policies(self) -> Mapping[str, Policy]:
        """Assumption policies by name."""
        return {p.name: p for p in self._read_policies()}

    @functools.cached_property
    def guidelines(self) -> Mapping[str, Guideline]:
        """Guidelines by id."""
        return {g.id: g for g in read_guidelines(self.triples, self.criterion)}

    @functools.cached_property
    def layers(self) -> tuple[str, ...]:
        """The kinds of sources in their order."""
        t = self.triples
        return tuple(
            sorted(t.subjects(TYPE, KYPHO + "Layer"), key=lambda x: t.whole_number(x, KYPHO + "orderNumber") or 0)
        )

    # -- names

    def label(self, iri: str) -> str:
        """The clinical label of a term, or its local name."""
        return self.triples.text(iri, LABEL) or local(iri)

    def plain(self, iri: str) -> str:
        """The label in plain language, or the clinical one."""
        return self.triples.text(iri, KYPHO + "plainLabel") or self.label(iri)

    def level_order(self, iri: str) -> int:
        """The place of a vertebral level from cranial to caudal, 0 for anything else."""
        return self.triples.whole_number(iri, KYPHO + "levelOrder") or 0

    # -- classes

    def ancestors(self, cls: str) -> frozenset[str]:
        """A class and all its named superclasses."""
        known = self._ancestors.get(cls)
        if known is None:
            found, todo = {cls}, [cls]
            while todo:  # a circle must not run for ever: the axiom profile is checked later
                new = set(self._parents.get(todo.pop(), ())) - found
                found |= new
                todo.extend(new)
            known = self._ancestors[cls] = frozenset(found)
        return known

    def subsumes(self, upper: str, lower: str) -> bool:
        """Whether ``lower`` is ``upper`` or a subclass of it."""
        return upper in self.ancestors(lower)

    def descendants(self, root: str) -> frozenset[str]:
        """A class and all its named subclasses."""
        return frozenset(c for c in self._parents if root in self.ancestors(c))

    def disjoint(self, a: str, b: str) -> bool:
        """Whether two classes of a tree exclude one another."""
        up_a, up_b = self.ancestors(a), self.ancestors(b)
        return any(len(up_a & group) and len(up_b & group) and not (up_a & up_b & group) for group in self._disjoint)

    def criterion(self, iri: str, bearer: str = CASE) -> Criterion:
        """The criterion tree of a defined class.

        :raises KnowledgeBaseError: outside the criterion profile.
        """
        return self._compiler.named(iri, bearer)

    # -- lookups by the user's names

    def guideline(self, id_: str) -> Guideline:
        """A guideline by its id.

        :raises UsageError: for an unknown id, with those that hold it or are nearest.
        """
        if id_ not in self.guidelines:
            known = sorted(self.guidelines)
            near = [g for g in known if id_.lower() in g][:5] or difflib.get_close_matches(id_.lower(), known, n=3)
            meant = f"; did you mean {', '.join(near)}?" if near else ";"
            raise UsageError(f"unknown guideline {id_!r}{meant} 'guidelines list' lists all")
        return self.guidelines[id_]

    def policy(self, name: str) -> Policy:
        """An assumption policy by its name.

        :raises UsageError: for an unknown name, with the known ones.
        """
        if name not in self.policies:
            raise UsageError(f"unknown policy {name!r}; known: {', '.join(sorted(self.policies))}")
        return self.policies[name]

    # -- reading

    def _disjoint_sets(self) -> tuple[frozenset[str], ...]:
        t = self.triples
        sets = [
            frozenset(o for o in t.items(head) if isinstance(o, str))
            for node in t.subjects(TYPE, OWL + "AllDisjointClasses")
            for head in t.resources(node, OWL + "members")
        ]
        pairs = [frozenset({s, o}) for s in self._parents for o in t.resources(s, OWL + "disjointWith")]
        return tuple(sets + pairs)

    def _read_features(self) -> Iterator[tuple[str, Feature]]:
        t = self.triples
        for iri in sorted(self.descendants(FINDING)):
            if t.resource(iri, KYPHO + "bearer"):
                yield iri, self._feature(iri, Op.FINDING, frozenset())
        for kind, op in KINDS.items():
            for iri in sorted(t.subjects(KYPHO + "featureKind", kind)):
                values: frozenset[str] = frozenset()
                if op is Op.CATEGORY:
                    root = t.resource(iri, KYPHO + "categoryRoot")
                    values = self.descendants(root) if root else values
                elif op is Op.CHOICE:
                    range_ = t.resource(iri, RDFS + "range")
                    node = t.resource(range_, EQUIVALENT) if range_ else None
                    head = t.resource(node, OWL + "oneOf") if node else None
                    values = frozenset(o for o in t.items(head) if isinstance(o, str)) if head else values
                yield iri, self._feature(iri, op, values)
        for iri in sorted(t.subjects(KYPHO + "featureKind", DATE_FEATURE)):
            yield iri, self._feature(iri, None, frozenset())

    def _feature(self, iri: str, kind: Op | None, values: frozenset[str]) -> Feature:
        t = self.triples

        acquisition = t.resource(iri, KYPHO + "acquisition") or ""
        accepts = {}
        for text in t.texts(iri, KYPHO + "acceptsUnit"):
            unit, _, factor = text.rpartition(" ")
            try:
                accepts[unit] = Decimal(factor)
            except InvalidOperation:
                raise KnowledgeBaseError(f"{local(iri)} acceptsUnit {text!r}: expected a unit and a factor") from None
        return Feature(
            iri=iri,
            name=local(iri),
            kind=kind,
            bearer=t.resource(iri, KYPHO + "bearer") or "",
            label=self.label(iri),
            plain=self.plain(iri),
            unit=t.text(iri, KYPHO + "ucumUnit"),
            accepts=MappingProxyType(accepts),
            rule=local(t.resource(iri, KYPHO + "selectionRule") or KYPHO + "Latest"),
            selection_window=t.whole_number(iri, KYPHO + "selectionWindowDays") or 0,
            conflict_window=t.whole_number(iri, KYPHO + "conflictWindowDays") or 0,
            lookback=t.whole_number(iri, KYPHO + "lookbackDays"),
            acquisition=acquisition,
            burden=t.whole_number(acquisition, KYPHO + "burden") or 0,
            changes=local(t.resource(iri, KYPHO + "changeability") or ""),
            order_suffices=t.text(iri, KYPHO + "satisfiedByOrder") == "true",
            derived_by=local(t.resource(iri, KYPHO + "derivedBy") or ""),
            derived_from=t.resource(iri, KYPHO + "derivedFrom") or "",
            advances=t.text(iri, KYPHO + "advancesWithTime") == "true",
            counterpart=t.resource(iri, KYPHO + "inWordsCounterpart") or "",
            values=values,
        )

    def _read_value_closures(self) -> Iterator[ValueClosure]:
        t = self.triples
        for node in t.subjects(TYPE, OWL + "Restriction"):
            value = t.resource(node, OWL + "hasValue")
            for upper in t.resources(node, SUBCLASS):
                inner = t.resource(t.resource(upper, OWL + "complementOf") or "", OWL + "someValuesFrom")
                choice = t.resource(node, ON_PROPERTY)
                assert value
                assert inner
                assert choice
                yield ValueClosure(choice, value, inner)

    def _read_bridges(self) -> Iterator[Bridge]:
        t = self.triples
        for iri in t.subjects(TYPE, KYPHO + "Bridge"):
            found = t.resource(iri, KYPHO + "bridgeConclusion")
            conclusion = found or t.resource(iri, KYPHO + "bridgeRulesOut") or ""
            if conclusion not in self.features:
                raise KnowledgeBaseError(f"{local(iri)}: the conclusion {local(conclusion)!r} is no recordable finding")
            bearer = self.features[conclusion].bearer
            condition = self.criterion(t.resource(iri, KYPHO + "bridgeCondition") or "", bearer)
            citation = t.text(iri, "http://purl.obolibrary.org/obo/IAO_0000119")
            name = t.text(iri, KYPHO + "bridgeName")
            yield Bridge(name, iri, self.label(iri), bearer, condition, conclusion, citation, rules_out=not found)

    def _read_policies(self) -> Iterator[Policy]:
        t = self.triples
        for iri in t.subjects(TYPE, KYPHO + "AssumptionPolicy"):
            closures = []
            for node in t.resources(iri, KYPHO + "hasClosure"):
                closes = t.resources(node, KYPHO + "closes")
                bearers = {self.features[c].bearer for c in closes if c in self.features}
                condition_class = t.resource(node, KYPHO + "closureCondition") or ""
                if not closes or any(c not in self.features for c in closes):
                    raise KnowledgeBaseError(f"{local(node)}: closes something that is no recordable finding")
                bearer = self._closure_bearer(condition_class, bearers)
                condition = self.criterion(condition_class, bearer)
                closures.append(Closure(node, self.label(node), bearer, condition, closes))
            yield Policy(t.text(iri, KYPHO + "policyName"), iri, self.label(iri), tuple(closures))

    def _closure_bearer(self, condition: str, bearers: set[str]) -> str:
        """The bearer of which the condition can be asked: a patient's silence also closes its lesions."""
        for bearer in sorted(bearers | {KYPHO + "Patient"}, key=lambda b: b != KYPHO + "Patient"):
            try:
                self.criterion(condition, bearer)
            except KnowledgeBaseError:
                continue
            return bearer
        raise KnowledgeBaseError(f"{local(condition)}: is no condition of {', '.join(map(local, bearers))}")
