"""What bench/run_time.py measured, beside what is predicted: errors, rank correlation, the plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.predict.model import LARGE, NOISE

COLOURS = ("#1b6ca8", "#c8553d", "#2a9d8f", "#8e5ea2", "#b8860b", "#5c6b73", "#d1495b", "#3d5a80", "#6a994e")


def predictions(work: Path, calibration: Path | None, part: str) -> list[dict[str, Any]]:
    """A record for each program and layout: time relative to every page small, measured and predicted, with the interval.

    *part*: ``user``, CPU time in user mode, which walks alone change; ``all``, with the system's, in which the faults are.
    """
    from secondsight.predict.calibration import find
    from secondsight.predict.prices import Waits
    from secondsight.predict.runtime import ReplayedRow, RunTime
    from secondsight.predict.walks import Profile
    from secondsight.trace import Trace

    chosen_calibration, notes = find(calibration)
    for note in notes:
        print(note)
    measured = json.loads((work / "measured.json").read_text())
    out = []
    for name, rounds in measured.items():
        path = work / f"{name}.parquet"
        if not path.exists():
            continue
        trace = Trace.open(path)
        # The program itself: the space that accessed most.
        walks = max(trace.provenance.walks, key=lambda w: w.accesses)
        scale = walks.accesses / walks.counted
        profile = Profile(
            scale * np.array(walks.small, float),
            scale * np.array(walks.huge, float),
            walks.accesses,
            walks.counted,
        )
        cpu = np.array([[x["cpu"] - (x["system"] if part == "user" else 0) for x in line] for line in rounds])
        ratio = np.median(cpu / cpu[:, :1], axis=0)
        # By pairs within a round: what the machine did meanwhile hits both; half the distance of the quartiles, of the median.
        spread = np.subtract(*np.quantile(cpu / cpu[:, :1], (0.75, 0.25), axis=0)) / 2 / np.sqrt(len(rounds))
        seconds = float(np.median(cpu[:, 0]))
        faults = float(np.median([line[0]["faults"] for line in rounds]))
        anon = float(np.median([line[0]["anon"] for line in rounds]))
        blocks = len(walks.block)
        predictor = RunTime(
            chosen_calibration,
            profile,
            ReplayedRow(np.zeros(blocks), Waits(round(faults))),
            seconds=seconds,
            footprint=anon / 2**20,
            guest=False,
        )
        for i, measured_ratio in enumerate(ratio):
            share = float(np.median([line[i]["huge"] for line in rounds]))
            # What a program unmaps and maps again it faults in again, in the same layout.
            counts = (
                (round(faults), 0)
                if part == "user"
                else (round(faults * (1 - share)), round(faults * share / HPAGE_PMD_NR))
            )
            prediction = predictor.of(ReplayedRow(np.full(blocks, share), Waits(*counts)))
            out.append({
                "program": name, "share": share, "seconds": seconds, "measured": float(measured_ratio), "spread": float(spread[i]),
                "predicted": prediction.seconds / seconds, "low": prediction.low / seconds, "high": prediction.high / seconds,
                "rounds": len(rounds),
            })  # fmt: skip
    return out


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing theirs."""
    return np.array([(np.sum(values < v) + np.sum(values <= v) - 1) / 2 for v in values])


def tell(work: Path, calibration: Path | None, svg: Path | None) -> None:
    """Print the tables and the errors, and write the plot."""
    programs(work)
    for part in ("user", "all"):
        print(f"CPU time, {part}:")
        records = predictions(work, calibration, part)
        for x in records:
            if x["share"] > 0:
                print(
                    f"{x['program']:24} {x['share']:6.0%} huge  measured {x['measured'] - 1:+7.1%} ± {x['spread']:.1%}  "
                    f"predicted {x['predicted'] - 1:+7.1%} ({x['low'] - 1:+.1%} to {x['high'] - 1:+.1%})"
                )
        errors("as compare predicts", records)
        if part == "user":
            errors("each program from the others", left_out(records))
        if svg is not None and part == "all":
            svg.write_text(plot(records))


def programs(work: Path) -> None:
    """Each program's size, its CPU time with every page small, what most huge pages saved, and what recording took."""
    measured = json.loads((work / "measured.json").read_text())
    kept = work / "recorded.json"
    recorded = json.loads(kept.read_text()) if kept.exists() else {}
    for name, rounds in measured.items():
        cpu, system = (np.array([[x[key] for x in line] for line in rounds]) for key in ("cpu", "system"))
        user = cpu - system
        saved = [1 - np.median(part[:, -1] / part[:, 0]) for part in (user, cpu)]
        took = (
            f"; recorded at {recorded[name] / np.median(cpu[:, 0]):.1f} times that"
            if name in recorded
            else ""
        )
        print(
            f"{name:24} {np.median([line[0]['anon'] for line in rounds]) / 2**20:,.0f} MiB, {np.median(user[:, 0]):.1f} s user and "
            f"{np.median(system[:, 0]):.1f} s system; most huge: {saved[0]:.1%} less user time, {saved[1]:.1%} less of both{took}"
        )


