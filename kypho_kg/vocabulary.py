"""IRIs of the structural terms that the code speaks of. No clinical term is here."""

from __future__ import annotations

import re
from typing import Final

KYPHO: Final = "https://w3id.org/kypho#"
GUIDELINES: Final = "https://w3id.org/kypho/guidelines/"
RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
RDFS: Final = "http://www.w3.org/2000/01/rdf-schema#"
OWL: Final = "http://www.w3.org/2002/07/owl#"
XSD: Final = "http://www.w3.org/2001/XMLSchema#"
DCTERMS: Final = "http://purl.org/dc/terms/"
SKOS: Final = "http://www.w3.org/2004/02/skos/core#"
PROV: Final = "http://www.w3.org/ns/prov#"
DEFINITION: Final = "http://purl.obolibrary.org/obo/IAO_0000115"
EDITOR_NOTE: Final = "http://purl.obolibrary.org/obo/IAO_0000116"

TYPE: Final = RDF + "type"
LABEL: Final = RDFS + "label"
SUBCLASS: Final = RDFS + "subClassOf"
EQUIVALENT: Final = OWL + "equivalentClass"
ON_PROPERTY: Final = OWL + "onProperty"

CASE: Final = KYPHO + "Case"
PATIENT: Final = KYPHO + "Patient"
LESION: Final = KYPHO + "VertebralLesion"
PROCEDURE: Final = KYPHO + "ProposedProcedure"
FINDING: Final = KYPHO + "Finding"
HAS_FINDING: Final = KYPHO + "hasFinding"
HAS_LESION: Final = KYPHO + "hasLesion"

_GRAPH = re.compile(r"urn:kypho:(?:patient:[^/]+/graph/|graph:)(asserted|inferred|judged)")


def local(iri: str) -> str:
    """The readable part of an IRI of ours: ``someTerm``, or ``guideline/clause`` for terms of guidelines."""
    if iri.startswith(GUIDELINES):
        return iri.removeprefix(GUIDELINES)
    return iri.removeprefix(KYPHO)


def graph_kind(iri: str) -> str:
    """``asserted``, ``inferred`` or ``judged`` for a graph of a patient, empty for any other graph.

    The names ``urn:kypho:graph:KIND``, once used for all patients together, count too.
    """
    found = _GRAPH.fullmatch(iri)
    return found[1] if found else ""
