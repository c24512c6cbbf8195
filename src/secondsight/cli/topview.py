"""The live view of ``secondsight top``: Textual draws, sorts and listens; what is shown is what the one-shot table shows."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from secondsight.host import columns, printing
from secondsight.terminal import printable

if TYPE_CHECKING:
    from secondsight.cli.top import Shown
    from secondsight.host.rows import HostRow
    from secondsight.host.survey import HostView

#: cells of a column at most, where there is room
_WIDEST = 60
_KEYS = "q quit  s S sort by next, previous column  f freeze  r now  enter explain"


class ExplainScreen(ModalScreen[None]):
    """What ``explain`` says of one process."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,enter", "dismiss", "back")]

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid

    def compose(self) -> ComposeResult:
        """A text that can be scrolled."""
        with VerticalScroll():
            yield Static(f"process {self.pid}: reading ...  (q: back)", id="text", markup=False)

    def on_mount(self) -> None:
        """Ask in a thread: a large process takes a while."""
        self.run_worker(self._ask, thread=True)

    def _ask(self) -> None:
        command = [sys.executable, "-m", "secondsight", "explain", "--pid", str(self.pid)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        explanation = done.stdout or done.stderr
        self.app.call_from_thread(self.query_one("#text", Static).update, explanation)


class TopView(App[None]):
    """Passes one after the other, in a table."""

    TITLE = "secondsight top"
    ENABLE_COMMAND_PALETTE = False
    CSS = "#head { height: auto; } DataTable { height: 1fr; } #keys { height: 1; dock: bottom; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "quit"), Binding("ctrl+c", "quit", "quit", priority=True),
        ("s", "sort(1)", "sort"), ("S", "sort(-1)", "sort"), ("f", "freeze", "freeze"), ("r", "look", "now"),
    ]  # fmt: skip

    def __init__(self, look: Callable[[], HostView], shown: Shown, interval: float) -> None:
        super().__init__(ansi_color=True)
        self._look, self._shown, self._interval = look, shown, interval
        self.view: HostView | None = None
        self.rows: list[HostRow] = []
        self.frozen = False
        self._looking = False
        self._drawn: list[str] = []

    def compose(self) -> ComposeResult:
        """The head, the rows, the keys."""
        yield Static("reading ...", id="head", markup=False)
        table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=False)
        yield table
        yield Static(_KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """Begin."""
        self.set_interval(self._interval, self._due)
        self.action_look()

    def _due(self) -> None:
        if not self.frozen:
            self.action_look()

    def action_look(self) -> None:
        """Make a pass, unless one is under way."""
        if not self._looking:
            self._looking = True
            self.run_worker(self._pass, thread=True)

    def _pass(self) -> None:
        try:
            view: HostView | None = self._look()
        except Exception as error:
            self._looking = False
            self.call_from_thread(self.exit, None, 1, str(error))
            return
        self._looking = False
        self.call_from_thread(self.show, view)

    def show(self, view: HostView | None = None) -> None:
        """Draw *view*, or the last one again."""
        self.view = view or self.view
        if self.view is None:
            return
        self.rows = self._shown.rows(self.view)
        state = f"sorted by {self._shown.sort or 'gain'}" + (", frozen (f: go on)" if self.frozen else "")
        width = max(self.size.width - 2, 20)
        self.query_one("#head", Static).update(
            "\n".join([*printing.head(self.view, len(self.rows), width, self._shown.names), state])
        )
        table: DataTable[Text] = self.query_one(DataTable)
        kept = table.cursor_row
        table.clear(columns=True)
        names = self._drawn = _fitting(self.rows, self._shown.names, width, self._sorted_by)
        for name in names:
            column = columns.COLUMNS[name]
            # A title stands over its numbers, which end at the right.
            table.add_column(Text(column.title, justify="left" if column.words else "right"), key=name)
        for row in self.rows:
            cells = [
                columns.text(columns.COLUMNS[name].value(row), columns.COLUMNS[name].form) for name in names
            ]
            worded = [columns.COLUMNS[name].words for name in names]
            table.add_row(
                *(
                    Text(
                        printing.shorten(printable(cell), _widest(width)),
                        justify="left" if words else "right",
                    )
                    for cell, words in zip(cells, worded, strict=True)
                )
            )
        table.move_cursor(row=min(kept, max(len(self.rows) - 1, 0)))

    @property
    def _sorted_by(self) -> str:
        return (self._shown.sort or "gain").removeprefix("-")

    def action_sort(self, step: int) -> None:
        """Sort by the column on the right, or the left, of the one that is sorted by, among those that are seen."""
        names = self._drawn or self._shown.names
        by = self._sorted_by
        at = names.index(by) if by in names else -1 if step > 0 else 0
        self._shown = self._shown._replace(sort=names[(at + step) % len(names)])
        self.show()

    def action_freeze(self) -> None:
        """Stop making passes, or go on."""
        self.frozen = not self.frozen
        self.show()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a title sorts by it."""
        self._shown = self._shown._replace(sort=str(event.column_key.value))
        self.show()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter explains the process."""
        row = self.rows[event.cursor_row] if event.cursor_row < len(self.rows) else None
        if row is not None and row.pid is not None:
            self.push_screen(ExplainScreen(row.pid))

    def on_resize(self, event: Any) -> None:
        """More or fewer columns fit."""
        self.show()


def _widest(width: int) -> int:
    """Cells of a column at most: a long name leaves numbers their place on a narrow terminal."""
    return min(_WIDEST, max(printing.WORDS, width // 3))


def _fitting(rows: list[HostRow], names: tuple[str, ...], width: int, sort: str) -> list[str]:
    """The first of *names* that fit into *width* cells, each with the two that Textual puts around it; the one that rows are sorted by is
    among them, in place of the last if need be."""

    def cells(name: str) -> int:
        column = columns.COLUMNS[name]
        widths = [cell_len(printable(columns.text(column.value(row), column.form))) for row in rows]
        return min(max([len(column.title), *widths]), _widest(width)) + 2

    fitting: list[str] = []
    for name in names:
        if fitting and sum(map(cells, [*fitting, name])) > width:
            break
        fitting.append(name)
    if sort in names and sort not in fitting:
        while len(fitting) > 1 and sum(map(cells, [*fitting, sort])) > width:
            fitting.pop()
        fitting.append(sort)
    return fitting


def run(look: Callable[[], HostView], shown: Shown, interval: float) -> None:
    """Show passes of *look* until the user leaves, or a signal asks for the end; the terminal is as it was by then."""
    view = TopView(look, shown, interval)
    with contextlib.suppress(KeyboardInterrupt):
        view.run()
    if view.return_code:
        raise SystemExit(view.return_code)
