"""What bench/run_time.py measured, beside what is predicted: errors, rank correlation, the plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

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
            small = round(faults - share * anon / 4096)
            counts = (round(faults), 0) if part == "user" else (small, round(share * anon / (2 << 20)))
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
    for part in ("user", "all"):
        print(f"CPU time, {part}:")
        records = predictions(work, calibration, part)
        for x in records:
            if x["share"] > 0:
                print(
                    f"{x['program']:24} {x['share']:6.0%} huge  measured {x['measured'] - 1:+7.1%} ± {x['spread']:.1%}  "
                    f"predicted {x['predicted'] - 1:+7.1%} ({x['low'] - 1:+.1%} to {x['high'] - 1:+.1%})"
                )
        errors(records)
        if part == "user":
            left_out(records)
        if svg is not None and part == "user":
            svg.write_text(plot(records))


def left_out(records: list[dict[str, Any]]) -> None:
    """The errors with each program's share of the suite's price taken from the other programs alone."""
    moved = [x for x in records if x["share"] > 0]
    off = []
    for name in dict.fromkeys(x["program"] for x in moved):
        predicted_gains, real = np.array(
            [[1 - x["predicted"], 1 - x["measured"]] for x in moved if x["program"] != name]
        ).T
        factor = float(predicted_gains @ real / (predicted_gains @ predicted_gains))
        off += [
            abs((1 - factor * (1 - x["predicted"])) / x["measured"] - 1)
            for x in moved
            if x["program"] == name
        ]
    print(
        f"each program predicted from the others: error {np.median(off):.1%} (median), {max(off):.1%} (worst)"
    )


def errors(records: list[dict[str, Any]]) -> None:
    """Errors of the predicted times and of "no change", the share inside the interval, the ranks of the programs' gains."""
    moved = [x for x in records if x["share"] > 0]
    measured, predicted = (np.array([x[key] for x in moved]) for key in ("measured", "predicted"))
    off, still = np.abs(predicted / measured - 1), np.abs(1 / measured - 1)
    inside = np.mean([x["low"] <= x["measured"] <= x["high"] for x in moved])
    best: dict[str, dict[str, Any]] = {}
    for x in moved:
        if x["share"] >= best.get(x["program"], {"share": 0})["share"]:
            best[x["program"]] = x
    gains = np.array([[1 - x["measured"], 1 - x["predicted"]] for x in best.values()])
    rank = np.corrcoef(ranks(gains[:, 0]), ranks(gains[:, 1]))[0, 1] if len(gains) > 2 else float("nan")
    print(
        f"{len(best)} programs, {len(moved)} layouts: error {np.median(off):.1%} (median), {off.max():.1%} (worst); of no change "
        f"{np.median(still):.1%}, {still.max():.1%}; {inside:.0%} inside the interval; Spearman of the gains {rank:.2f}; "
        f"gains of 15 % and more: {np.sum(gains[:, 0] >= 0.15)}"
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
