"""The machine code that touches pages: compiled Python is not there in the guest, and a loop of bytecode is too slow.

In the process (x86-64, called through ctypes), each routine begins with DRAIN, so that nothing of Python's own comes between empty LRU
batches and the pages that the routine puts into them:

    READ WRITE FILL   touch pages: the area's base, an array of uint32 page numbers, its length, a stamp or value. The instruction that
                      touches is always three bytes long, so that the SIGSEGV handler can step over it: an access that the
                      mapping denies does nothing, and is counted
    SYSCALL           number and five arguments; the result, or -errno
    PAUSE             waits for signals and does nothing else
    RUN               KVM_RUN until the guest halts, stepping over what the host denies: the vCPU's descriptor, its kvm_run, a buffer for
                      kvm_regs, where the guest goes on, counts of accesses denied by EFAULT and by MMIO (uint32[2])

In the VM, one program in two encodings, for the vCPU without paging and for the one in long mode. It reads a list from the mailbox,
loads or stores at each address, halts, and starts again when it is run again:

    MAILBOX      uint32 count, uint32 store?, 8 bytes unused
    MAILBOX+16   count times: uint64 address, uint32 value, 4 bytes unused
"""

from __future__ import annotations

__all__ = [
    "DENIED",
    "DRAIN",
    "FILL",
    "GUEST32",
    "GUEST64",
    "HANDLER",
    "HOST",
    "MAILBOX",
    "NESTING",
    "NEXT32",
    "NEXT64",
    "PAUSE",
    "PRIVATE",
    "READ",
    "RUN",
    "SYSCALL",
    "VMCB",
    "WRITE",
]

PRIVATE = 0xC000_0000
"""Guest-physical address of the VM's private slot: code, page tables and mailbox, far above any area."""

MAILBOX = PRIVATE + 0x10000

VMCB = PRIVATE + 0x10_0000
"""Where the VM keeps what it runs a guest of its own by; its code names the address."""

READ, WRITE, FILL, HANDLER, DENIED, DRAIN, SYSCALL, RUN = 0x00, 0x40, 0x80, 0xC0, 0x100, 0x140, 0x180, 0x1C0
PAUSE = 0x280
"""Offsets in HOST: read(base, pages, n), write(base, pages, n, stamp), fill(base, pages, n, value), the SIGSEGV handler, its count,
drain(), syscall(number, a, b, c, d, e), run(fd, kvm_run, regs, next, counts)."""

_READ = """
    e8 3b 01 00 00      call  DRAIN
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
    e8 fb 00 00 00      call  DRAIN
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
    e8 bb 00 00 00      call  DRAIN
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
# madvise(SCRATCH, 4096, MADV_COLD): lru_add_drain() comes before the look for pages, and there are none. The stack that a signal's frame
# will take is this process's own beforehand. All arguments are kept.
_DRAIN = """
    48 83 8c 24 00 f0 ff ff 00  or    qword [rsp-0x1000], 0
    48 83 8c 24 00 e0 ff ff 00  or    qword [rsp-0x2000], 0
    48 83 8c 24 00 d0 ff ff 00  or    qword [rsp-0x3000], 0
    57                  push  rdi
    56                  push  rsi
    52                  push  rdx
    51                  push  rcx
    b8 1c 00 00 00      mov   eax, 28             ; madvise
    48 bf 00 00 00 00 00 22 00 00  mov rdi, 0x220000000000
    be 00 10 00 00      mov   esi, 4096
    ba 14 00 00 00      mov   edx, 20             ; MADV_COLD
    0f 05               syscall
    59                  pop   rcx
    5a                  pop   rdx
    5e                  pop   rsi
    5f                  pop   rdi
    c3                  ret
"""
_SYSCALL = """
    e8 bb ff ff ff      call  DRAIN
    48 89 f8            mov   rax, rdi
    48 89 f7            mov   rdi, rsi
    48 89 d6            mov   rsi, rdx
    48 89 ca            mov   rdx, rcx
    4d 89 c2            mov   r10, r8
    4d 89 c8            mov   r8, r9
    0f 05               syscall
    c3                  ret
