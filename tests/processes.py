"""Processes made by copying this one: what it has imported and loaded need not be loaded again."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path

FORK = multiprocessing.get_context("fork")


def launcher_settings(world: int) -> list[dict[str, str]]:
    """The environment that torchrun gives each of `world` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        {
            "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }
        for rank in range(world)
    ]  # fmt: skip


def start_copy(
    main: Callable[[list[str]], int],
    argv: list[str],
    *,
    out: Path,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """`main(argv)` in a process of its own, which exits with its result.

    Args:
        main, argv: the program.
        out: file for what it prints.
        environment: set before it starts.
    """

    def run() -> None:
        os.environ |= environment or {}
        with out.open("w") as file, redirect_stdout(file):
            raise SystemExit(main(argv))

    process = FORK.Process(target=run, daemon=True)
    process.start()
    return process
