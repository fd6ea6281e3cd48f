"""Queries in a process of their own, for an engine that cannot be interrupted.

The process is killed when the time is over, and when the caller goes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from kypho_kg.errors import EngineError, KyphoKGError, UsageError
from kypho_kg.store import Query, Result, Store


def ask_apart(source: bytes | Path, queries: Sequence[Query], timeout: float) -> list[Result]:
    """The results of queries, asked in another process.

    :param source: the N-Quads of :meth:`kypho_kg.store.Store.dump`, or the folder of a store, which is only read.
    :param timeout: seconds for all of them, the start of the process and the reading included.
    :raises UsageError: when a query does not parse, or a value is given for no variable of it.
    :raises EngineError: when the engine fails, or does not finish in time; that is never a result.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy the engine's threads in any state
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(there, source, tuple(queries)), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(timeout):
            raise EngineError(f"the query did not finish within {timeout:g} s")
        results, usage, failure = here.recv()
    except (EOFError, OSError):
        process.join(5)
        raise EngineError(f"the query engine ended without an answer (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()
    if usage:
        raise UsageError(usage)
    if failure:
        raise EngineError(failure)
    found: list[Result] = results
    return found


def _serve(pipe: Connection, source: bytes | Path, queries: Sequence[Query]) -> None:
    """Answer in the other process: results, or what is wrong with a query, or what failed."""
    try:
        store = Store.opened(source) if isinstance(source, Path) else Store.loaded(source)
        answer: tuple[list[Result] | None, str, str] = [store.result(q) for q in queries], "", ""
    except UsageError as error:
        answer = None, str(error), ""
    except KyphoKGError as error:
        answer = None, "", str(error)
    pipe.send(answer)
    pipe.close()
