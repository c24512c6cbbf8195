"""Noise for the readers, by the million: ``python tests/trace/fuzz.py [--seconds 600] [--runs 1000000] [READER ...]``.

Each run mutates a sample (bytes flipped, pieces cut, doubled and swapped in from other samples) and reads it. Anything but
a trace or an error of ours is a finding: the input is kept in ``fuzz-READER-SEED`` and the program ends with code 1. A run of
more than five seconds of CPU time is one too. The same --seed makes the same inputs.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from secondsight.errors import SecondSightError
from secondsight.trace import Provenance, Recording, Space, Trace, TraceWriter, recover
from secondsight.trace.intake import Intake
from secondsight.trace.read.convert import FORMATS
from secondsight.trace.read.text import ByteStream
from secondsight.trace.sampled import SAMPLE_COLUMNS, SIZES, SampleProvenance
from secondsight.trace.samples import Samples, is_samples
from support.foreign_traces import SAMPLES
from support.recordings import flushed

PIECES = [
    b"\n",
    b",",
    b"-",
    b"9" * 25,
    b"}",
    b"]",
    b"0x",
    b" ",
    b"\0",
    b"\xff",
    b"I  ",
    b" M ",
    b": ",
    b"|OP ",
    b'"',
    b"{",
    b"-1",
    b"1e999",
]
SLOW = 5.0


class Nothing:
    """A sink that checks what it is given and keeps nothing."""

    def __init__(self) -> None:
        self.provenance, self.path, self.rows = Provenance(source="fuzz"), Path("fuzz"), 0

    def append(self, time, space, address, kind, count=1) -> None:
        columns = [np.broadcast_to(np.asarray(c), np.shape(time)) for c in (space, address, kind, count)]
        assert int(np.max(columns[0], initial=0)) < len(self.provenance.spaces)
        assert int(np.max(columns[1], initial=0)) < 1 << 56
        assert int(np.max(columns[2], initial=0)) <= 2
        self.rows += np.size(time)

    def close(self) -> Provenance:
        return self.provenance


class Memory(ByteStream):
    """A ByteStream over bytes in memory."""

    def __init__(self, content: bytes) -> None:
        super().__init__("/dev/null")
        self.close()
        self.path = None
        self._data = io.BytesIO(content)  # type: ignore[assignment]


def mutate(rng: np.random.Generator, sample: bytes, others: list[bytes]) -> bytes:
    """*sample* after one to six small accidents."""
    text = bytearray(sample)
    for _ in range(rng.integers(1, 7)):
        at = int(rng.integers(0, len(text) + 1))
        match int(rng.integers(0, 7)):
            case 0 if text:
                text[at % len(text)] = int(rng.integers(0, 256))
            case 1:
                del text[at : at + int(rng.integers(0, 30))]
            case 2:
                text[at:at] = text[at : at + int(rng.integers(0, 200))]
            case 3:
                text[at:at] = PIECES[rng.integers(0, len(PIECES))]
            case 4 if text:
                text[at % len(text)] ^= 1 << int(rng.integers(0, 8))
            case 5:
                other = others[rng.integers(0, len(others))]
                start = int(rng.integers(0, len(other)))
                text[at : at + 20] = other[start : start + int(rng.integers(0, 60))]
            case _:
                if rng.random() < 0.2:
                    del text[at:]
    return bytes(text)


def text_reader(name: str):
    read = next(f.read for f in FORMATS if f.name == name)

    def run(content: bytes) -> None:
        intake = Intake(Nothing(), 0)  # type: ignore[arg-type]
        read(Memory(content), intake)

    return SAMPLES[name], run


def file_readers(directory: Path):
    """The trace and the recording reader: their samples and how to run them."""
    provenance = Provenance(source="fuzz", spaces=[Space(id=0, name="a")])
    rng = np.random.default_rng(0)
    columns = (np.arange(300), 0, rng.integers(0, 1 << 40, 300), rng.integers(0, 3, 300), 1)
    with TraceWriter(directory / "t.parquet", provenance) as out:
        out.append(*columns)
    recording = Recording(directory / "r.parquet", provenance)
    recording.append(*columns)
    flushed(recording)
    sampled = Recording(
        directory / "q.parquet", SampleProvenance(source="fuzz", spaces=provenance.spaces, interval=1)
    )
    counts = {name: rng.integers(0, 60, 300) for name in SAMPLE_COLUMNS}
    counts |= {
        "space": np.zeros(300),
        "form": np.zeros(300),
        "swapped": np.zeros(300),
        "present": np.full(300, 512),
    }
    counts |= dict.fromkeys(SIZES, np.full(300, 40)) | {"address": rng.integers(0, 1 << 20, 300) << 21}
    counts["time"] = np.arange(300) // 7
    sampled.put(counts.pop("time"), counts)
    flushed(sampled)
    with TraceWriter(directory / "s.parquet", sampled.provenance) as out:
        out.put(np.arange(300) // 7, counts)
    broken, made = directory / "broken", directory / "made.parquet"

    def trace(content: bytes) -> None:
        broken.write_bytes(content)
        Trace.open(broken, verify=True).read()

    def samples(content: bytes) -> None:
        broken.write_bytes(content)
        is_samples(broken)
        for _ in Samples.open(broken, verify=True).looks():
            pass

    def stream(content: bytes) -> None:
        broken.write_bytes(content)
        recover(broken, made)

    def compressed(content: bytes) -> None:
        broken.write_bytes(content)
        with ByteStream(str(broken)) as opened:
            for _ in opened.blocks():
                pass

    return {
        "trace": ((directory / "t.parquet").read_bytes(), trace),
        "recording": (recording.stream_path.read_bytes(), stream),
        "samples": ((directory / "s.parquet").read_bytes(), samples),
        "sampling": (sampled.stream_path.read_bytes(), stream),
        "compressed": (zlib.compress(SAMPLES["damo"]), compressed),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        readers = {name: text_reader(name) for name in SAMPLES} | file_readers(Path(directory))
        others = [sample for sample, _ in readers.values()]
        for name in options.reader or readers:
            sample, run = readers[name]
            run(sample)  # compiles what is compiled
            end, done, refused = time.monotonic() + options.seconds, 0, 0
            while done < options.runs and time.monotonic() < end:
                seed = options.seed + done
                content = mutate(np.random.default_rng(seed), sample, others)
                start = time.process_time()
                try:
                    run(content)
                except SecondSightError:
                    refused += 1
                except BaseException as error:
                    Path(f"fuzz-{name}-{seed}").write_bytes(content)
                    print(f"{name}: seed {seed}: {type(error).__name__}: {error}")
                    return 1
                if (taken := time.process_time() - start) > SLOW:
                    Path(f"fuzz-{name}-{seed}").write_bytes(content)
                    print(f"{name}: seed {seed}: took {taken:.1f} s")
                    return 1
                done += 1
            print(f"{name}: {done:,} runs, {refused:,} refused, none failed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
