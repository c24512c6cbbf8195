"""drgn types made from BTF, each when it is first asked for.

drgn has no reader for BTF but lets a program register finders; these answer for structures, unions,
enumerations, typedefs and base types, and for enumerators as constants. A type's members are thunks, so asking for
``struct mm_struct`` makes one type, not the thousands it leads to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import drgn

from secondsight.errors import InputError
from secondsight.live.read import btf
from secondsight.live.read.btf import Btf, Record

_KINDS: dict[Any, frozenset[int]] = {
    drgn.TypeKind.STRUCT: frozenset({btf.STRUCT}),
    drgn.TypeKind.UNION: frozenset({btf.UNION}),
    drgn.TypeKind.ENUM: frozenset({btf.ENUM, btf.ENUM64}),
    drgn.TypeKind.TYPEDEF: frozenset({btf.TYPEDEF}),
    drgn.TypeKind.INT: frozenset({btf.INT}),
    drgn.TypeKind.BOOL: frozenset({btf.INT}),
    drgn.TypeKind.FLOAT: frozenset({btf.FLOAT}),
}
_QUALIFIERS = {
    btf.VOLATILE: drgn.Qualifiers.VOLATILE,
    btf.CONST: drgn.Qualifiers.CONST,
    btf.RESTRICT: drgn.Qualifiers.RESTRICT,
}
_INT_SIGNED, _INT_BOOL = 1, 4


class BtfTypes:
    """The drgn types of one blob in one program."""

    def __init__(self, program: Any, blob: Btf) -> None:
        self._program = program
        self._btf = blob
        self._made: dict[int, Any] = {}

    def find_type(self, program: Any, kinds: Any, name: str, filename: str | None) -> Any:
        """drgn's type finder: the type called *name* of one of *kinds*, or None."""
        wanted: set[int] = set()
        for kind, ours in _KINDS.items():
            if kind in kinds:
                wanted |= ours
        number = self._btf.find(name, frozenset(wanted))
        if number is None:
            return None
        drgn_type = self.type(number)
        return drgn_type if drgn_type.kind in kinds else None

    def find_constant(self, program: Any, name: str, flags: Any, filename: str | None) -> Any:
        """drgn's object finder: the enumerator *name* as a constant, or None."""
        if not flags & drgn.FindObjectFlags.CONSTANT:
            return None
        hit = self._btf.find_enumerator(name)
        return None if hit is None else drgn.Object(self._program, self.type(hit[0]), hit[1])

    def type(self, number: int) -> Any:
        """The drgn type of BTF type *number* (0 is void).

        :raises InputError: the blob has no such type, or a kind newer than this reader.
        """
        made = self._made.get(number)
        if made is None:
            made = self._made[number] = self._make(number)
        return made

    def _make(self, number: int) -> Any:
        if number == 0:
            return self._program.void_type()
        record = self._btf.record(number)
        maker = _MAKERS.get(record.kind)
        if maker is None:
            raise InputError(self._btf.source, f"type {number}", f"unknown kind {record.kind}")
        return maker(self, record, self._btf.text(record.name) or None)

    def _int(self, record: Record, name: str | None) -> Any:
        encoding = int(record.words[record.at]) >> 24
        if encoding & _INT_BOOL:
            return self._program.bool_type(name, record.size_or_type)
        return self._program.int_type(name, record.size_or_type, bool(encoding & _INT_SIGNED))

    def _float(self, record: Record, name: str | None) -> Any:
        return self._program.float_type(name, record.size_or_type)

    def _pointer(self, record: Record, name: str | None) -> Any:
        return self._program.pointer_type(self.type(record.size_or_type))

    def _array(self, record: Record, name: str | None) -> Any:
        element, _, length = record.words[record.at : record.at + 3].tolist()
        # A length of 0 is BTF's way to write a flexible array.
        return self._program.array_type(self.type(element), *([length] if length else []))

    def _struct(self, record: Record, name: str | None) -> Any:
        make = self._program.struct_type if record.kind == btf.STRUCT else self._program.union_type
        return make(name, record.size_or_type, self._members(record))

    def _members(self, record: Record) -> list[Any]:
        rows = record.words[record.at : record.at + 3 * record.members].reshape(-1, 3).tolist()
        members = []
        for name, number, offset in rows:
            # With the record's flag set, the high byte of the offset is the width of a bit field.
            width = offset >> 24 if record.flag else 0
            bit_offset = offset & 0xFFFFFF if record.flag else offset
            members.append(
                drgn.TypeMember(self._thunk(number, width), self._btf.text(name) or None, bit_offset)
            )
        return members

    def _thunk(self, number: int, width: int = 0) -> Callable[[], Any]:
        if width:
            return lambda: drgn.Object(self._program, self.type(number), bit_field_size=width)
        return lambda: self.type(number)

    def _forward(self, record: Record, name: str | None) -> Any:
        kind = btf.UNION if record.flag else btf.STRUCT
        full = self._btf.find(name or "", frozenset({kind}))
        if full is not None:
            return self.type(full)
        return (self._program.union_type if record.flag else self._program.struct_type)(name)

    def _enum(self, record: Record, name: str | None) -> Any:
        pairs = self._btf.enumerators(record)
        if not pairs:
            return self._program.enum_type(name)
        base = self._program.int_type(
            "int" if record.flag else "unsigned int", record.size_or_type, record.flag
        )
        return self._program.enum_type(name, base, [drgn.TypeEnumerator(*pair) for pair in pairs])

    def _typedef(self, record: Record, name: str | None) -> Any:
        return self._program.typedef_type(name, self.type(record.size_or_type))

    def _qualified(self, record: Record, name: str | None) -> Any:
        inner = self.type(record.size_or_type)
        return inner.qualified(inner.qualifiers | _QUALIFIERS[record.kind])

    def _transparent(self, record: Record, name: str | None) -> Any:
        return self.type(record.size_or_type)

    def _function(self, record: Record, name: str | None) -> Any:
        rows = record.words[record.at : record.at + 2 * record.members].reshape(-1, 2).tolist()
        parameters = [
            drgn.TypeParameter(self._thunk(kind), self._btf.text(text) or None) for text, kind in rows if kind
        ]
        return self._program.function_type(
            self.type(record.size_or_type), parameters, len(parameters) < len(rows)
        )


