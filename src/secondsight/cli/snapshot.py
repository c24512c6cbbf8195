"""``secondsight snapshot``: capture what explain needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from secondsight.live.capture import Snapshot

app = typer.Typer(help="Capture what explain needs, to be judged later without privilege.")


@app.command()
def snapshot(
    pid: Annotated[int, typer.Option(help="The process.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write (.npz).")],
    within: Annotated[
        str | None, typer.Option("--range", help="Only these addresses: START-END in hexadecimal.")
    ] = None,
    kernel_memory: Annotated[
        bool | None,
        typer.Option(
            "--kernel-memory/--procfs",
            help="Insist on kernel memory, or do without (default: if it can be read).",
        ),
    ] = None,
    vmcore: Annotated[Path | None, typer.Option(help="The process is in this crash dump.")] = None,
    qmp: Annotated[
        Path | None, typer.Option(help="The process is in the guest behind this QMP socket of QEMU.")
    ] = None,
) -> None:
    """Capture a process: mappings, page tables, page flags, and every channel that can be read. No kernel pointer is kept."""
    from secondsight.live import capture

    taken = take(pid, within, kernel_memory, vmcore, qmp)
    capture.save(taken, output)
    count = len(taken.columns.address)
    print(
        f"{output}: {count} blocks of {taken.header.name} ({pid}) from {taken.header.source} in {taken.header.seconds:.2f} s"
    )
    if taken.header.missing:
        print(f"  channels that only kernel memory shows are unknown: {taken.header.missing}")


def take(
    pid: int, within: str | None, kernel_memory: bool | None, vmcore: Path | None, qmp: Path | None
) -> Snapshot:
    """Capture process *pid* of this machine, of a crash dump, or of a guest from outside."""
    from secondsight.errors import UsageError
    from secondsight.live import capture

    bounds = capture.parse_range(within) if within else None
    if vmcore is None and qmp is None:
        from secondsight.live.process import Process

        with Process.open(pid) as process:
            kernel, missing = capture.open_kernel(kernel_memory)
            return capture.take(process, kernel, missing, bounds)
    if vmcore is not None and qmp is not None:
        raise UsageError("--vmcore, --qmp: name one of them")
    if kernel_memory is not None:
        raise UsageError("--kernel-memory, --procfs: are about this machine, not about --vmcore and --qmp")
    path = vmcore or qmp
    if path is not None and not path.exists():
        raise UsageError(f"{path}: there is no such file")
    try:
        from secondsight.live import outside
    except ImportError:
        from secondsight.errors import MissingPart

        raise MissingPart("drgn is not installed: pip install 'secondsight[live]'") from None
    return outside.take(outside.open_kernel(vmcore, qmp), pid, bounds)