"""
_RUN = """
    53                  push  rbx
    55                  push  rbp
    41 54               push  r12
    41 55               push  r13
    41 56               push  r14
    49 89 fc            mov   r12, rdi
    48 89 f3            mov   rbx, rsi
    49 89 d5            mov   r13, rdx
    49 89 ce            mov   r14, rcx
    4c 89 c5            mov   rbp, r8
    e8 64 ff ff ff      call  DRAIN
    ba 00 00 00 00      again: mov edx, 0
    be 80 ae 00 00      mov   esi, 0xae80         ; KVM_RUN
    e8 4c 00 00 00      call  ioctl
    85 c0               test  eax, eax
    74 34               jz    stopped
    83 f8 fc            cmp   eax, -4             ; EINTR
    74 e8               je    again
    83 f8 f2            cmp   eax, -14            ; EFAULT
    75 35               jne   done
    ff 45 00            inc   dword [rbp]
    4c 89 ea            mov   rdx, r13
    be 81 ae 90 80      mov   esi, 0x8090ae81     ; KVM_GET_REGS
    e8 2e 00 00 00      call  ioctl
    4d 89 b5 80 00 00 00  mov [r13+128], r14      ; rip
    4c 89 ea            mov   rdx, r13
    be 82 ae 90 40      mov   esi, 0x4090ae82     ; KVM_SET_REGS
    e8 1a 00 00 00      call  ioctl
    85 c0               test  eax, eax
    74 bb               jz    again
    eb 0b               jmp   done
    83 7b 08 06         stopped: cmp dword [rbx+8], 6  ; exit_reason: KVM_EXIT_MMIO
    75 05               jne   done
    ff 45 04            inc   dword [rbp+4]
    eb ae               jmp   again
    41 5e               done: pop r14
    41 5d               pop   r13
    41 5c               pop   r12
    5d                  pop   rbp
    5b                  pop   rbx
    c3                  ret
    b8 10 00 00 00      ioctl: mov eax, 16
    4c 89 e7            mov   rdi, r12
    0f 05               syscall
    c3                  ret
"""
_PAUSE = """
    b8 22 00 00 00      start: mov eax, 34        ; pause
    0f 05               syscall
    eb f7               jmp   start
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

# The L1 guest: its own guest begins where the 32-bit code does and ends at a HLT, which comes here (SVM_EXIT_HLT); anything else stops us.
_NESTING = """
    b8 00 00 10 c0      start: mov eax, VMCB
    c7 80 78 05 00 00 00 00 00 c0  mov dword [rax+0x578], PRIVATE  ; save.rip
    0f 01 d8            vmrun rax
    83 78 70 78         cmp   dword [rax+0x70], 0x78   ; exit_code
    75 03               jne   wrong
    f4                  hlt
    eb e5               jmp   start
    0f 0b               wrong: ud2
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
    page = bytearray(max(at + len(code) for at, code in parts.items()))
    for at, code in parts.items():
        page[at : at + len(code)] = code
    return bytes(page)


HOST = _page(
    {
        READ: _bytes(_READ),
        WRITE: _bytes(_WRITE),
        FILL: _bytes(_FILL),
        HANDLER: _bytes(_HANDLER),
        DRAIN: _bytes(_DRAIN),
        SYSCALL: _bytes(_SYSCALL),
        RUN: _bytes(_RUN),
        PAUSE: _bytes(_PAUSE),
    }
)
"""One page's worth: goes to the start of a page that is writable and executable (the handler counts in it)."""

GUEST32, GUEST64, NESTING = _bytes(_GUEST32), _bytes(_GUEST64), _bytes(_NESTING)

NEXT32, NEXT64 = 0x1E, 0x21
"""Offset of ``on``: where a vCPU goes on when the host has denied an access."""
