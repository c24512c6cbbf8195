"""The machine code that touches pages: compiled Python is not there in the guest, and a loop of bytecode is too slow.

In the process (x86-64, called through ctypes): each takes the area's base, an array of uint32 page numbers and its length. The
instruction that touches is always three bytes long, so that the SIGSEGV handler can step over it: an access that the mapping
denies does nothing, and is counted.

In the VM, one program in two encodings, for the vCPU without paging and for the one in long mode. It reads a list from the mailbox,
loads or stores at each address, halts, and starts again when it is run again:

    MAILBOX      uint32 count, uint32 store?, 8 bytes unused
    MAILBOX+16   count times: uint64 address, uint32 value, 4 bytes unused
"""

from __future__ import annotations

__all__ = [
    "DENIED",
    "FILL",
    "GUEST32",
    "GUEST64",
    "HANDLER",
    "HOST",
    "MAILBOX",
    "NEXT32",
    "NEXT64",
    "PRIVATE",
    "READ",
    "WRITE",
]

PRIVATE = 0xC000_0000
"""Guest-physical address of the VM's private slot: code, page tables and mailbox, far above any area."""

MAILBOX = PRIVATE + 0x10000

READ, WRITE, FILL, HANDLER, DENIED = 0x00, 0x40, 0x80, 0xC0, 0x100
"""Offsets in HOST: read(base, pages, n), write(base, pages, n, stamp), fill(base, pages, n, value), the handler, its count."""

_READ = """
    48 85 d2            test  rdx, rdx
    74 12               jz    ret
    8b 06               mov   eax, [rsi]          ; next page number
    48 c1 e0 0c         shl   rax, 12
    8a 0c 07            mov   cl, [rdi+rax]       ; the load
    48 83 c6 04         add   rsi, 4
    48 ff ca            dec   rdx
    75 ee               jnz   next
    c3                  ret
"""
_WRITE = """
    41 89 c9            mov   r9d, ecx            ; the stamp's upper bits
    48 85 d2            test  rdx, rdx
    74 17               jz    ret
    8b 06               mov   eax, [rsi]
    89 c1               mov   ecx, eax
    44 09 c9            or    ecx, r9d            ; stamp | page number: no two pages alike
    48 c1 e0 0c         shl   rax, 12
    89 0c 07            mov   [rdi+rax], ecx      ; the store
    48 83 c6 04         add   rsi, 4
    48 ff ca            dec   rdx
    75 e9               jnz   next
    c3                  ret
"""
_FILL = """
    49 89 c9            mov   r9, rcx
    49 89 fa            mov   r10, rdi
    fc                  cld
    48 85 d2            test  rdx, rdx
    74 1e               jz    ret
    8b 06               mov   eax, [rsi]
    48 c1 e0 0c         shl   rax, 12
    49 8d 3c 02         lea   rdi, [r10+rax]
    4c 89 c8            mov   rax, r9
    b9 00 02 00 00      mov   ecx, 512
    f3 48 ab            rep   stosq               ; the whole page
    48 83 c6 04         add   rsi, 4
    48 ff ca            dec   rdx
    75 e2               jnz   next
    c3                  ret
"""
# rdx is the ucontext; 0xa8 is uc_mcontext.gregs[REG_RIP]. A fault that is not ours ends the process.
_HANDLER = """
    48 8b 82 a8 00 00 00       mov   rax, [rdx+0xa8]
    48 8d 0d 32 ff ff ff       lea   rcx, [rip-0xce]     ; start of this page
    48 29 c8                   sub   rax, rcx
    48 3d 00 10 00 00          cmp   rax, 4096
    73 0f                      jae   other
    48 83 82 a8 00 00 00 03    add   qword [rdx+0xa8], 3
    ff 05 19 00 00 00          inc   dword [DENIED]
    c3                         ret
    0f 0b               other: ud2
"""
_GUEST32 = """
    be 00 00 01 c0      start: mov esi, MAILBOX
    8b 0e               mov   ecx, [esi]
    8b 56 04            mov   edx, [esi+4]
    83 c6 10            add   esi, 16
    e3 14               jecxz done
    8b 1e               next: mov ebx, [esi]
    8b 46 08            mov   eax, [esi+8]
    85 d2               test  edx, edx
    75 04               jnz   store
    8a 03               mov   al, [ebx]
    eb 02               jmp   on
    89 03               store: mov [ebx], eax
    83 c6 10            on: add esi, 16
    e2 ec               loop  next
    f4                  done: hlt
    eb da               jmp   start
"""
_GUEST64 = """
    be 00 00 01 c0      start: mov esi, MAILBOX
    8b 0e               mov   ecx, [rsi]
    8b 56 04            mov   edx, [rsi+4]
    48 83 c6 10         add   rsi, 16
    67 e3 16            jecxz done
    48 8b 1e            next: mov rbx, [rsi]
    8b 46 08            mov   eax, [rsi+8]
    85 d2               test  edx, edx
    75 04               jnz   store
    8a 03               mov   al, [rbx]
    eb 02               jmp   on
    89 03               store: mov [rbx], eax
    48 83 c6 10         on: add rsi, 16
    e2 ea               loop  next
    f4                  done: hlt
    eb d6               jmp   start
"""


def _bytes(listing: str) -> bytes:
    """The hexadecimal column of a listing."""
    out = b""
    for line in listing.strip().splitlines():
        for word in line.split():
            if len(word) != 2 or not all(c in "0123456789abcdef" for c in word):
                break
            out += bytes.fromhex(word)
    return out


def _page(parts: dict[int, bytes]) -> bytes:
    page = bytearray(max(parts) + 64)
    for at, code in parts.items():
        page[at : at + len(code)] = code
    return bytes(page)


HOST = _page(
    {READ: _bytes(_READ), WRITE: _bytes(_WRITE), FILL: _bytes(_FILL), HANDLER: _bytes(_HANDLER)}
) + bytes(64)
"""One page's worth: goes to the start of a page that is writable and executable (the handler counts in it)."""

GUEST32, GUEST64 = _bytes(_GUEST32), _bytes(_GUEST64)

NEXT32, NEXT64 = 0x1E, 0x21
"""Offset of ``on``: where a vCPU goes on when the host has denied an access."""
