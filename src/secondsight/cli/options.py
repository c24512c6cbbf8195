"""Options that several commands have, and what they stand for; the line that says how far the work is."""

from __future__ import annotations

import contextlib
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from secondsight.cli.plain import OF_A_PROCESS, PlainOption

if TYPE_CHECKING:
    from secondsight.mm.config import HostConfig
    from secondsight.replay.configuration import Backing

# -- of a running process --------------------------------------------------------------------------------------------

RangeOption = Annotated[str | None, typer.Option("--range", help=OF_A_PROCESS["--range"].help)]
KernelMemoryOption = Annotated[
    bool | None, typer.Option("--kernel-memory/--procfs", help=OF_A_PROCESS["--procfs"].help)
]
VmcoreOption = Annotated[Path | None, typer.Option(help=OF_A_PROCESS["--vmcore"].help)]
QmpOption = Annotated[Path | None, typer.Option(help=OF_A_PROCESS["--qmp"].help)]


def command_of(function: Callable[..., None], options: Mapping[str, PlainOption]) -> Callable[..., None]:
    """*function* as a command for Typer, whose parameters are those that *options* state."""
    words: dict[str, list[str]] = {}
    for word, option in options.items():
        words.setdefault(option.parameter, []).append(word)
    parameters, annotations = [], {}
    for name, flags in words.items():
        option = options[flags[0]]
        if flags == [""]:
            info: Any = typer.Argument(help=option.help)
        elif option.metavar and callable(option.says):
            info = typer.Option(
                flags[0], help=option.help, metavar=option.metavar, parser=_parser(option.says)
            )
        else:
            info = typer.Option("/".join(flags), help=option.help)
        annotations[name] = Annotated[option.kind, info]
        default = False if option.kind is bool else None
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotations[name]
            )
        )

    def command(**given: Any) -> None:
        function(**given)

    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = annotations
    return command


def _parser(reads: Callable[[str], Any]) -> Callable[[str], Any]:
    """*reads*, whose ValueError is told as Typer tells its own."""

    def parse(word: str) -> Any:
        try:
            return reads(word)
        except ValueError as error:
            raise typer.BadParameter(f"{word}: {error}") from None

    return parse


# -- of a replay -----------------------------------------------------------------------------------------------------

KnobOption = Annotated[
    list[str] | None,
    typer.Option(
        help="khugepaged's sysfs files: pages_to_scan=4096; a size's switch: hugepages-64kB=always; repeatable."
    ),
]
MmuOption = Annotated[str, typer.Option(help="What KVM uses: npt, shadow, ept, ept-noad.")]
MglruOption = Annotated[bool, typer.Option(help="The host runs MGLRU.")]


def host(knobs: list[str], mmu: str, mglru: bool) -> HostConfig:
    """The host that --knob, --mmu and --mglru describe.

    :raises UsageError: an unknown name, or a value that sysfs refuses.
    """
    from typing import get_args

    import msgspec

    from secondsight.errors import UsageError
    from secondsight.geometry import ANON_ORDERS, kb_of_order
    from secondsight.mm.config import HostConfig, Knobs, Mmu, SizeEnabled
    from secondsight.replay import HOST

    if mmu not in (known := get_args(Mmu)):
        raise UsageError(f"--mmu {mmu!r}: one of {', '.join(known)}")
    changes: dict[str, int] = {}
    sizes: dict[str, str] = {}
    known_sizes = [f"{kb_of_order(order)}kB" for order in ANON_ORDERS]
    for item in knobs:
        name, equals, value = item.partition("=")
        size = name.removeprefix("hugepages-").removesuffix("/enabled")
        if equals and name.startswith("hugepages-"):
            if size not in known_sizes or value not in get_args(SizeEnabled):
                raise UsageError(
                    f"--knob {item!r}: write hugepages-SIZE=WORD, SIZE one of {', '.join(known_sizes)}, WORD one of "
                    f"{', '.join(get_args(SizeEnabled))}"
                )
            sizes[size] = value
            continue
        if not equals or name not in Knobs.__struct_fields__ or not (value.isascii() and value.isdigit()):
            raise UsageError(
                f"--knob {item!r}: write NAME=NUMBER, one of {', '.join(Knobs.__struct_fields__)}; or hugepages-64kB=always"
            )
        changes[name] = int(value)
    settings = msgspec.to_builtins(HOST) | {"mmu": mmu, "mglru": mglru}
    settings["knobs"] |= changes
    settings["sizes"] = settings.get("sizes", {}) | sizes
    try:
        return msgspec.convert(settings, HostConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"host: {error}") from None


def stands_behind(text: str, option: str) -> Backing:
    """What *option* says that the trace's memory is.

    :raises UsageError: none of the three.
    """
    from secondsight.errors import UsageError

    if text not in ("trace", "process", "vm"):
        raise UsageError(f"{option} {text!r}: one of trace, process, vm")
    return cast("Backing", text)


# -- what a shell completes ------------------------------------------------------------------------------------------


def complete_policy(incomplete: str) -> list[str]:
    """The policies whose names begin with *incomplete*."""
    from secondsight.policy import registry

    return [name for name in registry.names() if name.startswith(incomplete)]


def complete_profile(incomplete: str) -> list[str]:
    """The kernel profiles whose names begin with *incomplete*, oldest first."""
    from secondsight.mm.profiles import PROFILES

    return [name for name in PROFILES if name.startswith(incomplete)]


def rules_option(help: str, *names: str) -> Any:
    """``-r``, ``--rules``, or as *names* say: kernel profiles by name, which a shell completes."""
    return typer.Option(*(names or ("-r", "--rules")), autocompletion=complete_profile, help=help)


def seconds_of(during: str | None) -> float | None:
    """What ``--for`` says, in seconds; None where it is not given.

    :raises UsageError: no such time.
    """
    from secondsight.live.act.amounts import parse_duration

    return None if during is None else parse_duration(during, "--for")


class Progress:
    """One line on standard error where that is a terminal: share done, and the time left."""

    def __init__(self, did: str, *, compiles: bool = False) -> None:
        """Nothing printed yet; *did* is what is being done to a share of it; *compiles*: the work may have to compile the model first."""
        self.did, self.compiles = did, compiles
        self.watching = contextlib.ExitStack()
        self.start = self.last = time.monotonic()
        self.shown = False

    def __enter__(self) -> Progress:
        if self.compiles and sys.stderr.isatty():
            from secondsight.native import on_compile

            self.watching.enter_context(on_compile(self._compiling))
        return self

    def _compiling(self) -> None:
        if not self.shown:
            self.shown = True
            print("compiling the model, once for this version …", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        self.watching.close()
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int) -> None:
        """*done* of *total* rows, or bytes."""
        now = time.monotonic()
        if now - self.last < 0.5 or not sys.stderr.isatty() or not done:
            return
        self.last, self.shown = now, True
        left = (now - self.start) * (total - done) / done
        print(
            f"\r\x1b[K{100 * done / max(total, 1):.0f} % {self.did}, {left:.0f} s left",
            end="",
            file=sys.stderr,
            flush=True,
        )
