"""``secondsight rules``: the presets, what differs between two of them, and what each rule rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from secondsight.mm.rules import Rules

app = typer.Typer(add_completion=False)


def _values(rules: Rules) -> dict[str, Any]:
    """Every rule's value, by name."""
    from secondsight.mm.rules import rule_names

    return {name: getattr(rules, name) for name in rule_names()}


@app.command()
def show(
    preset: Annotated[
        str | None, typer.Argument(help="Show every rule of this preset (6.1, or 6.1+field=value).")
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option("--diff", metavar="A B", help="Only what differs from A to B.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Without arguments: the presets. With one: every rule of it, what it means, where the kernel says so, and the evidence."""
    from secondsight.errors import UsageError
    from secondsight.mm import rules as model

    if preset is not None and diff is not None:
        raise UsageError("name one preset, or two after --diff, not both")
    if diff is not None:
        a, b = (model.preset(name) for name in diff)
        before, after = _values(a), _values(b)
        names = [name for name in model.rule_names() if before[name] != after[name]]
        if json:
            _json({"from": a.name, "to": b.name, "rules": [
                {"rule": name, "from": before[name], "to": after[name], **model.info(name)} for name in names
            ]})  # fmt: skip
            return
        console = _console()
        console.print(
            f"{len(names)} of {len(before)} rules differ from [bold]{a.name}[/] to [bold]{b.name}[/]"
        )
        for name in names:
            _rule(console, name, f"{_word(before[name])} → {_word(after[name])}")
    elif preset is not None:
        chosen = model.preset(preset)
        if json:
            _json({"preset": chosen.name, "rules": [
                {"rule": name, "value": value, **model.info(name)} for name, value in _values(chosen).items()
            ]})  # fmt: skip
            return
        console = _console()
        for name, value in _values(chosen).items():
            _rule(console, name, _word(value))
    elif json:
        _json({
            "presets": {n: {"about": model.ABOUT[n], "rules": _values(r)} for n, r in model.PRESETS.items()},
            "rules": {name: model.info(name) for name in model.rule_names()},
        })  # fmt: skip
    else:
        _presets()


def _presets() -> None:
    """The presets, each with what it is and how far it is from the one before."""
    from rich.table import Table

    from secondsight.mm import rules as model

    table = Table("preset", "what it is", "differs by", box=None, pad_edge=False)
    last: dict[str, Any] | None = None
    for name, rules in model.PRESETS.items():
        values = _values(rules)
        changed = "" if last is None else str(sum(values[k] != last[k] for k in values))
        table.add_row(name, model.ABOUT[name], changed)
        last = values
    console = _console()
    console.print(table)
    evidence = [model.info(name)["evidence"] for name in model.rule_names()]
    told = ", ".join(f"{evidence.count(kind)} {kind}" for kind in ("booted", "source", "deduced"))
    console.print(
        f"\n{len(evidence)} rules ({told}). `secondsight rules 6.1` shows each; `--diff 6.12 7.2` what changed."
    )


def _rule(console: Console, name: str, value: str) -> None:
    """One rule, its value, and what stands behind it."""
    from rich.markup import escape

    from secondsight.mm import rules as model

    told = model.info(name)
    console.print(f"\n[bold]{name}[/] = {escape(value)}\n  {escape(told['doc'])}\n  [dim]{told['evidence']}: "
                  f"{escape(told['cite'])}[/]")  # fmt: skip


def _word(value: object) -> str:
    """A value as ``preset+field=value`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _json(value: dict[str, Any]) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode({"schema": 1, **value}), indent=2).decode())
