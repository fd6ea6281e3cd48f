"""Why the reasoner says so: a smallest set of axioms from which a class is empty, or lies within another.

The reasoner is asked and never looked into. Axioms that speak of the class are gathered, then those that speak of the
names in them, until the consequence follows; then all that it does not need is taken away again. No axiom of the result
can be left out; there may be other such sets.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from kypho_kg.errors import EngineError, UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.manchester import Renderer
from kypho_kg.owl_export import Axioms
from kypho_kg.reasoning import annotation_properties, satisfiable
from kypho_kg.store import Triple, Triples
from kypho_kg.vocabulary import GUIDELINES, KYPHO, LABEL, OWL, RDF, RDFS, SUBCLASS, TYPE, XSD, local

_BUILT_IN = (OWL, RDF, RDFS, XSD)
_DECLARATIONS = frozenset(
    OWL + n for n in "Class ObjectProperty DatatypeProperty AnnotationProperty NamedIndividual Ontology".split()
) | {RDFS + "Datatype"}
_ASKED, _ANYTHING = "urn:kypho:probe/asked", "urn:kypho:probe/anything"
"""A class that must be empty if the consequence holds, and one that is empty only by a contradiction."""
_FEW = 24
"""Up to this number of axioms, trying to do without each takes fewer questions than halving does."""


@dataclass(frozen=True)
class Axiom:
    """One axiom: its first triple, and those of the blank nodes that belong to it."""

    head: Triple
    triples: tuple[Triple, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        """The IRIs that it speaks of, apart from the language's own."""
        terms = {term for s, p, o in self.triples for term in (s, p, o) if isinstance(term, str)}
        return frozenset(t for t in terms if not t.startswith(("_:", *_BUILT_IN)))

    def concerns(self, names: set[str]) -> bool:
        """Whether it bears on what these names mean, judged by what stands on its left."""
        s, p, _ = self.head
        if not s.startswith("_:"):
            return s in names or (p == OWL + "disjointWith" and not self.names.isdisjoint(names))
        if p == SUBCLASS:
            return not self.names.isdisjoint(names)
        return len(self.names & names) > 1


@dataclass(frozen=True, slots=True)
class Justification:
    """Axioms from which a consequence follows, and no fewer of them."""

    consequence: str
    axioms: tuple[str, ...]
    """In Manchester syntax with local names."""
    labels: tuple[tuple[str, str], ...]
    """Each name in them with its label."""

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.labels), default=0)
        return "\n".join(
            (
                self.consequence,
                *(f"  {number}. {axiom}" for number, axiom in enumerate(self.axioms, start=1)),
                *(["where"] if self.labels else []),
                *(f"  {name:{width}}  {label}" for name, label in self.labels),
            )
        )


def axioms_of(triples: Triples) -> tuple[list[Axiom], list[Triple]]:
    """The axioms of an ontology, annotations aside, and its declarations."""
    annotations = annotation_properties(triples)
    declarations: list[Triple] = [
        (s, p, o) for s, p, o in triples if p == TYPE and o in _DECLARATIONS and not s.startswith("_:")
    ]
    found = []
    for s, p, o in triples:
        if s.startswith("_:"):
            is_set = p == TYPE and o in {OWL + "AllDisjointClasses", OWL + "AllDifferent"}
            if not triples.referrers(s) and (is_set or p == SUBCLASS):
                found.append(Axiom((s, p, o), tuple(_tree(triples, s))))
        elif p not in annotations and s not in annotations and not (p == TYPE and o in _DECLARATIONS):
            below = _tree(triples, o) if isinstance(o, str) and o.startswith("_:") else ()
            found.append(Axiom((s, p, o), ((s, p, o), *below)))
    return found, declarations


def _tree(triples: Triples, node: str) -> Iterator[Triple]:
    """All triples of a blank node and of those below it."""
    todo, seen = [node], {node}
    while todo:
        here = todo.pop()
        for p in triples.predicates(here):
            for o in triples.objects(here, p):
                yield here, p, o
                if isinstance(o, str) and o.startswith("_:") and o not in seen:
                    seen.add(o)
                    todo.append(o)


def justify(knowledge: Knowledge, cls: str, under: str | None = None, timeout: float = 120) -> Justification:
    """Why nothing can belong to a class, or why it lies within another.

    In an ontology without a model everything follows; the axioms are then those that contradict one another.

    :param cls: IRI or local name of a class.
    :param under: IRI or local name of the class that it lies within.
    :param timeout: seconds for all calls of the reasoner together.
    :raises UsageError: for an unknown class, or when there is nothing to justify.
    :raises EngineError: when the reasoner fails or time runs out.
    """
    lower = class_named(knowledge, cls)
    upper = class_named(knowledge, under) if under else None
    search = _Search(knowledge, lower, upper, timeout)
    axioms = search.run()
    said = f"{local(lower)} lies within {local(upper)}" if upper else f"nothing can belong to {local(lower)}"
    if search.contradiction(axioms):
        said = "the ontology contradicts itself"
    write = Renderer(knowledge.triples)
    order = {axiom.head: write.axiom(axiom.head) for axiom in axioms}
    names = sorted({name for axiom in axioms for name in axiom.names}, key=local)
    labels = [(local(name), knowledge.triples.text(name, LABEL)) for name in names]
    return Justification(f"{said}, because", tuple(order.values()), tuple(row for row in labels if row[1]))