_MAKERS: dict[int, Callable[[BtfTypes, Record, str | None], Any]] = {
    btf.INT: BtfTypes._int,
    btf.PTR: BtfTypes._pointer,
    btf.ARRAY: BtfTypes._array,
    btf.STRUCT: BtfTypes._struct,
    btf.UNION: BtfTypes._struct,
    btf.ENUM: BtfTypes._enum,
    btf.ENUM64: BtfTypes._enum,
    btf.FWD: BtfTypes._forward,
    btf.TYPEDEF: BtfTypes._typedef,
    btf.VOLATILE: BtfTypes._qualified,
    btf.CONST: BtfTypes._qualified,
    btf.RESTRICT: BtfTypes._qualified,
    btf.FUNC: BtfTypes._transparent,
    btf.VAR: BtfTypes._transparent,
    btf.DECL_TAG: BtfTypes._transparent,
    btf.TYPE_TAG: BtfTypes._transparent,
    btf.FUNC_PROTO: BtfTypes._function,
    btf.FLOAT: BtfTypes._float,
}


def load(folder: Path, modules: tuple[str, ...] = ()) -> dict[str, Btf]:
    """The types of ``folder/vmlinux`` and of those *modules* that have a file there, by name.

    :raises MissingDependency: the kernel has no BTF.
    :raises InputError: what is there is not BTF.
    """
    base = Btf.load(folder / "vmlinux")
    of_modules = {name: Btf.load(folder / name, base) for name in modules if (folder / name).exists()}
    return {"vmlinux": base, **of_modules}


def attach(program: Any, name: str, blob: Btf) -> None:
    """Give *program* the types of *blob* under *name*, to be asked before those that it has: a module's after vmlinux's."""
    types = BtfTypes(program, blob)
    program.register_type_finder(f"btf:{name}", types.find_type, enable_index=0)
    program.register_object_finder(f"btf:{name}", types.find_constant, enable_index=0)
