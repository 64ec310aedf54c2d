"""Candidates as people see them: the best of each source."""

from collections.abc import Iterable

from pseudolabel.candidates import Candidate


def best_of_each_source(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate per source, the one that its source is surest of; in the order of the sources."""
    best: dict[str, Candidate] = {}
    for one in candidates:
        if one.source not in best or _rank(one) > _rank(best[one.source]):
            best[one.source] = one
    return list(best.values())


def candidate_label(one: Candidate) -> str:
    """`semantic 0.91`: the source and how sure it is."""
    return f"{one.source} {one.box_score:.2f}"


def _rank(one: Candidate) -> tuple[float, float]:
    return ((one.box_iou or 0.0) * one.box_score, one.box_score)
