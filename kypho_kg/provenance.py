"""How the graphs of a patient came about, in terms of PROV-O: the run, what it used, and where each fact was read.

The run has no time of the clock. Its name follows from the record and from what judged it, so that the same run gives
the same triples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kypho_kg import __version__, graph
from kypho_kg.candidacy import Answer
from kypho_kg.store import Literal, Triple
from kypho_kg.vocabulary import KYPHO, LABEL, PROV, TYPE, XSD


@dataclass(frozen=True, slots=True)
class Run:
    """One assessment of one record."""

    iri: str
    answer: Answer
    used: str
    """The asserted graph that was judged."""

    def made(self, node: str) -> Iterator[Triple]:
        """Say that the run made something."""
        yield node, PROV + "wasGeneratedBy", self.iri

    def triples(self) -> Iterator[Triple]:
        """The run: its date, what it ran by, and what it used."""
        run, answer = self.iri, self.answer
        k = answer.knowledge
        yield run, TYPE, PROV + "Activity"
        yield run, KYPHO + "asOf", Literal(str(answer.as_of), XSD + "date")
        yield run, KYPHO + "bridgesActive", Literal(str(answer.bridged).lower(), XSD + "boolean")
        yield run, PROV + "used", self.used
        software, base = f"{run}/software", f"{run}/knowledge-base"
        yield run, PROV + "wasAssociatedWith", software
        yield software, TYPE, PROV + "SoftwareAgent"
        yield software, LABEL, Literal(f"kypho-kg {__version__}")
        yield from self._content(base, f"knowledge base {k.version}", k.sha256)
        yield base, PROV + "specializationOf", f"{KYPHO.removesuffix('#')}/{k.version}"
        for number, mappings in enumerate(answer.record.mappings, start=1):
            yield from self._content(f"{run}/mappings/{number}", "mapping set", mappings)
        for name in answer.policies:
            if name in k.policies:
                yield run, PROV + "used", k.policies[name].iri

    def _content(self, node: str, label: str, sha256: str) -> Iterator[Triple]:
        """Something that the run used: a node of its own, so that no two graphs hold the same triple of it."""
        yield self.iri, PROV + "used", node
        yield node, TYPE, PROV + "Entity"
        yield node, LABEL, Literal(label)
        yield node, KYPHO + "sha256", Literal(sha256)


def run_of(answer: Answer, name: str, asserted: Iterable[Triple]) -> Run:
    """The run that gave an answer.

    :param name: the name of the graph of what the record asserts.
    :param asserted: its triples.
    """
    k = answer.knowledge
    verdicts = ((c.lesion.id, a.guideline.id, a.verdict, a.reading) for c in answer.cases for a in c.assessments)
    options = (str(answer.as_of), *answer.policies, str(answer.bridged))
    digest = hashlib.sha256()
    for part in (__version__, k.sha256, repr(options), *sorted(map(repr, asserted)), *sorted(map(repr, verdicts))):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return Run(f"{graph.patient_iri(answer.record)}/run/{digest.hexdigest()[:32]}", answer, name)


def primary_sources(asserted: Iterable[Triple]) -> Iterator[Triple]:
    """Each recorded fact and the source in which it was read, an entity that names the resource, row or line."""
    for fact, link, source in asserted:
        if link == KYPHO + "hasSource":
            yield fact, PROV + "hadPrimarySource", source
            yield str(source), TYPE, PROV + "Entity"