def class_named(knowledge: Knowledge, name: str) -> str:
    """The class with an IRI or a local name.

    :raises UsageError: when there is none; the message names the nearest ones.
    """
    classes = [c for c in knowledge.triples.subjects(TYPE, OWL + "Class") if not c.startswith("_:")]
    for iri in (name, KYPHO + name, GUIDELINES + name):
        if iri in classes:
            return iri
    near = get_close_matches(name, map(local, classes), n=3)
    raise UsageError(f"no class {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))


class _Search:
    """One search: the question to the reasoner, the time left, the axioms."""

    def __init__(self, knowledge: Knowledge, lower: str, upper: str | None, timeout: float) -> None:
        self._knowledge = knowledge
        self._names = {lower, upper} if upper else {lower}
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._axioms, self._declarations = axioms_of(knowledge.triples)
        probe = Axioms("probe")
        for name in (_ASKED, _ANYTHING):
            probe.add(name, TYPE, OWL + "Class")
        probe.add(_ASKED, SUBCLASS, lower)
        if upper:
            probe.add(_ASKED, SUBCLASS, probe.complement(upper))
        self._probe = probe.triples
        self._answers: dict[frozenset[Triple], tuple[bool, bool]] = {}

    def run(self) -> list[Axiom]:
        for axioms in self._neighbourhoods():
            if self._follows(axioms):
                few = len(axioms) <= _FEW
                needed = self._pruned(axioms) if few else self._needed([], [], axioms)
                return sorted(needed, key=self._axioms.index)
        raise UsageError(
            "it does not follow from the ontology" if len(self._names) > 1 else "something can belong to the class"
        )

    def contradiction(self, axioms: Iterable[Axiom]) -> bool:
        """Whether the axioms have no model at all."""
        return self._ask(axioms)[1]

    def _neighbourhoods(self) -> Iterator[list[Axiom]]:
        """Ever more axioms, those that bear on the question first, in the end all."""
        names, size = set(self._names), 0
        while True:
            chosen = [axiom for axiom in self._axioms if axiom.concerns(names)]
            if len(chosen) == size:
                break
            size = len(chosen)
            yield chosen
            names.update(*(axiom.names for axiom in chosen))
        if size < len(self._axioms):
            yield self._axioms

    def _pruned(self, axioms: Sequence[Axiom]) -> list[Axiom]:
        """The axioms that are left when each that is not needed was taken away, one question for each."""
        left = list(axioms)
        for axiom in axioms:
            rest = [other for other in left if other is not axiom]
            if self._follows(rest):
                left = rest
        return left

    def _needed(self, given: Sequence[Axiom], new: Sequence[Axiom], axioms: Sequence[Axiom]) -> list[Axiom]:
        """The axioms without which the consequence does not follow from the given ones (QuickXplain)."""
        if new and self._follows(given):
            return []
        if len(axioms) == 1:
            return list(axioms)
        middle = len(axioms) // 2
        first, second = axioms[:middle], axioms[middle:]
        later = self._needed([*given, *first], first, second)
        return [*self._needed([*given, *later], later, first), *later]

    def _follows(self, axioms: Iterable[Axiom]) -> bool:
        return self._ask(axioms)[0]

    def _ask(self, axioms: Iterable[Axiom]) -> tuple[bool, bool]:
        """Whether the consequence follows from axioms, and whether they contradict one another."""
        axioms = tuple(axioms)
        key = frozenset(axiom.head for axiom in axioms)
        if key in self._answers:
            return self._answers[key]
        left = self._end - time.monotonic()
        late = f"no justification was found within {self._timeout:g} s"
        if left <= 0:
            raise EngineError(late)
        names = self._names.union(*(axiom.names for axiom in axioms))
        declared = (row for row in self._declarations if row[0] in names)
        triples = dict.fromkeys((*self._probe, *declared, *(row for axiom in axioms for row in axiom.triples)))
        try:
            possible = satisfiable(self._knowledge, triples, (_ASKED, _ANYTHING), left)
        except EngineError as error:
            if time.monotonic() >= self._end:
                raise EngineError(late) from error
            raise
        self._answers[key] = answer = (not possible[_ASKED], not possible[_ANYTHING])
        return answer
