"""``secondsight rules``: the kernel profiles, what differs between two of them, and what each rule rests on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.cli.options import complete_profile

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
    profile: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_profile, help="Show every rule of this profile (6.1, or 6.1+field=value)."
        ),
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option("--diff", metavar="A B", help="Only what differs from A to B.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Without arguments: the kernel profiles. With one: every rule of it, what it means, where the kernel says so, and the evidence."""
    from secondsight.errors import UsageError
    from secondsight.mm import profiles
    from secondsight.mm import rules as model

    if profile is not None and diff is not None:
        raise UsageError("name one profile, or two after --diff, not both")
    if diff is not None:
        a, b = (profiles.profile(name) for name in diff)
        before, after = _values(a), _values(b)
        names = [name for name in model.rule_names() if before[name] != after[name]]
        if json:
            _json({"from": a.name, "to": b.name, "rules": [
                {"rule": name, "from": before[name], "to": after[name], **model.info(name)} for name in names
            ]})  # fmt: skip
            return
        console = _console()
        console.print(
            f"{len(names)} of {len(before)} rules differ from [bold]{a.title}[/] to [bold]{b.title}[/]"
        )
        for name in names:
            _rule(console, name, f"{_word(before[name])} → {_word(after[name])}")
    elif profile is not None:
        chosen = profiles.profile(profile)
        if json:
            _json({"profile": chosen.name, "asked": _asked(chosen), "rules": [
                {"rule": name, "value": value, **model.info(name)} for name, value in _values(chosen).items()
            ]})  # fmt: skip
            return
        console = _console()
        console.print(f"[bold]{chosen.title}[/]: {_behind(chosen)}", soft_wrap=True)
        for name, value in _values(chosen).items():
            _rule(console, name, _word(value))
    elif json:
        _json({
            "profiles": {
                name: {"about": profiles.ABOUT[name], "asked": _asked(each), "rules": _values(each)}
                for name, each in profiles.PROFILES.items()
            },
            "rules": {name: model.info(name) for name in model.rule_names()},
        })  # fmt: skip
    else:
        _profiles()


def _asked(rules: Rules) -> list[dict[str, Any]]:
    """The booted kernels behind *rules*, for JSON."""
    return [dataclasses.asdict(each) for each in rules.asked]


def _behind(rules: Rules) -> str:
    """The booted kernels behind *rules*, and in how many random scenarios they agreed."""
    versions: dict[str, dict[str, int]] = {}
    for each in rules.asked:
        on = versions.setdefault(each.version, {})
        on[each.mmu] = on.get(each.mmu, 0) + each.scenarios
    return (
        "; ".join(
            f"{version}: {', '.join(f'{count:,} on {mmu}' for mmu, count in on.items())}"
            for version, on in versions.items()
        )
        or "unasked"
    )


def _profiles() -> None:
    """The profiles, each with what it is, how far it is from the one before, and the booted kernels behind it."""
    from rich.table import Table

    from secondsight.mm import profiles
    from secondsight.mm import rules as model

    table = Table(
        "profile", "what it is", "differs by", "random scenarios in which it agreed with a booted kernel",
        box=None, pad_edge=False,
    )  # fmt: skip
    last: dict[str, Any] | None = None
    for name, rules in profiles.PROFILES.items():
        values = _values(rules)
        changed = "" if last is None else str(sum(values[k] != last[k] for k in values))
        table.add_row(name, profiles.ABOUT[name], changed, _behind(rules))
        last = values
    console = _console()
    console.print(table)
    evidence = [model.info(name)["evidence"] for name in model.rule_names()]
    kinds = ", ".join(f"{evidence.count(kind)} {kind}" for kind in ("booted", "source", "deduced"))
    console.print(
        f"\n{len(evidence)} rules ({kinds}). `secondsight rules 6.1` shows each; `--diff 6.12 7.2` what changed.\n"
        "An unasked profile is what its kernel's text was read to say: no booted kernel was held against it."
    )


def _rule(console: Console, name: str, value: str) -> None:
    """One rule, its value, and what stands behind it."""
    from rich.markup import escape

    from secondsight.mm import rules as model

    info = model.info(name)
    console.print(f"\n[bold]{name}[/] = {escape(value)}\n  {escape(info['doc'])}\n  [dim]{info['evidence']}: "
                  f"{escape(info['cite'])}[/]")  # fmt: skip


def _word(value: object) -> str:
    """A value as ``profile+field=value`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _console() -> Console:
    from rich.console import Console

    wide = Console(highlight=False, soft_wrap=True)
    # A pipe has no width of its own: no cell is folded there.
    return wide if wide.is_terminal else Console(highlight=False, soft_wrap=True, width=1000)


def _json(value: dict[str, Any]) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode({"schema": 1, **value}), indent=2).decode())
