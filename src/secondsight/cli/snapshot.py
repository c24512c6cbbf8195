"""``secondsight snapshot``: capture what explain needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secondsight.cli.options import KernelMemoryOption, QmpOption, RangeOption, VmcoreOption
from secondsight.plural import pluralize
from secondsight.terminal import printable

app = typer.Typer()


def _is_snapshot(path: Path) -> bool:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return "header.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


@app.command()
def snapshot(
    pid: Annotated[int, typer.Option(help="The process.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write (.npz).")],
    within: RangeOption = None,
    kernel_memory: KernelMemoryOption = None,
    vmcore: VmcoreOption = None,
    qmp: QmpOption = None,
) -> None:
    """Capture a process: mappings, page tables, page flags, and every channel that can be read. No kernel pointer is kept."""
    from secondsight import atomicfile
    from secondsight.cli import import_numpy
    from secondsight.cli.explained import take

    atomicfile.check_writable(
        output,
        *(path for path in (vmcore, qmp) if path is not None),
        kind=atomicfile.FileKind("snapshot", _is_snapshot),
    )
    import_numpy()
    from secondsight.live.read import capture

    taken = take(pid, within, kernel_memory, vmcore, qmp)
    capture.save(taken, output)
    count = len(taken.columns.address)
    print(
        f"{output}: {pluralize(count, 'block')} of {printable(taken.header.name)} ({pid}) "
        f"from {taken.header.source} in {taken.header.seconds:.2f} s"
    )
    if taken.header.missing:
        print(f"  channels that only kernel memory shows are unknown: {printable(taken.header.missing)}")