def left_out(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """*records* as they would be, had the other programs a part in them: a factor of the suite's price, and the interval."""
    moved = [x for x in records if x["share"] > 0]
    gains = np.array([[1 - x["predicted"], 1 - x["measured"]] for x in moved])
    out = []
    for x in moved:
        raw, real = gains[[y["program"] != x["program"] for y in moved]].T
        factor = float(raw @ real / (raw @ raw))
        floor, relative = widths(factor * raw, real)
        gain = factor * (1 - x["predicted"])
        off = floor + relative * abs(gain)
        out.append(x | {"predicted": 1 - gain, "low": 1 - gain - off, "high": 1 - gain + off})
    return out


def widths(predicted: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """How far gains are off, nine times of ten: share of the time where little is predicted; beyond it, share of the gain."""
    off, large = np.abs(predicted - real), predicted >= LARGE
    floor = float(np.quantile(off[~large], 0.9)) if (~large).any() else NOISE
    beyond = np.maximum(off[large] - floor, 0) / predicted[large]
    return floor, float(np.quantile(beyond, 0.9)) if large.any() else 0.0


def errors(title: str, records: list[dict[str, Any]]) -> None:
    """Errors of the predicted times and of "no change", the share inside the interval, the ranks of the programs' gains."""
    moved = [x for x in records if x["share"] > 0]
    measured, predicted = (np.array([x[key] for x in moved]) for key in ("measured", "predicted"))
    off, still = np.abs(predicted / measured - 1), np.abs(1 / measured - 1)
    inside = np.mean([x["low"] <= x["measured"] <= x["high"] for x in moved])
    most = {x["program"]: x for x in sorted(moved, key=lambda x: x["share"])}
    gains = np.array([[1 - x["measured"], 1 - x["predicted"]] for x in most.values()])
    above = np.array([1 - x["measured"] > 2 * x["spread"] for x in most.values()])
    factor, base = float(np.sum(gains.prod(1)) / np.sum(gains[:, 1] ** 2)), np.median(off) / np.median(still)
    print(
        f"{title}: {len(most)} programs, {len(moved)} layouts: error {np.median(off):.1%} (median), {off.max():.1%} (worst); of no change "
        f"{np.median(still):.1%}, {still.max():.1%}, so that it is {base:.2f} of that; {inside:.0%} inside the interval; Spearman of the "
        f"gains {spearman(gains):.2f}, of the {above.sum()} above the noise {spearman(gains[above]):.2f}; "
        f"gains of 15 % and more: {np.sum(gains[:, 0] >= 0.15)}; measured gains are {factor:.2f} of those predicted"
    )


def spearman(pairs: np.ndarray) -> float:
    """Rank correlation of two columns."""
    return (
        float(np.corrcoef(ranks(pairs[:, 0]), ranks(pairs[:, 1]))[0, 1]) if len(pairs) > 2 else float("nan")
    )


def plot(records: list[dict[str, Any]]) -> str:
    """Predicted against measured time, relative to every page small, as SVG: the same input gives the same bytes."""
    values = [x[key] for x in records for key in ("measured", "predicted")]
    low, high = np.floor(min(values) * 10) / 10, np.ceil(max(values) * 10) / 10
    size, edge = 460.0, 60.0

    def at(value: float) -> float:
        return edge + (value - low) / (high - low) * size

    def up(value: float) -> float:
        return edge + size - (value - low) / (high - low) * size

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size + 2 * edge + 200:.0f} {size + 2 * edge:.0f}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{size + 2 * edge + 200:.0f}" height="{size + 2 * edge:.0f}" fill="#fff"/>',
        f'<line x1="{at(low):.1f}" y1="{up(low):.1f}" x2="{at(high):.1f}" y2="{up(high):.1f}" stroke="#999" stroke-dasharray="4 3"/>',
    ]
    for tick in np.arange(round(low * 10), round(high * 10) + 1) / 10:
        out.append(
            f'<line x1="{at(tick):.1f}" y1="{edge:.0f}" x2="{at(tick):.1f}" y2="{edge + size:.0f}" stroke="#eee"/>'
        )
        out.append(
            f'<line x1="{edge:.0f}" y1="{up(tick):.1f}" x2="{edge + size:.0f}" y2="{up(tick):.1f}" stroke="#eee"/>'
        )
        out.append(
            f'<text x="{at(tick):.1f}" y="{edge + size + 18:.0f}" text-anchor="middle">{tick:.1f}</text>'
        )
        out.append(f'<text x="{edge - 8:.0f}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    out.append(
        f'<text x="{edge + size / 2:.0f}" y="{edge + size + 42:.0f}" text-anchor="middle">measured time, of that with small pages</text>'
    )
    out.append(
        f'<text transform="translate(16 {edge + size / 2:.0f}) rotate(-90)" text-anchor="middle">predicted</text>'
    )
    names = list(dict.fromkeys(x["program"] for x in records))
    for x in records:
        colour = COLOURS[names.index(x["program"]) % len(COLOURS)]
        if x["share"] == 0:
            continue
        bounds = [min(max(x[key], low), high) for key in ("low", "high")]
        out.append(
            f'<line x1="{at(x["measured"]):.1f}" x2="{at(x["measured"]):.1f}" y1="{up(bounds[0]):.1f}" y2="{up(bounds[1]):.1f}" '
            f'stroke="{colour}" stroke-opacity="0.3"/>'
        )
        out.append(
            f'<circle cx="{at(x["measured"]):.1f}" cy="{up(x["predicted"]):.1f}" r="4" fill="{colour}"/>'
        )
    for i, name in enumerate(names):
        y = edge + 20 * i + 10
        out.append(
            f'<circle cx="{edge + size + 24:.0f}" cy="{y:.0f}" r="4" fill="{COLOURS[i % len(COLOURS)]}"/>'
        )
        out.append(f'<text x="{edge + size + 36:.0f}" y="{y + 4:.0f}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])
